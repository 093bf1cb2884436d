"""Drawing latents step by step, keeping the trajectory when a policy is to be trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clinalign.core.seeds import seeded_noise
from clinalign.generation.conditioning import TextCondition
from clinalign.generation.ddim import DdimSchedule, Reduction, ddim_mean, gaussian_log_prob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clinalign.generation.generator import Generator


@dataclass(frozen=True)
class Trajectory:
    """A batch of denoising paths, of which K consecutive steps are kept.

    Attributes:
        latents: ``(N, K + 1, C, H, W)`` float32, the states before, between and after the kept steps.
        log_probs: ``(N, K)`` float32 log-probability of each kept step under the policy that drew it; NaN for a step
            without noise, which has none.
        noise: ``(N, K, C, H, W)`` float32 standard normal noise of each kept step.
        clean: ``(N, C, H, W)`` float32, the end of the path.
        evaluations: Network evaluations spent, guidance counted twice.
    """

    latents: torch.Tensor
    log_probs: torch.Tensor
    noise: torch.Tensor
    clean: torch.Tensor
    evaluations: int


def at_step(values: torch.Tensor, steps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Pick ``values[steps]`` and shape it ``(N, 1, 1, 1)`` to go with ``like``."""
    return values.to(like.device, like.dtype)[steps].reshape(-1, 1, 1, 1)


def step_mean(
    generator: Generator, prediction: torch.Tensor, x_t: torch.Tensor, steps: torch.Tensor, schedule: DdimSchedule
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean ``(N, C, H, W)`` and sigma ``(N, 1, 1, 1)`` of each row's step, float32.

    Args:
        generator: Tells what its network predicts.
        prediction: ``(N, C, H, W)`` of the network for ``x_t``.
        x_t: ``(N, C, H, W)`` states before the step.
        steps: ``(N,)`` step of each row in the schedule.
        schedule: The sampler's steps.
    """
    alpha_t, alpha_s, sigma = (
        at_step(values, steps, x_t) for values in (schedule.alpha_t, schedule.alpha_s, schedule.sigma)
    )
    return ddim_mean(prediction.float(), x_t, alpha_t, alpha_s, sigma, generator.prediction_type), sigma


@torch.no_grad()
def draw_trajectories(
    generator: Generator,
    condition: TextCondition,
    seeds: Sequence[int],
    schedule: DdimSchedule,
    guidance: float,
    reduction: Reduction = "mean",
    keep: range | None = None,
    path_seeds: Sequence[int] | None = None,
    start: torch.Tensor | None = None,
    stop: int | None = None,
) -> Trajectory:
    """Sample N latents from the current policy.

    Initial and per-step noise of a sample come from its own seed alone, so the sample does not depend on its batch.

    Args:
        generator: The policy.
        condition: Text embeddings of the N prompts and of the empty prompt.
        seeds: N seeds.
        schedule: Steps of the sampler.
        guidance: Classifier-free guidance scale; 1 means the conditional branch alone.
        reduction: Of the log-probability.
        keep: Steps whose states, noise and log-probabilities are kept; none by default.
        path_seeds: N seeds of the noise of the steps; that of ``seeds`` by default.
        start: ``(N, C, H, W)`` states at the first kept step, from where to go on; noise by default.
        stop: Step before which to stop; the path's end by default.

    Returns:
        The trajectory, on the generator's device.
    """
    keep, steps = keep or range(0), stop if stop is not None else len(schedule)
    noise = seeded_noise(seeds, generator.latent_shape, draws=len(schedule) + 1)
    if path_seeds is not None:
        noise[:, 1:] = seeded_noise(path_seeds, generator.latent_shape, draws=len(schedule) + 1)[:, 1:]
    noise = noise.to(generator.device)
    x_t = noise[:, 0] if start is None else start
    path, log_probs, evaluations = [], [], 0
    for step in range(0 if start is None else keep.start, steps):
        index = torch.full((len(seeds),), step, dtype=torch.long, device=generator.device)
        prediction, spent = generator.predict(x_t, index, schedule, condition, guidance)
        mean, sigma = step_mean(generator, prediction, x_t, index, schedule)
        if step in keep:
            path.append(x_t)
        x_t = mean + sigma * noise[:, step + 1]
        evaluations += spent
        if step in keep:
            log_probs.append(gaussian_log_prob(x_t, mean, sigma, reduction))
            if step == keep.stop - 1:
                path.append(x_t)
    shape = (len(seeds), 0)
    latents = torch.stack(path, dim=1) if path else x_t.new_empty((*shape, *x_t.shape[1:]))
    probabilities = torch.stack(log_probs, dim=1) if log_probs else x_t.new_empty(shape)
    return Trajectory(latents, probabilities, noise[:, 1 + keep.start : 1 + keep.stop].clone(), x_t, evaluations)
