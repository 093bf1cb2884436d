"""Running the policy again on steps that it took, and making sure that it is the same policy."""

from __future__ import annotations

import torch

from clinalign.core.errors import UserError
from clinalign.core.precision import autocast
from clinalign.generation.ddim import gaussian_log_prob
from clinalign.generation.generator import Generator
from clinalign.generation.sampling import step_mean
from clinalign.tuning.rollout import Rollout, Sampler

# Largest |log-ratio| (mean reduction) that rounding explains when the weights have not moved: replayed in another
# batch, the network's output differs in its last bits, which the last step's sigma, 0.02 at eta 1, divides. Measured on
# a CPU with a trained generator, 10 to 50 steps, guidance 5: 2e-6 in float32 (1e-5 with sigma 0.002) and 0 in bfloat16,
# while a guidance wrong by 0.01 makes 1e-4 and replaying bfloat16 in float32 2e-2. Kernels of a GPU depend on the batch
# and round float32 to TF32, so it is given more; those two figures are not measured.
FIRST_UPDATE_TOLERANCE = {"fp32": 2e-5, "bf16": 1e-3}
FIRST_UPDATE_TOLERANCE_GPU = {"fp32": 1e-4, "bf16": 5e-2}
LAST_SIGMA = 0.02  # of Stable Diffusion's schedule at eta 1; the tolerances belong to it


def replay_log_prob(
    generator: Generator, rollout: Rollout, samples: torch.Tensor, steps: torch.Tensor, sampler: Sampler
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log-probability ``(R,)``, mean and sigma of R (sample, step) rows under the current policy.

    Args:
        generator: The policy.
        rollout: What it drew.
        samples: ``(R,)`` number of each row's picture in the rollout.
        steps: ``(R,)`` step of the sampler's schedule; one that the rollout kept.
        sampler: That of the rollout.
    """
    at = steps - rollout.first
    x_t, x_s = rollout.latents[samples, at], rollout.latents[samples, at + 1]
    with autocast(sampler.precision, generator.device):
        prediction, _ = generator.predict(x_t, steps, sampler.schedule, rollout.condition[samples], sampler.guidance)
    mean, sigma = step_mean(generator, prediction, x_t, steps, sampler.schedule)
    return gaussian_log_prob(x_s, mean, sigma, sampler.reduction), mean, sigma


def check_first_update(worst: float, sampler: Sampler, elements: int, device: str = "cpu") -> None:
    """Assert that the replayed log-probabilities equal the sampled ones while the weights have not moved.

    Args:
        worst: Largest |log-ratio| of the first update.
        sampler: Tells precision, reduction and the smallest noise of a kept step.
        elements: Number of latent elements, which scales the tolerance when log-probabilities are summed.
        device: Type of the device, ``cpu`` or ``cuda``.

    Raises:
        UserError: When they differ by more than rounding explains: sampling and training then run different networks
            (training mode, dropout, another guidance or precision), and every update would be wrong.
    """
    table = FIRST_UPDATE_TOLERANCE if device == "cpu" else FIRST_UPDATE_TOLERANCE_GPU
    tolerance = table["fp32" if sampler.precision == "fp32" else "bf16"]
    kept = sampler.schedule.sigma[sampler.keep.start : sampler.keep.stop]
    tolerance *= max(1.0, LAST_SIGMA / float(kept.min()))
    tolerance *= elements if sampler.reduction == "sum" else 1
    if not worst <= tolerance:
        raise UserError(
            f"replayed log-probabilities differ from the sampled ones by {worst:.2g} before any update "
            f"(rounding explains {tolerance:.2g}): sampling and training differ in mode, dropout, guidance or precision"
        )
