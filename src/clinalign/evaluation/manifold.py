"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

Each is a mean over images of a number per image, and that number is what the kernel returns: means, intervals and
per-subgroup tables follow from it. A ball holds its border (Kynkaanniemi's ``<=``).
"""

from __future__ import annotations

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
    recall, coverage = [], []
    hits = torch.zeros(len(y), dtype=torch.float64)
    for start in range(0, len(x), rows):
        distance = _distances(x[start : start + rows], y, centre)
        in_x = distance <= radius_x[start : start + rows, None]
        hits += in_x.sum(0)
        coverage.append(in_x.any(1))
        recall.append((distance <= radius_y).any(1))
    return ManifoldScores((hits > 0).double(), torch.cat(recall).double(), hits / k, torch.cat(coverage).double())


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
    radii = []
    for start in range(0, len(features), rows):
        distance = _distances(features[start : start + rows], features, centre)
        distance.diagonal(start).fill_(torch.inf)  # an image is not its own neighbour
        radii.append(distance.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def _distances(one: torch.Tensor, other: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Return the float64 distances ``(B, N)``; ``other`` is turned to float64 a block at a time.

    Moving both by ``centre`` changes no distance, but the products inside lose fewer digits.
    """
    rows = one.double() - centre
    parts = [torch.cdist(rows, part.double() - centre) for part in torch.split(other, _COLUMNS)]
    return torch.cat(parts, dim=1)
