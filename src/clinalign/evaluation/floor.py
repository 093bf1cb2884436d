"""What a fidelity metric says of real images against real images: the floor (or ceiling) that no generator passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.evaluation.fidelity import fid, kid
from clinalign.evaluation.manifold import manifold_scores

FIDELITY_METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")
MOST = 2000  # images on each side: the floor of eight comparisons of more would cost more than all the rest

Measure = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (M, D) reference, (N, D) other -> (V,) values


def fidelity_values(x: torch.Tensor, y: torch.Tensor, k: int = 5) -> torch.Tensor:
    """Return the ``(6,)`` values of :data:`FIDELITY_METRICS` of reference ``x`` ``(M, D)`` and ``y`` ``(N, D)``."""
    scores = (float(score.mean()) for score in manifold_scores(x, y, k))
    return torch.tensor([fid(x, y), kid(x, y), *scores], dtype=torch.float64)


def distance_values(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the ``(2,)`` FID and KID alone, where :func:`fidelity_values` would cost too much."""
    return torch.tensor([fid(x, y), kid(x, y)], dtype=torch.float64)


def frechet_value(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the ``(1,)`` Frechet distance alone."""
    return torch.tensor([fid(x, y)], dtype=torch.float64)


def group_halves(groups: Sequence[str], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split units into two halves of about the same size, no group on both sides, in random order.

    Two pictures of one lesion in both halves would make real images look closer to each other than they are.

    Args:
        groups: Group id of each unit.
        seed: Same seed, same halves.

    Returns:
        The indices of either half.

    Raises:
        UserError: With fewer than two groups.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise UserError(f"the floor needs real images of at least 2 patients or lesions, got {len(names)}")
    generator = torch.Generator().manual_seed(derive_seed(seed, "halves"))
    members: dict[str, list[int]] = {name: [] for name in names}
    for index, group in enumerate(groups):
        members[group].append(index)
    halves: tuple[list[int], list[int]] = ([], [])
    for number in torch.randperm(len(names), generator=generator).tolist():
        # the smaller half takes the next group, so that both stay within one group of each other
        halves[len(halves[1]) < len(halves[0])].extend(members[names[number]])
    first, second = (torch.tensor(half)[torch.randperm(len(half), generator=generator)] for half in halves)
    return first, second


def floor_values(
    x: torch.Tensor,
    y: torch.Tensor,
    groups_x: Sequence[str],
    k: int = 5,
    draws: int = 4,
    seed: int = 0,
    measure: Measure = fidelity_values,
    most: int = MOST,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Measure real against real, and generated against real, at one common n.

    Args:
        x: ``(M, D)`` features of real images.
        y: ``(N, D)`` features of generated images.
        groups_x: Group id of each real image.
        k: Neighbours of precision and the others; each side must have more images.
        draws: Splits that are averaged.
        seed: Same seed, same splits.
        measure: What is measured.
        most: Images on each side at most.

    Returns:
        Floor ``(V,)``, the generated images' values ``(V,)`` at the floor's n, and that n (images on each side).

    Raises:
        UserError: When half of the real images are no more than ``k``.
    """
    splits = [group_halves(groups_x, derive_seed(seed, draw)) for draw in range(draws)]
    n = min(most, len(y), *(len(half) for split in splits for half in split))
    if n <= k:
        raise UserError(
            f"the real-against-real floor needs more than {k} images in each half, got {n}: "
            f"give at least {2 * k + 2} real and {k + 1} generated images"
        )
    generator = torch.Generator().manual_seed(derive_seed(seed, "floor"))
    real, generated = [], []
    for first, second in splits:
        reference = x[first[:n]]
        real.append(measure(reference, x[second[:n]]))
        generated.append(measure(reference, y[torch.randperm(len(y), generator=generator)[:n]]))
    return torch.stack(real).mean(0), torch.stack(generated).mean(0), n
