"""Frechet distance and kernel distance between feature sets, in float64.

Rows are images, columns features: reference ``x`` ``(M, D)`` and generated ``y`` ``(N, D)``. Weights, where taken, are
resampling counts (see :mod:`clinalign.evaluation.intervals`); a weight of two is an image drawn twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.evaluation.intervals import Estimate, percentile_interval, resampling_weights


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


def fid(
    x: torch.Tensor, y: torch.Tensor, weights_x: torch.Tensor | None = None, weights_y: torch.Tensor | None = None
) -> float:
    """Return the FID between ``x`` ``(M, D)`` and ``y`` ``(N, D)``, with resampling counts ``(M,)`` and ``(N,)``.

    With fewer images than features the covariances are never built: with centred rows ``A = (x - m_x) / sqrt(M - 1)``
    and ``B`` alike, ``Tr (S_x S_y)^1/2`` is the nuclear norm of the small matrix ``A B^T``.

    Raises:
        UserError: With fewer than two images on a side, or features of different width.
    """
    x, y = _checked(x, y)
    a, mean_x = _centred_rows(x, weights_x)
    b, mean_y = _centred_rows(y, weights_y)
    if min(len(a), len(b)) >= x.shape[1]:
        return frechet_distance(mean_x, a.T @ a, mean_y, b.T @ b)
    cross = torch.linalg.svdvals(a @ b.T).sum()
    shift = mean_x - mean_y
    return max(0.0, float(shift @ shift + a.square().sum() + b.square().sum() - 2 * cross))


def fid_interval(
    x: torch.Tensor,
    y: torch.Tensor,
    groups_x: Sequence[str] | None = None,
    groups_y: Sequence[str] | None = None,
    replicates: int = 100,
    seed: int = 0,
) -> Estimate:
    """Estimate the FID with a bootstrap interval over both sets.

    FID falls with n, and a resample has fewer distinct images, so resampled values lie above the estimate: plain
    percentiles can miss the estimate altogether. Their spread is right, so it is laid around the estimate: the interval
    speaks of the expected FID *at this n*. How much of that is bias, the real-against-real floor at the same n tells.

    Raises:
        UserError: See :func:`fid` and :func:`~clinalign.evaluation.intervals.resampling_weights`.
    """
    value = fid(x, y)
    rows_x = torch.cat(list(resampling_weights(len(x), groups_x, replicates, derive_seed(seed, "x"))))
    rows_y = torch.cat(list(resampling_weights(len(y), groups_y, replicates, derive_seed(seed, "y"))))
    drawn = torch.tensor([fid(x, y, w_x, w_y) for w_x, w_y in zip(rows_x, rows_y, strict=True)], dtype=torch.float64)
    low, high = percentile_interval(drawn - drawn.mean() + value)
    return Estimate(value, (max(0.0, low), high), len(y))


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
    x, y = _checked(x, y)
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


def kid(
    x: torch.Tensor, y: torch.Tensor, weights_x: torch.Tensor | None = None, weights_y: torch.Tensor | None = None
) -> torch.Tensor:
    """Return KID: the unbiased squared MMD with the kernel ``(x.y / D + 1)^3`` (Binkowski et al. 2018, sec. 4).

    The pair of an image with itself is left out of the within-set means, also where the bootstrap drew it twice; that
    keeps the estimate unbiased at every n, and slightly negative values are right when both sets are one distribution.

    Args:
        x: ``(M, D)`` reference.
        y: ``(N, D)`` generated.
        weights_x: ``(B, M)`` resampling counts, ones by default.
        weights_y: ``(B, N)``.

    Returns:
        ``(B,)`` float64.

    Raises:
        UserError: With fewer than two images on a side, or features of different width.
    """
    x, y = _checked(x, y)
    w_x = torch.ones(1, len(x), dtype=torch.float64) if weights_x is None else weights_x
    w_y = torch.ones(1, len(y), dtype=torch.float64) if weights_y is None else weights_y
    between = _kernel_mean(x, y, w_x, w_y)
    return _kernel_mean(x, x, w_x, w_x, within=True) + _kernel_mean(y, y, w_y, w_y, within=True) - 2 * between


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
    x, y = _checked(x, y)
    w_x = torch.ones(1, len(x), dtype=torch.float64) if weights_x is None else weights_x
    w_y = torch.ones(1, len(y), dtype=torch.float64) if weights_y is None else weights_y
    within = _kernel_mean(x, x, w_x, w_x) + _kernel_mean(y, y, w_y, w_y)
    return (within - 2 * _kernel_mean(x, y, w_x, w_y)).clamp_min(0.0)  # below 0 is rounding


def kid_interval(
    x: torch.Tensor,
    y: torch.Tensor,
    groups_x: Sequence[str] | None = None,
    groups_y: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimate KID on all images with a bootstrap interval over both sets.

    Where both sets are one distribution the interval is too wide rather than too narrow.

    Raises:
        UserError: See :func:`kid` and :func:`~clinalign.evaluation.intervals.resampling_weights`.
    """
    w_x = torch.cat(list(resampling_weights(len(x), groups_x, replicates, derive_seed(seed, "x"))))
    w_y = torch.cat(list(resampling_weights(len(y), groups_y, replicates, derive_seed(seed, "y"))))
    return Estimate(float(kid(x, y)), percentile_interval(kid(x, y, w_x, w_y)), len(y))


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

    return torch.cat([kid(draw(x), draw(y)) for _ in range(subsets)])


def _checked(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both feature sets in float64, refused where they cannot be compared."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UserError(f"features of shape {tuple(x.shape)} and {tuple(y.shape)}: both must be (N, D), same D")
    if min(len(x), len(y)) < 2:
        raise UserError(f"fidelity needs at least 2 images on each side, got {len(x)} reference and {len(y)} generated")
    return x.double(), y.double()


def _centred_rows(rows: torch.Tensor, weights: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``A`` (without rows never drawn), ``A^T A`` being the unbiased covariance, and the mean."""
    if weights is None:
        weights = torch.ones(len(rows), dtype=torch.float64)
    drawn = weights > 0
    rows, weights = rows[drawn], weights[drawn].double()
    mean = weights @ rows / weights.sum()
    return (rows - mean) * (weights / (weights.sum() - 1)).sqrt().unsqueeze(1), mean


def _kernel_mean(
    x: torch.Tensor, y: torch.Tensor, w_x: torch.Tensor, w_y: torch.Tensor, within: bool = False, rows: int = 2048
) -> torch.Tensor:
    """Return the ``(B,)`` weighted mean of the cubic kernel over pairs, ``rows`` rows of it at a time."""
    total = torch.zeros(len(w_x), dtype=torch.float64)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        kernel = (x[part] @ y.T / x.shape[1] + 1) ** 3
        if within:
            kernel.diagonal(start).zero_()
        total += ((w_x[:, part] @ kernel) * w_y).sum(1)
    pairs = w_x.sum(1) * w_y.sum(1)
    return total / (pairs - w_x.square().sum(1) if within else pairs)
