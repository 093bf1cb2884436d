"""Frechet distance and kernel distance between feature sets, in float64.

Rows are images, columns features: reference ``x`` ``(M, D)`` and generated ``y`` ``(N, D)``. Both distances are smooth
in the two distributions, so that each image has an *influence* on them: what the distance gains, to first order, for
each unit of weight that moves to that image. Resampled means of the influences give the intervals (the linear form of
the bootstrap; Efron and Tibshirani 1993, ch. 22), at the price of one distance for all resamples. Features are turned
to float64 a block of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.evaluation.intervals import Estimate, percentile_interval, resampling_weights

_ROWS = 1024  # rows of features, and of a kernel matrix on either side, held in float64 at once


@dataclass(frozen=True)
class Influences:
    """A distance between two feature sets and what each image does to it.

    Attributes:
        value: The distance.
        x: ``(M,)`` float64 influences of the reference images; their mean is 0.
        y: ``(N,)`` those of the generated images; their mean is 0.
    """

    value: float
    x: torch.Tensor
    y: torch.Tensor


class GaussianStatistics:
    """Mean and covariance of features that arrive in batches (Chan, Golub and LeVeque 1979), float64.

    Attributes:
        n: Images seen.
        mean: ``(D,)``.
    """

    def __init__(self, dimension: int) -> None:
        self.n = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self._scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    def update(self, features: torch.Tensor) -> None:
        """Take in ``features`` ``(B, D)``."""
        batch = features.double()
        count = len(batch)
        if count == 0:
            return
        mean = batch.mean(0)
        centred = batch - mean
        shift = mean - self.mean
        total = self.n + count
        self._scatter += centred.T @ centred + torch.outer(shift, shift) * (self.n * count / total)
        self.mean = self.mean + shift * (count / total)
        self.n = total

    @property
    def covariance(self) -> torch.Tensor:
        """``(D, D)`` unbiased covariance.

        Raises:
            UserError: With fewer than two images.
        """
        if self.n < 2:
            raise UserError(f"a covariance needs at least 2 images, got {self.n}: evaluate on more images")
        return self._scatter / (self.n - 1)


def frechet_distance(
    mean_x: torch.Tensor, covariance_x: torch.Tensor, mean_y: torch.Tensor, covariance_y: torch.Tensor
) -> float:
    """Return the squared Frechet distance between two Gaussians (Heusel et al. 2017, eq. 6).

    ``|m_x - m_y|^2 + Tr(S_x + S_y - 2 (S_x^1/2 S_y S_x^1/2)^1/2)``. The symmetric form has real, non-negative
    eigenvalues, so that a rank-deficient covariance (fewer images than features) is no special case; the usual square
    root of the product ``S_x S_y`` is not symmetric and drifts into complex numbers there.

    Args:
        mean_x: ``(D,)``.
        covariance_x: ``(D, D)``.
        mean_y: ``(D,)``.
        covariance_y: ``(D, D)``.

    Returns:
        The distance; rounding below zero is cut off.
    """
    s_x, s_y = covariance_x.double(), covariance_y.double()
    values, vectors = torch.linalg.eigh(s_x)
    root_x = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = root_x @ s_y @ root_x
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    shift = mean_x.double() - mean_y.double()
    return max(0.0, float(shift @ shift + s_x.trace() + s_y.trace() - 2 * cross))


def fid(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the FID between ``x`` ``(M, D)`` and ``y`` ``(N, D)``.

    With fewer images than features the covariances are never built: with centred rows ``A = (x - m_x) / sqrt(M - 1)``
    and ``B`` alike, ``Tr (S_x S_y)^1/2`` is the nuclear norm of the small matrix ``A B^T``.

    Raises:
        UserError: With fewer than two images on a side, or features of different width.
    """
    _check(x, y)
    if min(len(x), len(y)) >= x.shape[1]:
        a, b = _moments(x), _moments(y)
        return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    rows_x, mean_x = _centred_rows(x)
    rows_y, mean_y = _centred_rows(y)
    cross = torch.linalg.svdvals(rows_x @ rows_y.T).sum()
    shift = mean_x - mean_y
    return max(0.0, float(shift @ shift + rows_x.square().sum() + rows_y.square().sum() - 2 * cross))


def fid_influences(x: torch.Tensor, y: torch.Tensor) -> Influences:
    """Return the FID with the influence of each image.

    The derivative of ``Tr (S_x + S_y - 2 (S_x^1/2 S_y S_x^1/2)^1/2)`` with respect to ``S_y`` is ``1 - T``, where ``T``
    carries the Gaussian of ``y`` to that of ``x``. An image ``b = y_i - m_y`` so has the influence
    ``2 b.(m_y - m_x) + b.b - b.T b``, less its mean. With fewer images than features ``b.T b`` is the diagonal of
    ``(B A^T A B^T)^1/2``, which the singular vectors of ``A B^T`` give.

    Raises:
        UserError: See :func:`fid`.
    """
    _check(x, y)
    if min(len(x), len(y)) >= x.shape[1]:
        return _influences_of_many(x, y)
    rows_x, mean_x = _centred_rows(x)
    rows_y, mean_y = _centred_rows(y)
    u, s, v = torch.linalg.svd(rows_x @ rows_y.T, full_matrices=False)
    shift = mean_x - mean_y
    value = max(0.0, float(shift @ shift + rows_x.square().sum() + rows_y.square().sum() - 2 * s.sum()))
    sides = []
    for rows, towards, moved in ((rows_x, shift, u.square() @ s), (rows_y, -shift, s @ v.square())):
        scale = len(rows) - 1  # the rows were divided by its root
        influence = 2 * scale**0.5 * (rows @ towards) + scale * (rows.square().sum(1) - moved)
        sides.append(influence - influence.mean())
    return Influences(value, *sides)


def paired_influences(before: Influences, after: Influences) -> Influences:
    """Return what ``after - before`` is and what each image does to it: same reference, same cases in the same order.

    What both share (hard cases, an odd reference image) cancels, which two separate estimates could not do.
    """
    return Influences(after.value - before.value, after.x - before.x, after.y - before.y)


def fid_interval(
    x: torch.Tensor,
    y: torch.Tensor,
    groups_x: Sequence[str] | None = None,
    groups_y: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimate the FID with a 95 % interval over both sets, by influences.

    FID falls with n; the interval speaks of the expected FID *at this n*. How much of that is bias, the
    real-against-real floor at the same n tells. Computing the FID of every resample anew would not be better: resampled
    FIDs lie too high and spread too far, the more so the fewer images there are for each feature.

    Raises:
        UserError: See :func:`fid` and :func:`~clinalign.evaluation.intervals.resampling_weights`.
    """
    found = influence_interval(fid_influences(x, y), groups_x, groups_y, replicates, seed)
    low, high = found.ci95
    return Estimate(found.value, (max(0.0, low), high), found.n)


def influence_interval(
    found: Influences,
    groups_x: Sequence[str] | None = None,
    groups_y: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Turn influences into an estimate: resampled weighted means of both sides, laid around the value.

    Args:
        found: Value and influences.
        groups_x: Patient, lesion or case of each reference image: what is drawn.
        groups_y: The same of each generated image.
        replicates: Resamples.
        seed: Same seed, same interval.

    Raises:
        UserError: See :func:`~clinalign.evaluation.intervals.resampling_weights`.
    """
    drawn = torch.full((replicates,), found.value, dtype=torch.float64)
    for side, influence, groups in (("x", found.x, groups_x), ("y", found.y, groups_y)):
        weights = resampling_weights(len(influence), groups, replicates, derive_seed(seed, side))
        drawn += torch.cat([part @ influence / part.sum(1) for part in weights])
    return Estimate(found.value, percentile_interval(drawn), len(found.y))


def fid_extrapolated(x: torch.Tensor, y: torch.Tensor, points: int = 5, draws: int = 3, seed: int = 0) -> float:
    """Return FID extrapolated to infinitely many images (Chong and Forsyth 2020): a line in ``1/n``, read at 0.

    The paper draws generated images only, against a large reference; medical references are small, so both sets shrink
    by the same factor here and the line is in the common factor.

    Args:
        x: ``(M, D)`` reference.
        y: ``(N, D)`` generated.
        points: Sizes between half and all of the images.
        draws: Draws without replacement averaged at each size.
        seed: Same seed, same draws.

    Returns:
        The intercept. It may lie a little below 0 where the two sets are one distribution.
    """
    _check(x, y)
    generator = torch.Generator().manual_seed(derive_seed(seed, "extrapolate"))
    shares = torch.linspace(0.5, 1.0, points, dtype=torch.float64)
    values = []
    for share in shares.tolist():
        m, n = max(2, round(share * len(x))), max(2, round(share * len(y)))
        parts = [
            fid(x[torch.randperm(len(x), generator=generator)[:m]], y[torch.randperm(len(y), generator=generator)[:n]])
            for _ in range(draws if share < 1 else 1)
        ]
        values.append(sum(parts) / len(parts))
    design = torch.stack([torch.ones_like(shares), 1 / shares], dim=1)
    line = torch.linalg.lstsq(design, torch.tensor(values, dtype=torch.float64).unsqueeze(1)).solution
    return float(line[0, 0])


def kid(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return KID: the unbiased squared MMD with the kernel ``(x.y / D + 1)^3`` (Binkowski et al. 2018, sec. 4).

    The pair of an image with itself is left out of the within-set means; that keeps the estimate unbiased at every n,
    and slightly negative values are right when both sets are one distribution.

    Raises:
        UserError: With fewer than two images on a side, or features of different width.
    """
    return kid_influences(x, y).value


def kid_influences(x: torch.Tensor, y: torch.Tensor) -> Influences:
    """Return KID with the influence of each image: ``2 (k(y_i, Y) - k(y_i, X))`` for a generated one, less the mean.

    ``k(y_i, X)`` is the mean kernel of an image with all of a set (the projection of a U-statistic; Hoeffding 1948).

    Args:
        x: ``(M, D)`` reference.
        y: ``(N, D)`` generated.

    Raises:
        UserError: See :func:`kid`.
    """
    _check(x, y)
    within_x, within_y = _kernel_means(x), _kernel_means(y)
    x_to_y, y_to_x = _kernel_means_between(x, y)
    value = float(within_x.mean() + within_y.mean() - 2 * x_to_y.mean())
    sides = (2 * (within_x - x_to_y), 2 * (within_y - y_to_x))
    return Influences(value, *(side - side.mean() for side in sides))


def squared_mmd(
    x: torch.Tensor, y: torch.Tensor, weights_x: torch.Tensor | None = None, weights_y: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the squared MMD between two weighted sets as they are, with the kernel of :func:`kid`.

    Pairs of an image with itself count, so it is never negative and 0 for equal sets; it falls with n, and is compared
    only between sets of one size.

    Args:
        x: ``(M, D)`` reference.
        y: ``(N, D)`` generated.
        weights_x: ``(B, M)`` weights, ones by default.
        weights_y: ``(B, N)``.

    Returns:
        ``(B,)`` float64.

    Raises:
        UserError: With fewer than two images on a side, or features of different width.
    """
    _check(x, y)
    x, y = x.double(), y.double()
    w_x = torch.ones(1, len(x), dtype=torch.float64) if weights_x is None else weights_x
    w_y = torch.ones(1, len(y), dtype=torch.float64) if weights_y is None else weights_y
    within = _weighted_kernel(x, x, w_x, w_x) + _weighted_kernel(y, y, w_y, w_y)
    return (within - 2 * _weighted_kernel(x, y, w_x, w_y)).clamp_min(0.0)  # below 0 is rounding


def kid_interval(
    x: torch.Tensor,
    y: torch.Tensor,
    groups_x: Sequence[str] | None = None,
    groups_y: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimate KID on all images with a 95 % interval over both sets, by influences.

    Where both sets are one distribution the interval is too wide rather than too narrow.

    Raises:
        UserError: See :func:`kid` and :func:`~clinalign.evaluation.intervals.resampling_weights`.
    """
    return influence_interval(kid_influences(x, y), groups_x, groups_y, replicates, seed)


def kid_subsets(x: torch.Tensor, y: torch.Tensor, size: int = 1000, subsets: int = 100, seed: int = 0) -> torch.Tensor:
    """Return the ``(subsets,)`` KID values of the paper's protocol, for comparison with published numbers.

    Their mean is the published KID and their standard deviation the published spread (which is not an interval of the
    mean).

    Raises:
        UserError: When a set is smaller than ``size``.
    """
    if size > min(len(x), len(y)):
        raise UserError(f"KID subsets of {size} images, but only {min(len(x), len(y))} are there: give a smaller size")
    generator = torch.Generator().manual_seed(derive_seed(seed, "kid"))

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:size]]

    return torch.tensor([kid(draw(x), draw(y)) for _ in range(subsets)], dtype=torch.float64)


def _check(x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuse feature sets that cannot be compared.

    Raises:
        UserError: With fewer than two images on a side, or features of different width.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UserError(f"features of shape {tuple(x.shape)} and {tuple(y.shape)}: both must be (N, D), same D")
    if min(len(x), len(y)) < 2:
        raise UserError(f"fidelity needs at least 2 images on each side, got {len(x)} reference and {len(y)} generated")


def _moments(rows: torch.Tensor) -> GaussianStatistics:
    """Return mean and covariance of ``rows`` ``(N, D)``, taken in block by block."""
    statistics = GaussianStatistics(rows.shape[1])
    for part in torch.split(rows, _ROWS):
        statistics.update(part)
    return statistics


def _centred_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``A``, ``A^T A`` being the unbiased covariance, and the mean."""
    rows = rows.double()
    mean = rows.mean(0)
    return (rows - mean) / (len(rows) - 1) ** 0.5, mean


def _influences_of_many(x: torch.Tensor, y: torch.Tensor) -> Influences:
    """The influences where no set has fewer images than features."""
    a, b = _moments(x), _moments(y)
    values, vectors = torch.linalg.eigh(a.covariance)
    values = values.clamp(min=0)
    root = (vectors * values.sqrt()) @ vectors.T
    back = (vectors * _inverse(values.sqrt())) @ vectors.T
    inner = root @ b.covariance @ root
    squares, turn = torch.linalg.eigh((inner + inner.T) / 2)
    moved = squares.clamp(min=0).sqrt()
    to_x = root @ turn * _inverse(moved).sqrt()  # T of the generated images is to_x to_x^T
    to_y = back @ turn * moved.sqrt()
    shift = a.mean - b.mean
    value = max(0.0, float(shift @ shift + a.covariance.trace() + b.covariance.trace() - 2 * moved.sum()))
    sides = []
    for rows, mean, towards, carry in ((x, a.mean, shift, to_y), (y, b.mean, -shift, to_x)):
        parts = (part.double() - mean for part in torch.split(rows, _ROWS))
        each = [2 * (c @ towards) + c.square().sum(1) - (c @ carry).square().sum(1) for c in parts]
        influence = torch.cat(each)
        sides.append(influence - influence.mean())
    return Influences(value, *sides)


def _inverse(values: torch.Tensor) -> torch.Tensor:
    """Return ``1 / values``, and 0 for what is nothing but rounding beside the largest."""
    return torch.where(values > 1e-7 * values.max(), 1 / values, 0.0)


def _kernel_means(rows: torch.Tensor) -> torch.Tensor:
    """Return the ``(N,)`` mean kernel of each row with all others; each pair of blocks is computed once."""
    total = torch.zeros(len(rows), dtype=torch.float64)
    for (start, one), (column, other) in _blocks(rows, rows):
        if column < start:
            continue
        kernel = _kernel(one, other)
        if column == start:
            kernel.fill_diagonal_(0.0)
        else:
            total[column : column + len(other)] += kernel.sum(0)
        total[start : start + len(one)] += kernel.sum(1)
    return total / (len(rows) - 1)


def _kernel_means_between(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean kernel of each row of ``x`` with all of ``y``, and of each of ``y`` with all of ``x``."""
    of_x, of_y = (torch.zeros(len(rows), dtype=torch.float64) for rows in (x, y))
    for (start, one), (column, other) in _blocks(x, y):
        kernel = _kernel(one, other)
        of_x[start : start + len(one)] += kernel.sum(1)
        of_y[column : column + len(other)] += kernel.sum(0)
    return of_x / len(y), of_y / len(x)


def _weighted_kernel(x: torch.Tensor, y: torch.Tensor, w_x: torch.Tensor, w_y: torch.Tensor) -> torch.Tensor:
    """Return the ``(B,)`` mean kernel between ``x`` and ``y`` under the weights ``(B, M)`` and ``(B, N)``."""
    return ((w_x @ _kernel(x, y)) * w_y).sum(1) / (w_x.sum(1) * w_y.sum(1))


def _blocks(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[tuple[int, torch.Tensor], tuple[int, torch.Tensor]]]:
    """Yield every pair of blocks of rows, each with its first row's number."""
    for start in range(0, len(x), _ROWS):
        one = x[start : start + _ROWS].double()
        for column in range(0, len(y), _ROWS):
            yield (start, one), (column, y[column : column + _ROWS].double())


def _kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the cubic kernel of each row of ``x`` with each of ``y``."""
    return (x @ y.T / x.shape[1] + 1) ** 3
