"""Vendi score: how many different images a set is worth (Friedman and Dieng, TMLR 2023).

The exponential of the entropy of the eigenvalues of ``K / n``, with the cosine of features as the kernel: 1 where all
are the same, n where all are orthogonal. It grows with n, so it is always taken of a stated number of images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from clinalign.core.seeds import derive_seed
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.intervals import mean_interval

IMAGES = 500  # at most, drawn at random: the same number for every set that has as many


def vendi(features: torch.Tensor) -> torch.Tensor:
    """Return the Vendi scores ``(...)`` of sets ``(..., N, D)``, float64 in ``[1, N]``."""
    rows = torch.nn.functional.normalize(features.double(), dim=-1)
    shares = torch.linalg.eigvalsh(rows @ rows.mT / rows.shape[-2]).clamp(min=0)
    return (-torch.xlogy(shares, shares).sum(-1)).exp()


def vendi_influences(features: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Return the Vendi score of ``(N, D)`` and the ``(N,)`` influence of each image on it, with mean 0.

    With ``R = X^T X / N`` the entropy is ``H = -tr R log R``; moving weight to image i adds ``-x_i^T log R x_i - H``.
    """
    rows = torch.nn.functional.normalize(features.double(), dim=1)
    u, s, _ = torch.linalg.svd(rows / len(rows) ** 0.5, full_matrices=False)
    shares = s.square()
    entropy = -torch.xlogy(shares, shares)
    value = entropy.sum().exp()
    influence = value * len(rows) * (u.square() @ entropy)
    return float(value), influence - influence.mean()


def chosen_rows(count: int, most: int = IMAGES, seed: int = 0) -> torch.Tensor:
    """Return which of ``count`` images the overall score is taken of, in ascending order; the same for one seed."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "vendi"))
    return torch.randperm(count, generator=generator)[:most].sort().values


def prompt_sets(prompt_ids: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    """Choose equally many images of each prompt, so that scores of prompts compare.

    Args:
        prompt_ids: ``(N,)``.

    Returns:
        The G prompts with at least m images, and ``(G, m)`` their first m rows; m is the number from 2 on with which
        most images are used, and G is 0 where no prompt repeats.
    """
    sizes = Counter(prompt_ids)
    choices = sorted({size for size in sizes.values() if size > 1})
    if not choices:
        return [], torch.empty(0, 0, dtype=torch.long)
    members = max(choices, key=lambda m: m * sum(size >= m for size in sizes.values()))
    rows: dict[str, list[int]] = {prompt: [] for prompt, size in sizes.items() if size >= members}
    for row, prompt in enumerate(prompt_ids):
        if prompt in rows and len(rows[prompt]) < members:
            rows[prompt].append(row)
    return list(rows), torch.tensor([*rows.values()])


def vendi_entries(
    features: torch.Tensor,
    identity: str,
    *,
    groups: Sequence[str],
    prompt_features: torch.Tensor,
    prompt_ids: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Return ``diversity/vendi`` and ``diversity/vendi_within_prompt``.

    Args:
        features: ``(N, D)`` of all images; at most 500 of them are used (``n``).
        identity: The extractor's.
        groups: Patient, lesion or case of each: what the bootstrap draws.
        prompt_features: ``(R, D)`` of images of which several share a prompt.
        prompt_ids: Their R prompts; intervals resample prompts.
        replicates: Resamples.
        seed: Same seed, same entries.

    Returns:
        The second has ``prompts`` and ``members`` (images of each, between 1 and which it lies) and is left out where
        fewer than two prompts repeat.
    """
    rows = chosen_rows(len(features), seed=seed)
    value, influence = vendi_influences(features[rows])
    chosen = [groups[row] for row in rows.tolist()]
    estimate = mean_interval(value + influence, groups=chosen, replicates=replicates, seed=seed)
    entries: Entries = {"diversity/vendi": {**estimate.to_json(), "extractor": f"{identity}:cosine"}}
    prompts, table = prompt_sets(prompt_ids)
    if len(prompts) > 1:
        within = mean_interval(vendi(prompt_features[table]), replicates=replicates, seed=seed)
        counts = {"n": table.numel(), "prompts": len(prompts), "members": table.shape[1]}
        entries["diversity/vendi_within_prompt"] = {**within.to_json(), **counts, "extractor": f"{identity}:cosine"}
    return entries
