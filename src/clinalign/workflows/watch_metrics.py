"""The watch metrics of a look, as the numbers that go into ``metrics.jsonl`` and that the guard reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from clinalign.core.types import Case, Extractor, RewardResult
from clinalign.evaluation.diversity import Pairs, feature_distances, prompt_means, text_ids
from clinalign.evaluation.intervals import Estimate
from clinalign.evaluation.watch import (
    Pictures,
    RealRange,
    describe,
    distance_to_real,
    mean_change,
    share_lost,
    standard_error,
)
from clinalign.networks.classifier import AttributeClassifier
from clinalign.tuning.guards import LEVEL, NOISE, REWARD


@dataclass(frozen=True)
class Look:
    """What is kept of the N pictures of a look.

    Attributes:
        pictures: Their statistics.
        rewards: ``reward``, and ``reward/NAME`` of each where there are several (with its weight), to ``(N,)`` scores,
            NaN where not valid.
        right: ``(N,)`` share of the known attributes that the evaluator finds as asked, NaN without any.
        variety: ``diversity`` and ``feature_diversity`` to the ``(G,)`` mean distance between the pictures of a prompt.
    """

    pictures: Pictures
    rewards: dict[str, torch.Tensor]
    right: torch.Tensor | None
    variety: dict[str, torch.Tensor]


class WatchMetrics:
    """Measures looks, and how each differs from the anchor's.

    Args:
        cases: The N watched cases, in the order of the pictures.
        pairs: Which of them share a prompt.
        weights: Of the run's rewards, by name.
        real: Real images to compare with, if any.
        extractor: Gives features, if any.
        evaluator: The independent judge, if any.
        seed: Of the resamples.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        pairs: Pairs,
        weights: Mapping[str, float],
        real: RealRange | None,
        extractor: Extractor | None,
        evaluator: AttributeClassifier | None,
        seed: int,
    ) -> None:
        self.cases, self.pairs, self.weights = list(cases), pairs, dict(weights)
        self.real, self.extractor, self.evaluator, self.seed = real, extractor, evaluator, seed
        prompts = text_ids(cases)
        # with a single prompt there is only the spread between its pictures to learn the noise from
        self.prompts = prompts if len(set(prompts)) > 1 else None

    def see(self, images: torch.Tensor, scores: RewardResult, likeness: torch.Tensor) -> Look:
        """Measure the pictures of a look.

        Args:
            images: ``(N, 3, H, W)`` in ``[0, 1]``.
            scores: What the rewards' sum says of them, each reward in its parts.
            likeness: ``(P,)`` MS-SSIM of the pairs.
        """
        pictures = describe(images, self.extractor)
        rewards = {"reward": scores.values.masked_fill(~scores.valid, torch.nan).cpu()}
        if len(self.weights) > 1:
            rewards |= {f"reward/{name}": weight * scores.parts[name].cpu() for name, weight in self.weights.items()}
        variety = {}
        if len(self.pairs.first):
            variety["diversity"] = prompt_means(1.0 - likeness, self.pairs)
            if pictures.features is not None:
                distances = feature_distances(pictures.features, self.pairs)
                variety["feature_diversity"] = prompt_means(distances, self.pairs)
        return Look(pictures, rewards, self._right(images), variety)

    def row(self, now: Look, before: Look) -> dict[str, float]:
        """Return what goes into ``metrics.jsonl``: ``watch/NAME``, ``watch_noise/NAME`` and ``evaluate/reward/NAME``.

        Args:
            now: The look.
            before: The anchor's, of the same prompts and noise.
        """
        levels = {} if self.real is None else self.real.levels(now.pictures)
        noise: dict[str, float] = {}
        if self.real is not None and len(self.cases) > 1:
            changes = self.real.changes(now.pictures, before.pictures, self.prompts, self.seed)
            noise = {name: standard_error(change) for name, change in changes.items()}
        lost: dict[str, Estimate] = {}
        for name, distances in now.variety.items():
            if len(distances) > 1:
                lost[name] = share_lost(distances, before.variety[name], self.seed)
        if now.right is not None and before.right is not None and len(self.cases) > 1:
            lost["judge"] = mean_change(-now.right, -before.right, self.prompts, self.seed)
        rewards = {
            name: mean_change(values, before.rewards[name], self.prompts, self.seed)
            for name, values in now.rewards.items()
            if len(self.cases) > 1
        }
        parts = {
            f"{REWARD}/{name.partition('/')[2]}": float(values.nanmean())
            for name, values in now.rewards.items()
            if "/" in name
        }
        found = {
            **parts,
            **{f"{LEVEL}{name}": value for name, value in levels.items()},
            **{f"{LEVEL}{name}": estimate.value for name, estimate in lost.items()},
            f"{LEVEL}distance": distance_to_real(levels),
            **{f"{NOISE}{name}": value for name, value in noise.items()},
            **{f"{NOISE}{name}": standard_error(estimate) for name, estimate in (lost | rewards).items()},
        }
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _right(self, images: torch.Tensor) -> torch.Tensor | None:
        if self.evaluator is None:
            return None
        names = self.evaluator.attribute_names
        asked = [[case.attributes.get(name) for name in names] for case in self.cases]
        truth = torch.tensor([[torch.nan if value is None else float(value) for value in row] for row in asked])
        agrees = ((self.evaluator.probabilities(images) > 0.5).float() == truth).float()
        return agrees.masked_fill(truth.isnan(), torch.nan).nanmean(dim=1)
