"""Drawing latents step by step, keeping the trajectory when a policy is to be trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import seeded_noise
from clinalign.generation.conditioning import TextCondition
from clinalign.generation.ddim import DdimSchedule, Reduction, ddim_mean, gaussian_log_prob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clinalign.generation.generator import Generator


@dataclass(frozen=True)
class Trajectory:
    """A batch of denoising paths.

    Attributes:
        latents: ``(N, T + 1, C, H, W)`` float32, from pure noise to the clean latents.
        log_probs: ``(N, T)`` float32 log-probability of each step under the policy that drew it.
        noise: ``(N, T, C, H, W)`` float32 standard normal noise of each step.
        evaluations: Network evaluations spent, guidance counted twice.
    """

    latents: torch.Tensor
    log_probs: torch.Tensor
    noise: torch.Tensor
    evaluations: int


def at_step(values: torch.Tensor, steps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Pick ``values[steps]`` and shape it ``(N, 1, 1, 1)`` to go with ``like``."""
    return values.to(like.device, like.dtype)[steps].reshape(-1, 1, 1, 1)


@torch.no_grad()
def draw_trajectories(
    generator: Generator,
    condition: TextCondition,
    seeds: Sequence[int],
    schedule: DdimSchedule,
    guidance: float,
    reduction: Reduction = "mean",
    keep: bool = True,
    path_seeds: Sequence[int] | None = None,
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
        keep: Keep the whole path; otherwise ``latents`` is ``(N, 1, C, H, W)`` and ``log_probs`` is empty.
        path_seeds: N seeds of the noise of the steps; that of ``seeds`` by default.

    Returns:
        The trajectory, on the generator's device.

    Raises:
        UserError: When the path is to be kept and a step has no noise: its log-probability would not be a number.
    """
    steps = len(schedule)
    if keep and bool((schedule.sigma <= 0).any()):
        raise UserError(
            "a step of the sampler has no noise, so it has no log-probability: set rollout.eta above 0, and "
            "set_alpha_to_one to false and steps_offset to 1 in the model's scheduler/scheduler_config.json"
        )
    noise = seeded_noise(seeds, generator.latent_shape, draws=steps + 1)
    if path_seeds is not None:
        noise[:, 1:] = seeded_noise(path_seeds, generator.latent_shape, draws=steps + 1)[:, 1:]
    noise = noise.to(generator.device)
    x_t = noise[:, 0]
    path, log_probs, evaluations = [x_t], [], 0
    for step in range(steps):
        index = torch.full((len(seeds),), step, dtype=torch.long, device=generator.device)
        prediction, spent = generator.predict(x_t, index, schedule, condition, guidance)
        alpha_t = at_step(schedule.alpha_t, index, x_t)
        sigma = at_step(schedule.sigma, index, x_t)
        alpha_s = at_step(schedule.alpha_s, index, x_t)
        mean = ddim_mean(prediction.float(), x_t, alpha_t, alpha_s, sigma, generator.prediction_type)
        x_t = mean + sigma * noise[:, step + 1]
        evaluations += spent
        if keep:
            path.append(x_t)
            log_probs.append(gaussian_log_prob(x_t, mean, sigma, reduction))
    latents = torch.stack(path, dim=1) if keep else x_t.unsqueeze(1)
    probabilities = torch.stack(log_probs, dim=1) if keep else torch.empty((len(seeds), 0))
    return Trajectory(latents, probabilities, noise[:, 1:], evaluations)
