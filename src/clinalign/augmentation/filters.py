"""Which generated images may become training images: they show their class, and they are no copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clinalign.core.errors import UserError
from clinalign.core.neighbours import nearest_neighbours


def pass_threshold(probabilities: torch.Tensor, share: float) -> float:
    """Return the probability that at least ``share`` of real images of a class reach.

    Args:
        probabilities: ``(N,)`` that the judge gives real images of the class for the class.
        share: In ``(0, 1]``.

    Raises:
        UserError: Without an image, or for a share out of range.
    """
    if not 0 < share <= 1:
        raise UserError(f"--pass-rate {share:g}: write a share of the real images, above 0 and at most 1")
    if not len(probabilities):
        raise UserError("a filter cannot be calibrated without real images of the class")
    return float(torch.quantile(probabilities.double(), 1.0 - share, interpolation="lower"))


def nearest_distances(
    x: torch.Tensor, y: torch.Tensor, groups: tuple[Sequence[str], Sequence[str]] | None = None
) -> torch.Tensor:
    """Return the Euclidean distance from each row of ``x`` ``(N, D)`` to the nearest of ``y`` ``(M, D)``.

    Args:
        x: Features.
        y: Features to search.
        groups: Group ids of both; a row is never compared with one of its own group.

    Returns:
        ``(N,)`` float64; infinite where nothing may be compared.
    """
    if not len(y):
        return torch.full((len(x),), torch.inf, dtype=torch.float64)
    one, other = (None, None) if groups is None else groups
    return nearest_neighbours(x, y, query_groups=one, reference_groups=other).distance[:, 0]


def duplicate_distance(features: torch.Tensor, groups: Sequence[str], share: float = 0.01) -> float:
    """Return the distance below which an image counts as a near duplicate.

    It is the ``share`` quantile of the distance from a real image to the nearest real image of another patient or
    lesion: a generated image that comes closer to a training image than 99 % of real ones do is called a copy.

    Args:
        features: ``(N, D)`` of real images.
        groups: N ids.
        share: Of real images that would be called copies.
    """
    nearest = nearest_distances(features, features, (groups, groups))
    nearest = nearest[nearest.isfinite()]
    return float(torch.quantile(nearest, share, interpolation="lower")) if len(nearest) else 0.0


def copies_of(features: torch.Tensor, references: torch.Tensor, distance: float) -> torch.Tensor:
    """Return ``(N,)`` bool: within ``distance`` of one of ``references`` ``(M, D)``."""
    return nearest_distances(features, references) <= distance


def repeats(features: torch.Tensor, candidates: torch.Tensor, distance: float) -> torch.Tensor:
    """Return ``(N,)`` bool: within ``distance`` of an earlier candidate that is no repeat itself.

    Args:
        features: ``(N, D)``.
        candidates: ``(N,)`` bool; the others neither repeat nor are repeated.
        distance: See :func:`duplicate_distance`.
    """
    found = torch.zeros(len(features), dtype=torch.bool)
    rows = candidates.nonzero().flatten().tolist()
    if not rows:
        return found
    close = _distances(features[rows], features[rows]) <= distance
    first: list[int] = []
    for number, row in enumerate(rows):
        if first and bool(close[number, first].any()):
            found[row] = True
        else:
            first.append(number)
    return found


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return ``(N, M)`` distances without the shortcut by inner products, which makes equal rows look apart."""
    return torch.cdist(x.float(), y.float(), compute_mode="donot_use_mm_for_euclid_dist")
