"""LPIPS over pairs of pictures of the same prompt: generated with generated, and real with generated.

The first is variety, higher being more diverse. The second is what RL4Med-DDPO reports: how far a generated picture is
from real ones of its prompt, lower being nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from clinalign.evaluation.diversity import Pairs, prompt_means, within_prompt_pairs
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.intervals import mean_interval

PAIRS = 12  # of each prompt, drawn at random, as for MS-SSIM


class PictureDistance(Protocol):
    """What measures; :class:`clinalign.networks.lpips.Lpips` is one."""

    def identity(self, size: int) -> str:
        """Weights, and the side at which pictures of ``size`` pixels are compared."""
        ...

    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Map two batches ``(P, 3, H, W)`` in ``[0, 1]`` to ``(P,)`` distances."""
        ...


def pair_distances(
    measure: PictureDistance, images: torch.Tensor, others: torch.Tensor, pairs: Pairs, batch_size: int = 32
) -> torch.Tensor:
    """Return ``(P,)`` distances of ``images[first]`` and ``others[second]``, both ``(N, 3, H, W)`` uint8."""
    found = [
        measure(images[first].float() / 255, others[second].float() / 255).cpu()
        for first, second in zip(
            torch.split(pairs.first, batch_size), torch.split(pairs.second, batch_size), strict=True
        )
        if len(first)
    ]
    return torch.cat(found) if found else torch.empty(0)


def across_prompt_pairs(ids: Sequence[str], other_ids: Sequence[str], most: int = PAIRS, seed: int = 0) -> Pairs:
    """Pair each image with those of its prompt in another set: ``first`` numbers the one set, ``second`` the other.

    Args:
        ids: Prompts of the images.
        other_ids: Prompts of the others.
        most: Pairs of a prompt at most, drawn at random.
        seed: Same seed, same pairs.
    """
    joint = [*ids, *other_ids]
    every = within_prompt_pairs(joint, most=len(joint) ** 2, seed=seed)
    across = (every.first < len(ids)) & (every.second >= len(ids))
    generator = torch.Generator().manual_seed(seed)
    kept, numbers = [], torch.unique(every.prompt[across]).tolist()
    for number in numbers:
        rows = torch.nonzero(across & (every.prompt == number)).flatten()
        kept.append(rows[torch.randperm(len(rows), generator=generator)[:most]])
    chosen = torch.cat(kept) if kept else torch.empty(0, dtype=torch.long)
    new = {number: place for place, number in enumerate(numbers)}
    prompt = torch.tensor([new[number] for number in every.prompt[chosen].tolist()], dtype=torch.long)
    first, second = every.first[chosen], every.second[chosen] - len(ids)
    return Pairs(first, second, prompt, len(torch.unique(first)))


def lpips_entries(
    measure: PictureDistance,
    images: torch.Tensor,
    prompt_ids: Sequence[str],
    real_images: torch.Tensor | None = None,
    real_prompt_ids: Sequence[str] = (),
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Return ``diversity/lpips`` and, with real images, ``fidelity/lpips``; intervals resample prompts.

    Args:
        measure: The distance.
        images: ``(N, 3, H, W)`` uint8, several of a prompt.
        prompt_ids: Their prompts.
        real_images: ``(M, 3, H, W)`` uint8.
        real_prompt_ids: Their prompts.
        replicates: Resamples.
        seed: Same seed, same pairs and intervals.

    Returns:
        Means over pairs of a prompt, then over prompts, with ``n`` images in ``prompts`` prompts. Left out is what has
        fewer than two prompts.
    """
    found = {"diversity/lpips": (images, within_prompt_pairs(prompt_ids, most=PAIRS, seed=seed))}
    if real_images is not None:
        found["fidelity/lpips"] = (real_images, across_prompt_pairs(prompt_ids, real_prompt_ids, seed=seed))
    entries: Entries = {}
    for key, (others, pairs) in found.items():
        if len(torch.unique(pairs.prompt)) < 2:
            continue
        means = prompt_means(pair_distances(measure, images, others, pairs), pairs)
        estimate = mean_interval(means, replicates=replicates, seed=seed)
        counts = {"n": pairs.images, "prompts": len(means), "pairs": len(pairs.first)}
        entries[key] = {**estimate.to_json(), **counts, "extractor": measure.identity(images.shape[-1])}
    return entries
