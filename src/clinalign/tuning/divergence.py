"""How far the policy is from its anchor, for every update rule in the same way, and how strongly it is held back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from clinalign.core.precision import autocast
from clinalign.core.seeds import derive_seed, seeded_noise
from clinalign.generation.ddim import DdimSchedule, gaussian_kl
from clinalign.generation.generator import Generator
from clinalign.generation.noising import add_noise
from clinalign.generation.sampling import at_step, step_mean
from clinalign.tuning.rollout import Rollout, Sampler

LARGEST_CHANGE = 0.2  # of the weight in one epoch (R), as in the adaptive controller of arXiv 1909.08593


class KlWeight:
    """Weight of the KL term: fixed, or steered towards a target.

    The controller is that of Ziegler et al. (arXiv 1909.08593, section 2.2): the weight is multiplied by
    ``1 + clip(kl / target - 1, -0.2, 0.2)`` after each epoch.

    Args:
        weight: First weight; 0 for no term.
        target: Wanted ``kl``; ``None`` keeps the weight.
    """

    def __init__(self, weight: float, target: float | None = None) -> None:
        self.weight, self.target = weight, target

    def update(self, measured: float) -> None:
        """Take the KL measured in an epoch into account."""
        if self.target is not None:
            self.weight *= 1 + min(LARGEST_CHANGE, max(-LARGEST_CHANGE, measured / self.target - 1))


def choose_kl_rows(seed: int, epoch: int, images: int, steps: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (sample, step) pairs of an epoch on which the KL is measured, the same for every number of processes.

    Args:
        seed: The run's seed.
        epoch: Current epoch.
        images: Images of the epoch, over all processes.
        steps: Steps of the sampler.
        rows: Number of pairs wanted; never more than there are.

    Returns:
        Global numbers of the samples, and steps, each ``(R,)`` int64.
    """
    chance = torch.Generator().manual_seed(derive_seed(seed, "kl", epoch))
    pairs = torch.randperm(images * steps, generator=chance)[:rows]
    return pairs // steps, pairs % steps


@torch.no_grad()
def sum_kl(
    generator: Generator,
    rollout: Rollout,
    samples: torch.Tensor,
    steps: torch.Tensor,
    seeds: list[int],
    sampler: Sampler,
    noisy: DdimSchedule,
    micro_batch: int,
    anchor: Callable[[], AbstractContextManager[None]],
) -> tuple[float, int]:
    """Return the sum of the closed-form KL of a step to the anchor's over rows, and the evaluations spent.

    The state before the step is the finished picture with fresh noise, and the step has the noise of eta 1: so the
    figure means the same whether pictures are drawn with noise or without, and whatever is trained.

    Args:
        generator: The policy.
        rollout: This process's pictures.
        samples: ``(R,)`` picture of each row.
        steps: ``(R,)`` step of each row.
        seeds: R seeds of the fresh noise.
        sampler: Guidance and precision.
        noisy: Schedule of the same steps at eta 1.
        micro_batch: Rows at once.
        anchor: Context in which the generator is the anchor.
    """
    total = 0.0
    for start in range(0, len(samples), micro_batch):
        rows, at = samples[start : start + micro_batch], steps[start : start + micro_batch]
        clean = rollout.clean[rows]
        noise = seeded_noise(seeds[start : start + micro_batch], generator.latent_shape)[:, 0].to(clean)
        x_t = add_noise(clean, noise, at_step(noisy.alpha_t, at, clean))
        condition = rollout.condition[rows]

        def mean() -> tuple[torch.Tensor, torch.Tensor]:
            with autocast(sampler.precision, generator.device):
                prediction, _ = generator.predict(x_t, at, noisy, condition, sampler.guidance)  # noqa: B023
            return step_mean(generator, prediction, x_t, at, noisy)  # noqa: B023

        own, sigma = mean()
        with anchor():
            other, _ = mean()
        total += float(gaussian_kl(own, other, sigma).sum())
    return total, 2 * (1 if sampler.guidance == 1.0 else 2) * len(samples)
