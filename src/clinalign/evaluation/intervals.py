"""Bootstrap intervals: every metric is a function of resampling weights, so one loop serves them all.

A resample that draws unit ``i`` ``w_i`` times is the weight vector ``w``. A statistic takes ``(B, N)`` weights, one row
a resample, and returns ``(B,)`` values; ones give the point estimate. What is drawn is a *group* (patient, lesion or
case) when group ids are given, because two images of one lesion are not two observations (Efron and Tibshirani 1993,
ch. 8, 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed

Statistic = Callable[[torch.Tensor], torch.Tensor]  # (B, N) float64 weights to (B,) float64 values, NaN where undefined
_CHUNK = 1_000_000  # weights held at once: 8 MB


@dataclass(frozen=True)
class Estimate:
    """A number that knows how sure it is.

    Attributes:
        value: The point estimate.
        ci95: Lower and upper end of the 95 % interval.
        n: Number of images (or pairs, where the metric says so) behind it.
    """

    value: float
    ci95: tuple[float, float]
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return ``{"value", "ci95", "n"}`` as ``metrics.json`` holds it."""
        return {"value": self.value, "ci95": list(self.ci95), "n": self.n}


def resampling_weights(
    n: int, groups: Sequence[str] | None = None, replicates: int = 1000, seed: int = 0
) -> Iterator[torch.Tensor]:
    """Yield ``(B, n)`` float64 counts of how often each of ``n`` units was drawn, in chunks of rows.

    Args:
        n: Number of units (images).
        groups: Group id of each unit; whole groups are drawn. Without them each unit is its own group.
        replicates: Number of resamples in all.
        seed: Same seed, same resamples.

    Raises:
        UserError: When there are fewer than two groups (no spread can be seen), or ids and units differ in number.
    """
    if groups is not None and len(groups) != n:
        raise UserError(f"{len(groups)} group ids for {n} images: give exactly one for each image")
    if replicates < 2:
        raise UserError(f"{replicates} bootstrap resamples: give at least 2 (1000 is usual)")
    codes = (
        torch.arange(n) if groups is None else torch.from_numpy(np.unique(np.asarray(groups), return_inverse=True)[1])
    )
    count = int(codes.max()) + 1 if n else 0
    if count < 2:
        raise UserError(f"an interval needs at least two cases or groups, got {count}: evaluate on more cases")
    generator = torch.Generator().manual_seed(derive_seed(seed, "bootstrap"))
    rows = max(1, _CHUNK // n)
    for start in range(0, replicates, rows):
        size = min(rows, replicates - start)
        drawn = torch.randint(count, (size, count), generator=generator)
        counts = torch.zeros(size, count, dtype=torch.float64)
        counts.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
        yield counts[:, codes]


def percentile_interval(replicates: torch.Tensor) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of ``(B,)`` resampled values; undefined (NaN) resamples are left out."""
    ends = torch.nanquantile(replicates, torch.tensor([0.025, 0.975], dtype=replicates.dtype))
    return float(ends[0]), float(ends[1])


def bootstrap(
    statistic: Statistic,
    n: int,
    *,
    groups: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    counted: int | None = None,
) -> Estimate:
    """Estimate ``statistic`` with a percentile 95 % interval.

    Args:
        statistic: Maps ``(B, n)`` weights to ``(B,)`` values.
        n: Number of units that are resampled.
        groups: Group id of each unit.
        replicates: Number of resamples.
        seed: Same seed, same interval.
        counted: ``n`` to state in the result, where some units are unknown and do not count.

    Returns:
        The estimate. Its value is NaN where the statistic is undefined on all the data, and so are then its ends.

    Raises:
        UserError: See :func:`resampling_weights`.
    """
    weights = resampling_weights(n, groups, replicates, seed)
    drawn = torch.cat([statistic(chunk) for chunk in weights])
    value = float(statistic(torch.ones(1, n, dtype=torch.float64))[0])
    ends = (math.nan, math.nan) if math.isnan(value) else percentile_interval(drawn)
    return Estimate(value, ends, n if counted is None else counted)


@dataclass(frozen=True)
class Table:
    """K statistics of the same resamples.

    Attributes:
        values: ``(K,)`` on all the data, NaN where undefined.
        drawn: ``(B, K)`` on the resamples.
    """

    values: torch.Tensor
    drawn: torch.Tensor

    def mean_of(self, columns: Sequence[int], counted: int) -> Estimate:
        """Estimate the mean of those of ``columns`` that are defined; ``counted`` is the n to state."""
        value = float(self.values[list(columns)].nanmean())
        drawn = self.drawn[:, list(columns)].nanmean(1)
        ends = (math.nan, math.nan) if math.isnan(value) else percentile_interval(drawn)
        return Estimate(value, ends, counted)


def resampled(
    statistics: Statistic, n: int, *, groups: Sequence[str] | None = None, replicates: int = 1000, seed: int = 0
) -> Table:
    """Evaluate ``statistics``, which maps ``(B, n)`` weights to ``(B, K)``, once on each resample of :func:`bootstrap`.

    Raises:
        UserError: See :func:`resampling_weights`.
    """
    drawn = torch.cat([statistics(chunk) for chunk in resampling_weights(n, groups, replicates, seed)])
    return Table(statistics(torch.ones(1, n, dtype=torch.float64))[0], drawn)


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean of the known ``values`` for each row of ``weights``.

    Args:
        values: ``(N,)``, NaN where unknown: left out, never counted as 0.
        weights: ``(B, N)``.

    Returns:
        ``(B,)`` float64, NaN where no known value has weight.
    """
    known = ~values.isnan()
    used = weights[:, known]
    return used @ values[known].double() / used.sum(1)


def mean_interval(
    values: torch.Tensor, *, groups: Sequence[str] | None = None, replicates: int = 1000, seed: int = 0
) -> Estimate:
    """Estimate the mean of ``(N,)`` values (NaN: unknown, left out) with its interval; ``n`` counts the known."""
    counted = int((~values.isnan()).sum())
    return bootstrap(
        lambda weights: weighted_mean(values, weights),
        len(values),
        groups=groups,
        replicates=replicates,
        seed=seed,
        counted=counted,
    )


def paired_difference(
    first: Statistic,
    second: Statistic,
    n: int,
    *,
    groups: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimate ``first - second`` where both were measured on the same ``n`` cases, in the same order.

    Both see the same resamples, so that what they share (hard cases) cancels; the interval is narrower than that of two
    separate estimates.

    Raises:
        UserError: See :func:`resampling_weights`.
    """
    return bootstrap(
        lambda weights: first(weights) - second(weights), n, groups=groups, replicates=replicates, seed=seed
    )
