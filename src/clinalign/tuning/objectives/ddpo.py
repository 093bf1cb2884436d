"""DDPO: the clipped importance-ratio loss over denoising steps (arXiv 2305.13301, eq. 4; methods 3.3).

``ratio_norm`` (GRPO-Guard, methods 4.2) gives every step the same scale: the gradient of a plain log-ratio carries
``1 / sigma``, so that the steps with the least noise, which change the picture least, drown all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from clinalign.core.config import TuneConfig
from clinalign.core.errors import UserError
from clinalign.core.objective_config import DdpoConfig, StepPolicyConfig
from clinalign.generation.ddim import Reduction, gaussian_kl
from clinalign.tuning.objectives.base import Objective, Policy, Rows, Terms, choose_steps
from clinalign.tuning.replay import check_first_update, replay_log_prob
from clinalign.tuning.rollout import Rollout, Sampler

StepSection = TypeVar("StepSection", bound=StepPolicyConfig)


@dataclass(frozen=True)
class DdpoTerms:
    """Loss of each row and what is logged of it, all ``(R,)``.

    Attributes:
        loss: ``max(-A rho, -A clip(rho, 1 - e, 1 + e))``.
        ratio: Importance ratio rho, detached.
        clipped: The ratio lies outside the clip range.
    """

    loss: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def normalised_log_ratio(
    mean: torch.Tensor, x_s: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor, reduction: Reduction
) -> torch.Tensor:
    """Return ``sigma (log rho + ||mu - mu_old||^2 / (2 sigma^2))`` of R rows, ``(R,)``.

    With ``x_s = mu_old + sigma noise`` this is ``(mu - mu_old) . noise``: its mean is zero on the old policy, and its
    scale does not depend on the step.

    Args:
        mean: ``(R, C, H, W)`` mean of the current policy, with its graph.
        x_s: ``(R, C, H, W)`` what the old policy drew.
        noise: ``(R, C, H, W)`` standard normal noise of that draw.
        sigma: ``(R, 1, 1, 1)`` standard deviation of the step.
        reduction: ``mean`` or ``sum`` over C, H, W, as of the log-probabilities.
    """
    product = ((mean - (x_s - sigma * noise)) * noise).flatten(1)
    return product.mean(1) if reduction == "mean" else product.sum(1)


def ddpo_loss(log_ratio: torch.Tensor, advantage: torch.Tensor, clip_range: float) -> DdpoTerms:
    """Return the clipped surrogate loss of R (sample, step) rows.

    Args:
        log_ratio: ``(R,)`` log of the current policy's probability over that of the policy that drew the samples, with
            its graph; or :func:`normalised_log_ratio`.
        advantage: ``(R,)`` advantage of each row's sample.
        clip_range: e; belongs to the reduction of the log-probability (1e-4 for the mean over elements).
    """
    ratio = log_ratio.exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_range, 1 + clip_range))
    return DdpoTerms(loss, ratio.detach(), (ratio.detach() - 1).abs() > clip_range)


class StepPolicy(Objective[StepSection]):
    """Policy gradient on the probabilities of single steps."""

    logged = ("ratio/mean", "ratio/clip_fraction", "ratio/worst", "kl_old", "kl_trained")

    def __init__(self, config: TuneConfig, section: StepSection, policy: Policy) -> None:
        super().__init__(config, section, policy)
        if not bool((self.schedule.sigma > 0).all()):
            raise UserError(
                f"the scheduler of {config.generator.model} ends with a step without noise, which has no probability: "
                "set steps_offset to 1 and set_alpha_to_one to false in its scheduler/scheduler_config.json"
            )

    def terms(self, rollout: Rollout, rows: Rows) -> Terms:
        """Return the clipped loss and, where it has a weight, the closed-form KL to the anchor."""
        section, generator, sampler = self.section, self.policy.generator, self.sampler(rows.turn.epoch)
        anchor_mean = None
        if self.kl.weight:  # before the policy's forward: what the anchor switches must not change under a graph
            with torch.no_grad(), self.policy.anchor():
                _, anchor_mean, _ = replay_log_prob(generator, rollout, rows.samples, rows.steps, sampler)
        log_prob, mean, sigma = replay_log_prob(generator, rollout, rows.samples, rows.steps, sampler)
        at = rows.steps - rollout.first
        plain = log_prob - rollout.log_probs[rows.samples, at]
        log_ratio = plain
        if section.ratio_norm:
            x_s, noise = rollout.latents[rows.samples, at + 1], rollout.noise[rows.samples, at]
            log_ratio = normalised_log_ratio(mean, x_s, noise, sigma, section.logprob_reduction)
        clipped = ddpo_loss(log_ratio, rows.advantages, section.clip_range)
        loss, divergence = clipped.loss, torch.zeros_like(plain)
        if anchor_mean is not None:
            divergence = gaussian_kl(mean, anchor_mean, sigma, section.logprob_reduction)
            loss = loss + self.kl.weight * divergence
        moved = plain.detach()  # of the policies themselves, whatever scale the loss has
        log = {
            "ratio/mean": clipped.ratio,
            "ratio/clip_fraction": clipped.clipped.float(),
            "ratio/worst": moved.abs(),
            "kl_old": 0.5 * moved.square(),
            "kl_trained": divergence.detach(),
        }
        return Terms(loss, (3 + (anchor_mean is not None)) * self.branches * len(rows), log)

    def check_first_update(self, epoch: int, log: Mapping[str, float], rollout: Rollout) -> None:
        """Assert that replayed log-probabilities equal the sampled ones."""
        device = self.policy.generator.device.type
        check_first_update(log["ratio/worst"], self.sampler(epoch), rollout.clean[0].numel(), device)


class Ddpo(StepPolicy[DdpoConfig]):
    """Every step has noise, and a share of the steps, drawn for each picture, is trained."""

    def sampler(self, epoch: int) -> Sampler:
        """Keep every step."""
        rollout, train = self.config.rollout, self.config.train
        return Sampler(
            self.schedule, rollout.guidance, train.precision, self.section.logprob_reduction, range(rollout.steps)
        )

    def choose_steps(self, epoch: int, pictures: Sequence[int]) -> torch.Tensor:
        """Leave the last ``ignore_last`` steps out."""
        steps = self.config.rollout.steps
        allowed = range(steps - self.section.ignore_last)
        return choose_steps(self.config.seed, epoch, pictures, allowed, self.section.trained_steps(steps))
