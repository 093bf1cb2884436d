"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

Each is a mean over images of a number per image, and that number is what the kernel returns: means, intervals and
per-subgroup tables follow from it. A ball holds its border (Kynkaanniemi's ``<=``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from clinalign.core.errors import UserError


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
        rows: Rows of a distance matrix held at once; does not change the result.

    Returns:
        Scores per image, float64.

    Raises:
        UserError: When a set has no more than ``k`` images, or the widths differ.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UserError(f"features of shape {tuple(x.shape)} and {tuple(y.shape)}: both must be (N, D), same D")
    if min(len(x), len(y)) <= k:
        raise UserError(f"precision with k={k} needs more than {k} images on each side, got {len(x)} and {len(y)}")
    centre = x.double().mean(0)  # distances do not change, but the float64 products below lose fewer digits
    x, y = x.double() - centre, y.double() - centre
    radius_x, radius_y = neighbour_radius(x, k, rows), neighbour_radius(y, k, rows)
    recall, coverage = [], []
    hits = torch.zeros(len(y), dtype=torch.float64)
    for start in range(0, len(x), rows):
        distance = torch.cdist(x[start : start + rows], y)
        in_x = distance <= radius_x[start : start + rows, None]
        hits += in_x.sum(0)
        coverage.append(in_x.any(1))
        recall.append((distance <= radius_y).any(1))
    return ManifoldScores((hits > 0).double(), torch.cat(recall).double(), hits / k, torch.cat(coverage).double())


def neighbour_radius(features: torch.Tensor, k: int, rows: int = 1024) -> torch.Tensor:
    """Return the ``(N,)`` distance from each of ``features`` ``(N, D)`` to its k-th nearest other."""
    radii = []
    for start in range(0, len(features), rows):
        distance = torch.cdist(features[start : start + rows], features)
        distance.diagonal(start).fill_(torch.inf)  # an image is not its own neighbour
        radii.append(distance.kthvalue(k, dim=1).values)
    return torch.cat(radii)
