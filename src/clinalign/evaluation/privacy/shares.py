"""Intervals of shares whose images are tied twice: to the case they were drawn for, and to the real case they resemble.

Ten pictures that copy one patient are one piece of evidence, and so are ten pictures of one prompt. The variance of a
mean under two such crossed ties is V1 + V2 - V12 (Cameron, Gelbach and Miller, J Bus Econ Stat 29, 2011), V12 being
that of images that share both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from clinalign.evaluation.intervals import Estimate

Z95 = 1.959964  # of the normal distribution


def codes_of(groups: Sequence[str]) -> torch.Tensor:
    """Return ``(N,)`` int64 numbers of the groups, from 0."""
    return torch.from_numpy(np.unique(np.asarray(groups), return_inverse=True)[1])


def cluster_variance(values: torch.Tensor, codes: torch.Tensor) -> float:
    """Return the variance of the mean of ``(N,)`` values whose clusters ``(N,)`` are independent of each other."""
    residual = (values - values.mean()).double()
    sums = torch.zeros(int(codes.max()) + 1, dtype=torch.float64).index_add(0, codes, residual)
    return float(sums.square().sum()) / len(values) ** 2


def both_codes(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return ``(N,)`` numbers of the pairs of two groupings."""
    codes: torch.Tensor = torch.unique(torch.stack([first, second]), dim=1, return_inverse=True)[1]  # type: ignore[no-untyped-call]
    return codes


def two_way_variance(values: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the variance of the mean of ``(N,)`` values under crossed clusters; never below either one's alone."""
    one, two = cluster_variance(values, first), cluster_variance(values, second)
    both = cluster_variance(values, both_codes(first, second))
    return max(one + two - both, one, two)


def wilson(share: float, effective: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval (1927) of a share seen in ``effective`` independent images.

    It stays within ``[0, 1]`` and has a width at 0 and 1 too, where a bootstrap has none.
    """
    square = Z95**2
    middle = (share + square / (2 * effective)) / (1 + square / effective)
    half = Z95 / (1 + square / effective) * math.sqrt(share * (1 - share) / effective + square / (4 * effective**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def effective_images(values: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> float:
    """Return how many independent images a share of ``(N,)`` zeros and ones is worth.

    Where all are equal nothing can be estimated from them: then it is Kish's number of the more crowded tie.
    """
    share = float(values.double().mean())
    sizes = [torch.bincount(codes).double() for codes in (first, second)]
    crowded = min(float(len(values) ** 2 / each.square().sum()) for each in sizes)
    variance = two_way_variance(values, first, second)
    return min(share * (1 - share) / variance, float(len(values))) if variance > 0 else crowded


def share_interval(values: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> Estimate:
    """Estimate the share of ones among ``(N,)`` zeros and ones under crossed clusters, with Wilson's interval."""
    share = float(values.double().mean())
    return Estimate(share, wilson(share, effective_images(values, first, second)), len(values))


def paired_interval(difference: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> Estimate:
    """Estimate the mean of ``(N,)`` paired differences under crossed clusters, with a normal interval."""
    value = float(difference.double().mean())
    half = Z95 * math.sqrt(two_way_variance(difference, first, second))
    return Estimate(value, (value - half, value + half), len(difference))
