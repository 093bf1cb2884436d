"""NFT: negative-aware fine-tuning (arXiv 2509.16117; methods 4.4).

Around the old policy, which draws the pictures, the current one implies a positive policy and its mirror image, the
negative one. Good pictures pull the positive one, bad pictures the negative one, so both teach without a likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from clinalign.core.average import WeightAverage
from clinalign.core.config import TuneConfig
from clinalign.core.objective_config import NftConfig
from clinalign.tuning.objectives.base import Policy, Rows, Terms
from clinalign.tuning.objectives.matching import Matching, mean_square
from clinalign.tuning.rollout import Rollout


def implied_policies(current: torch.Tensor, old: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the predictions of the positive and of the negative policy.

    Args:
        current: Prediction of the policy that is trained.
        old: Prediction of the one that drew the pictures.
        beta: b: ``p+ = b p + (1 - b) p_old``, ``p- = (1 + b) p_old - b p``.
    """
    return beta * current + (1 - beta) * old, (1 + beta) * old - beta * current


class Nft(Matching[NftConfig]):
    """``L = s / b (r ||x0(p+) - x0||^2 / w+ + (1 - r) ||x0(p-) - x0||^2 / w-) + kl ||p - p_anchor||^2``."""

    logged = ("matching/positive", "matching/negative", "kl_trained")

    def __init__(self, config: TuneConfig, section: NftConfig, policy: Policy) -> None:
        super().__init__(config, section, policy)
        self.old = WeightAverage(policy.parameters, 0.0)

    def behaviour(self) -> AbstractContextManager[None]:
        """Draw with the old policy."""
        return self.old.applied_to(self.policy.parameters)

    def end_epoch(self) -> None:
        """Move the old policy towards the current one, more slowly as the run goes on."""
        decay = min(self.section.old_decay * self.old.steps, self.section.old_decay_max)
        self.old.update(self.policy.parameters, decay)

    def terms(self, rollout: Rollout, rows: Rows) -> Terms:
        """Return the loss of rows."""
        noised, scale, beta = (
            self.noised(rollout, rows, rows.samples, rows.pictures),
            self.section.advantage_scale,
            self.section.beta,
        )
        with torch.no_grad(), self.behaviour():
            old = self.predict(noised)
        anchor = self.anchor_prediction(noised) if self.kl.weight else None
        prediction = self.predict(noised)
        positive, negative = (
            self.weighed_error(noised, implied, "clean") for implied in implied_policies(prediction, old, beta)
        )
        share = (rows.advantages / scale).clamp(-1, 1) / 2 + 0.5
        away = torch.zeros_like(positive) if anchor is None else mean_square(prediction - anchor)
        loss = scale / beta * (share * positive + (1 - share) * negative) + self.kl.weight * away
        log = {
            "matching/positive": positive.detach(),
            "matching/negative": negative.detach(),
            "kl_trained": away.detach(),
        }
        return Terms(loss, (4 + (anchor is not None)) * self.branches * len(rows), log)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the old policy."""
        return dict(self.old.shadow)

    def state(self) -> dict[str, Any]:
        """Return its age too."""
        return {**super().state(), "old_steps": self.old.steps}

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Put the old policy back."""
        super().restore(tensors, state)
        device = self.policy.generator.device
        self.old.shadow = {name: value.to(device) for name, value in tensors.items()}
        self.old.steps = state["old_steps"]
