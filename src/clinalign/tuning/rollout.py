"""Drawing the pictures of an epoch from the current policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clinalign.core.precision import Precision, autocast
from clinalign.core.progress import track
from clinalign.generation.conditioning import TextCondition
from clinalign.generation.ddim import DdimSchedule, Reduction
from clinalign.generation.generator import Generator
from clinalign.generation.sampling import draw_trajectories
from clinalign.tuning.prompts import Request


@dataclass(frozen=True)
class Rollout:
    """N pictures with the paths that led to them.

    Attributes:
        latents: ``(N, T + 1, C, H, W)`` float32.
        log_probs: ``(N, T)`` float32.
        noise: ``(N, T, C, H, W)`` float32 standard normal noise of each step.
        images: ``(N, 3, size, size)`` in ``[0, 1]``.
        condition: Text embeddings of the N prompts.
        evaluations: Network evaluations spent.
    """

    latents: torch.Tensor
    log_probs: torch.Tensor
    noise: torch.Tensor
    images: torch.Tensor
    condition: TextCondition
    evaluations: int


def roll_out(
    generator: Generator,
    requests: Sequence[Request],
    schedule: DdimSchedule,
    guidance: float,
    reduction: Reduction,
    batch_size: int,
    precision: Precision,
) -> Rollout:
    """Draw the pictures asked for, ``batch_size`` at once; the batch size changes nothing beyond rounding.

    Args:
        generator: The policy.
        requests: N pictures to draw.
        schedule: Steps of the sampler.
        guidance: Classifier-free guidance scale.
        reduction: Of log-probabilities.
        batch_size: Rows at once.
        precision: Of the network; log-probabilities are float32 in any case.
    """
    condition = generator.encode_text([request.case.text for request in requests])
    latents, log_probs, noise, images, spent = [], [], [], [], 0
    for start in track(range(0, len(requests), batch_size), "rollout"):
        part = slice(start, start + batch_size)
        seeds = [request.seed for request in requests[part]]
        with autocast(precision, generator.device):
            drawn = draw_trajectories(generator, condition[part], seeds, schedule, guidance, reduction)
        latents.append(drawn.latents)
        log_probs.append(drawn.log_probs)
        noise.append(drawn.noise)
        images.append(generator.decode(drawn.latents[:, -1]))
        spent += drawn.evaluations
    return Rollout(torch.cat(latents), torch.cat(log_probs), torch.cat(noise), torch.cat(images), condition, spent)
