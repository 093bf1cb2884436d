"""How different are the images that one prompt gives? Measured over pairs, then over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case

_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, finest scale first
_WINDOW = 11  # pixels: the Gaussian window with sigma 1.5 of that paper


class Pairs(NamedTuple):
    """Pairs of images of the same prompt.

    Attributes:
        first: ``(P,)`` index of one image.
        second: ``(P,)`` index of the other.
        prompt: ``(P,)`` number of the prompt, from 0.
        images: How many images lie in a prompt with at least two.
    """

    first: torch.Tensor
    second: torch.Tensor
    prompt: torch.Tensor
    images: int


def text_ids(cases: Sequence[Case]) -> list[str]:
    """Return an id of each case's *whole* text: two cases are one prompt only where no character differs.

    Texts cut at the text encoder's limit would make one prompt of two long reports.
    """
    return [hash_json(case.text) for case in cases]


def within_prompt_pairs(prompt_ids: Sequence[str], most: int = 1000, seed: int = 0) -> Pairs:
    """List the pairs of images of the same prompt.

    Args:
        prompt_ids: ``(N,)`` ids; see :func:`text_ids`.
        most: Pairs kept of one prompt; beyond it they are drawn at random, each prompt from its own seed.
        seed: Same seed, same pairs.
    """
    members: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompt_ids):
        members.setdefault(prompt, []).append(index)
    shared = {prompt: rows for prompt, rows in members.items() if len(rows) > 1}
    table: list[tuple[int, int, int]] = []
    for number, (prompt, rows) in enumerate(shared.items()):
        pairs = list(combinations(rows, 2))
        if len(pairs) > most:
            generator = torch.Generator().manual_seed(derive_seed(seed, "pairs", prompt))
            pairs = [pairs[i] for i in torch.randperm(len(pairs), generator=generator)[:most].tolist()]
        table += [(first, second, number) for first, second in pairs]
    columns = torch.tensor(table, dtype=torch.long).reshape(-1, 3)
    return Pairs(columns[:, 0], columns[:, 1], columns[:, 2], sum(len(rows) for rows in shared.values()))


def prompt_means(values: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """Return the ``(G,)`` mean of the pair values ``(P,)`` of each prompt, so that each prompt weighs the same."""
    count = int(pairs.prompt.max()) + 1 if len(pairs.prompt) else 0
    sums = torch.zeros(count, dtype=torch.float64).index_add_(0, pairs.prompt, values.double())
    return sums / torch.bincount(pairs.prompt, minlength=count)


def feature_distances(features: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """Return the ``(P,)`` Euclidean distances of each pair of ``features`` ``(N, D)``; higher is more diverse."""
    rows = features.double()
    return (rows[pairs.first] - rows[pairs.second]).square().sum(1).sqrt()


def ms_ssim_scales(size: int) -> int:
    """Return how many of the paper's five scales an image of side ``size`` pixels can carry (32 px: 2, 64: 3, 256: 5).

    The 11-pixel window must fit into the coarsest scale; torchmetrics also asks for ``size // (scales - 1)**2 > 10``.

    Raises:
        UserError: Below 11 pixels.
    """
    fitting = [s for s in range(1, 6) if size // 2 ** (s - 1) >= _WINDOW and size // max(1, s - 1) ** 2 >= _WINDOW]
    if not fitting:
        raise UserError(f"MS-SSIM needs images of at least {_WINDOW} px, got {size} px: use larger images")
    return max(fitting)


def ms_ssim_identity(size: int) -> str:
    """Name what MS-SSIM means at this image size; values at other sizes or scales are not comparable."""
    return f"ms-ssim:scales={ms_ssim_scales(size)}:window={_WINDOW}:size={size}"


def ms_ssim(images: torch.Tensor, pairs: Pairs, batch_size: int = 64) -> torch.Tensor:
    """Return MS-SSIM (Wang, Simoncelli and Bovik 2003) of each pair; 1 is the same image, lower is more diverse.

    With fewer than five scales the exponents of those that remain are scaled up to the sum of all five. Negative
    structure terms count as 0, as the product of powers asks.

    Args:
        images: ``(N, 3, H, W)`` in ``[0, 1]``.
        pairs: Which to compare.
        batch_size: Pairs at once; does not change the result.

    Returns:
        ``(P,)`` float32 on the CPU.

    Raises:
        UserError: For images below 11 pixels.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    kept = _BETAS[: ms_ssim_scales(min(images.shape[-2:]))]
    betas = tuple(beta * sum(_BETAS) / sum(kept) for beta in kept)
    if len(pairs.first) == 0:
        return torch.empty(0)
    values = [
        measure(images[first].float(), images[second].float(), reduction="none", data_range=1.0, betas=betas)
        for first, second in zip(
            torch.split(pairs.first, batch_size), torch.split(pairs.second, batch_size), strict=True
        )
    ]
    return torch.cat([value.reshape(-1) for value in values]).cpu()
