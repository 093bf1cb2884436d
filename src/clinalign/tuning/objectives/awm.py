"""AWM: advantage-weighted matching (arXiv 2509.25050; methods 4.3).

The error of the prediction on a picture that the policy drew stands for minus its log-likelihood, so that pictures with
a high advantage are matched better and those with a low one worse.
"""

from __future__ import annotations

import torch

from clinalign.core.average import WeightAverage
from clinalign.core.config import TuneConfig
from clinalign.core.objective_config import AwmConfig
from clinalign.tuning.objectives.base import Policy, Rows, Terms
from clinalign.tuning.objectives.ddpo import ddpo_loss
from clinalign.tuning.objectives.matching import Matching, error_size, mean_square
from clinalign.tuning.rollout import Rollout


class Awm(Matching[AwmConfig]):
    """``L = max(-A rho, -A clip(rho, 1 - e, 1 + e)) + kl ||p - p_anchor||^2``, ``rho = exp(l - l_old)``.

    In an epoch's first step the weights are those that drew the pictures, so that ``l_old`` is ``l`` without its graph;
    later steps compute it with the weights of the epoch's beginning, one more pass.
    """

    logged = ("ratio/mean", "ratio/clip_fraction", "ratio/worst", "matching/error", "kl_trained")

    def __init__(self, config: TuneConfig, section: AwmConfig, policy: Policy) -> None:
        super().__init__(config, section, policy)
        self.old = WeightAverage(policy.parameters, 0.0)

    def begin_epoch(self) -> None:
        """Remember the weights that draw the pictures."""
        self.old.update(self.policy.parameters)

    def terms(self, rollout: Rollout, rows: Rows) -> Terms:
        """Return the loss of rows."""
        noised = self.noised(rollout, rows, rows.samples, rows.pictures)
        weight, passes, before, anchor = self.section.weight, 3, None, None
        if rows.turn.update:
            with torch.no_grad(), self.old.applied_to(self.policy.parameters):
                before = self.predict(noised)
            passes += 1
        if self.kl.weight:
            anchor, passes = self.anchor_prediction(noised), passes + 1
        prediction = self.predict(noised)
        before = prediction.detach() if before is None else before
        size = error_size(self.clean_error(noised, before))
        error = self.weighed_error(noised, prediction, weight, size)
        log_ratio = self.weighed_error(noised, before, weight, size) - error
        clipped = ddpo_loss(log_ratio, rows.advantages, self.section.clip_range)
        away = torch.zeros_like(error) if anchor is None else mean_square(prediction - anchor)
        log = {
            "ratio/mean": clipped.ratio,
            "ratio/clip_fraction": clipped.clipped.float(),
            "ratio/worst": log_ratio.detach().abs(),
            "matching/error": error.detach(),
            "kl_trained": away.detach(),
        }
        return Terms(clipped.loss + self.kl.weight * away, passes * self.branches * len(rows), log)
