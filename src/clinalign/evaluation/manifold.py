"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

Each is a mean over images of a number per image, and that number is what the kernel returns: means, intervals and
per-subgroup tables follow from it. A ball holds its border (Kynkaanniemi's ``<=``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from clinalign.core.errors import UserError

_COLUMNS = 2048  # features held in float64 at once
_HELD = 2_000_000  # distances held at once: 16 MB


class ManifoldScores(NamedTuple):
    """Per-image scores of M reference and N generated images; a metric is the mean of its vector.

    Attributes:
        precision: ``(N,)`` 1 where the generated image lies in the k-nearest-neighbour ball of some reference image.
        recall: ``(M,)`` 1 where the reference image lies in the ball of some generated image.
        density: ``(N,)`` number of reference balls around the generated image, divided by k; its mean may exceed 1.
        coverage: ``(M,)`` 1 where the reference image's ball holds some generated image.
    """

    precision: torch.Tensor
    recall: torch.Tensor
    density: torch.Tensor
    coverage: torch.Tensor


def manifold_scores(x: torch.Tensor, y: torch.Tensor, k: int = 5, rows: int = 1024) -> ManifoldScores:
    """Compare the k-nearest-neighbour manifolds of ``x`` ``(M, D)`` (reference) and ``y`` ``(N, D)`` (generated).

    Args:
        x: Reference features.
        y: Generated features.
        k: Neighbours that set a ball's radius (5 as in Naeem et al.; Kynkaanniemi et al. use 3).
        rows: Most rows of a distance matrix held at once, fewer for large sets; does not change the result.

    Returns:
        Scores per image, float64.

    Raises:
        UserError: When a set has no more than ``k`` images, or the widths differ.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UserError(f"features of shape {tuple(x.shape)} and {tuple(y.shape)}: both must be (N, D), same D")
    if min(len(x), len(y)) <= k:
        raise UserError(f"precision with k={k} needs more than {k} images on each side, got {len(x)} and {len(y)}")
    centre = x.mean(0, dtype=torch.float64)
    rows = max(1, min(rows, _HELD // max(len(x), len(y))))
    radius_x, radius_y = neighbour_radius(x, k, rows, centre), neighbour_radius(y, k, rows, centre)
    recall, coverage = torch.empty(len(x), dtype=torch.float64), torch.empty(len(x), dtype=torch.float64)
    hits = torch.zeros(len(y), dtype=torch.float64)
    for start, distance in _distances(x, y, centre, rows):
        part = slice(start, start + len(distance))
        in_x = distance <= radius_x[part, None]
        hits += in_x.sum(0)
        coverage[part] = in_x.any(1).double()
        recall[part] = (distance <= radius_y).any(1).double()
    return ManifoldScores((hits > 0).double(), recall, hits / k, coverage)


def neighbour_radius(
    features: torch.Tensor, k: int, rows: int = 1024, centre: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the ``(N,)`` distance from each of ``features`` ``(N, D)`` to its k-th nearest other.

    Args:
        features: One set.
        k: Which neighbour.
        rows: Rows of the distance matrix held at once.
        centre: ``(D,)`` a point near the features, for the precision of the products; 0 by default.
    """
    centre = torch.zeros(features.shape[1], dtype=torch.float64) if centre is None else centre
    radii = torch.empty(len(features), dtype=torch.float64)
    for start, distance in _distances(features, features, centre, rows):
        distance.diagonal(start).fill_(torch.inf)  # an image is not its own neighbour
        radii[start : start + len(distance)] = distance.kthvalue(k, dim=1).values
    return radii


def _distances(
    one: torch.Tensor, other: torch.Tensor, centre: torch.Tensor, rows: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the float64 distances of some rows of ``one`` to all of ``other``, with the number of the first row.

    Every block is written into the same memory. Moving both by ``centre`` changes no distance, but the products inside
    lose fewer digits.
    """
    held = torch.empty(min(rows, len(one)), len(other), dtype=torch.float64)
    for start in range(0, len(one), rows):
        part = one[start : start + rows].double() - centre
        for column in range(0, len(other), _COLUMNS):
            block = other[column : column + _COLUMNS].double() - centre
            held[: len(part), column : column + len(block)] = torch.cdist(part, block)
        yield start, held[: len(part)]
