"""Drawing the pictures of an epoch from the current policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from clinalign.core.precision import Precision, autocast
from clinalign.core.progress import track
from clinalign.generation.adapters import adapter_merged
from clinalign.generation.conditioning import TextCondition
from clinalign.generation.ddim import DdimSchedule, Reduction
from clinalign.generation.generator import Generator
from clinalign.generation.sampling import draw_trajectories
from clinalign.tuning.prompts import Request


@dataclass(frozen=True)
class Sampler:
    """How an epoch's pictures are drawn; replaying a step must use the same.

    Attributes:
        schedule: Steps of the sampler.
        guidance: Classifier-free guidance scale.
        precision: Of the network; log-probabilities are float32 in any case.
        reduction: Of log-probabilities.
        keep: Steps whose states, noise and log-probabilities the update rule needs.
        branch: The pictures of a prompt share everything up to the first kept step.
    """

    schedule: DdimSchedule
    guidance: float
    precision: Precision
    reduction: Reduction = "mean"
    keep: range = range(0)
    branch: bool = False


@dataclass(frozen=True)
class Rollout:
    """N pictures with the K steps of their paths that are trained on.

    Attributes:
        latents: ``(N, K + 1, C, H, W)`` float32.
        log_probs: ``(N, K)`` float32.
        noise: ``(N, K, C, H, W)`` float32 standard normal noise of each step.
        clean: ``(N, C, H, W)`` float32, what was decoded.
        images: ``(N, 3, size, size)`` in ``[0, 1]``.
        condition: Text embeddings of the N prompts.
        requests: What was asked for.
        first: Number of the first kept step in the sampler's schedule.
        evaluations: Network evaluations spent.
    """

    latents: torch.Tensor
    log_probs: torch.Tensor
    noise: torch.Tensor
    clean: torch.Tensor
    images: torch.Tensor
    condition: TextCondition
    requests: Sequence[Request]
    first: int
    evaluations: int


def roll_out(generator: Generator, requests: Sequence[Request], sampler: Sampler, batch_size: int) -> Rollout:
    """Draw the pictures asked for, ``batch_size`` at once; the batch size changes nothing beyond rounding.

    Args:
        generator: The policy.
        requests: N pictures to draw, those of a group next to each other.
        sampler: How.
        batch_size: Rows at once.
    """
    condition = generator.encode_text([request.case.text for request in requests])
    # in bfloat16 a sum of weights rounds otherwise than a sum of products, and the replay would not be the same policy
    merged = adapter_merged(generator.unet) if sampler.precision == "fp32" else nullcontext()
    with torch.no_grad(), merged:
        return _roll_out(generator, requests, condition, sampler, batch_size)


def _roll_out(
    generator: Generator, requests: Sequence[Request], condition: TextCondition, sampler: Sampler, batch_size: int
) -> Rollout:
    shared, spent = _shared_paths(generator, requests, condition, sampler, batch_size)
    parts, images = [], []
    for part in _slices(len(requests), batch_size):
        with autocast(sampler.precision, generator.device):
            drawn = draw_trajectories(
                generator, condition[part], [request.seed for request in requests[part]], sampler.schedule,
                sampler.guidance, sampler.reduction, sampler.keep, start=None if shared is None else shared[part],
            )  # fmt: skip
        parts.append(drawn)
        images.append(generator.decode(drawn.clean))
        spent += drawn.evaluations
    return Rollout(
        torch.cat([drawn.latents for drawn in parts]),
        torch.cat([drawn.log_probs for drawn in parts]),
        torch.cat([drawn.noise for drawn in parts]),
        torch.cat([drawn.clean for drawn in parts]),
        torch.cat(images),
        condition,
        requests,
        sampler.keep.start,
        spent,
    )


def _shared_paths(
    generator: Generator, requests: Sequence[Request], condition: TextCondition, sampler: Sampler, batch_size: int
) -> tuple[torch.Tensor | None, int]:
    """Return the states ``(N, C, H, W)`` before the first kept step, each group's drawn once, and what that cost."""
    if not sampler.branch:
        return None, 0
    groups = [request.group_seed for request in requests]
    leaders = [groups.index(group) for group in dict.fromkeys(groups)]
    states, spent = [], 0
    for part in _slices(len(leaders), batch_size):
        rows = leaders[part]
        with autocast(sampler.precision, generator.device):
            drawn = draw_trajectories(
                generator, condition[torch.tensor(rows)], [groups[row] for row in rows], sampler.schedule,
                sampler.guidance, keep=sampler.keep, stop=sampler.keep.start,
            )  # fmt: skip
        states.append(drawn.clean)
        spent += drawn.evaluations
    numbers = {groups[row]: number for number, row in enumerate(leaders)}
    return torch.cat(states)[[numbers[group] for group in groups]], spent


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in track(range(0, count, size), "rollout"):
        yield slice(start, start + size)
