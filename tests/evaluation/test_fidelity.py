"""FID and KID against closed forms and second implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.fidelity import (
    GaussianStatistics,
    fid,
    fid_extrapolated,
    fid_influences,
    fid_interval,
    frechet_distance,
    influence_interval,
    kid,
    kid_influences,
    kid_interval,
    kid_subsets,
    paired_influences,
    squared_mmd,
)


def normal(n: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return shift + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_distance_of_two_gaussians_worked_by_hand() -> None:
    """Diagonal covariances commute: |dm|^2 + sum (s1 - s2)^2 over the standard deviations."""
    mean_x, mean_y = torch.tensor([0.0, 0.0]), torch.tensor([3.0, 4.0])
    s_x, s_y = torch.diag(torch.tensor([1.0, 4.0])), torch.diag(torch.tensor([9.0, 16.0]))
    # 9 + 16 + (1 - 3)^2 + (2 - 4)^2 = 33
    assert frechet_distance(mean_x, s_x, mean_y, s_y) == pytest.approx(33.0, abs=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    """Against the eigenvalues of the product, which is the trace's definition."""
    a, b = normal(6, 4, 0), normal(6, 4, 1)
    s_x, s_y = a.T @ a, b.T @ b
    root = np.sqrt(np.linalg.eigvals((s_x @ s_y).numpy()).astype(complex)).sum().real
    expected = float(s_x.trace() + s_y.trace()) - 2 * root
    assert frechet_distance(torch.zeros(4), s_x, torch.zeros(4), s_y) == pytest.approx(expected, rel=1e-9)


def test_a_shift_of_the_same_cloud_is_its_squared_length() -> None:
    x = normal(200, 8, 0)
    assert fid(x, x + 2.0) == pytest.approx(8 * 4.0, rel=1e-9)
    assert fid(x, x) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("d", [10, 50])
def test_few_images_take_the_small_matrix_and_agree_with_the_moments(d: int) -> None:
    """30 images: d=10 goes by the moments, d=50 by the nuclear norm; torch-fidelity takes eigenvalues."""
    torch_fidelity = pytest.importorskip("torch_fidelity.metric_fid", reason="torch-fidelity is an extra")
    x, y = normal(30, d, 0), 1.5 * normal(40, d, 1, shift=0.3)
    a, b = torch_fidelity.fid_features_to_statistics(x), torch_fidelity.fid_features_to_statistics(y)
    expected = torch_fidelity.fid_statistics_to_metric(a, b, False)["frechet_inception_distance"]
    # torch-fidelity takes roots of rounding noise where d > n: 1e-16 under the root is 1e-8, times d
    assert fid(x, y) == pytest.approx(expected, abs=1e-5)
    stats_x, stats_y = GaussianStatistics(d), GaussianStatistics(d)
    stats_x.update(x)
    stats_y.update(y)
    moments = frechet_distance(stats_x.mean, stats_x.covariance, stats_y.mean, stats_y.covariance)
    assert fid(x, y) == pytest.approx(moments, abs=1e-5)


def test_fid_agrees_with_torchmetrics() -> None:
    compute = pytest.importorskip("torchmetrics.image.fid")._compute_fid
    x, y = normal(100, 6, 0), normal(100, 6, 1, shift=0.5)
    expected = float(compute(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()))
    assert fid(x, y) == pytest.approx(expected, rel=1e-6)


def test_streamed_statistics_equal_those_of_all_at_once() -> None:
    x = 1e3 + normal(57, 5, 0)  # far from zero, where a sum of squares would lose digits
    stats = GaussianStatistics(5)
    for batch in x.split(10):
        stats.update(batch)
    stats.update(x[:0])
    assert stats.n == 57
    torch.testing.assert_close(stats.mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(stats.covariance, x.T.cov(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])  # by the moments, and by the small matrix
@pytest.mark.parametrize("distance", ["fid", "kid"])
def test_an_influence_is_what_one_more_copy_of_the_image_adds(n: int, d: int, distance: str) -> None:
    """The distance of a set in which every image stands 300 times and one of them once more, by finite differences."""
    measure, influences = {"fid": (_fid_of_moments, fid_influences), "kid": (_mmd_of_shares, kid_influences)}[distance]
    x, y = normal(n, d, 0), 1.3 * normal(n + 3, d, 1, shift=0.4)
    found = influences(x, y)
    for side, rows in (("x", x), ("y", y)):
        step = 1e-6
        shares = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
        moved = (1 - step) * shares + step * torch.eye(len(rows), dtype=torch.float64)[2]
        if side == "x":
            slope = (measure(x, y, moved, None) - measure(x, y, shares, None)) / step
        else:
            slope = (measure(x, y, None, moved) - measure(x, y, None, shares)) / step
        # the unbiased estimates differ from the distances of these moments by terms of order 1/n
        assert float(getattr(found, side)[2]) == pytest.approx(slope, rel=0.15, abs=0.05)
        assert float(getattr(found, side).mean()) == pytest.approx(0, abs=1e-9)


def _fid_of_moments(x: torch.Tensor, y: torch.Tensor, p: torch.Tensor | None, q: torch.Tensor | None) -> float:
    """FID of weighted images, with the divisor n that makes it a function of the shares alone."""
    moments = []
    for rows, shares in ((x, p), (y, q)):
        shares = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64) if shares is None else shares
        mean = shares @ rows
        moments += [mean, (rows - mean).T @ ((rows - mean) * shares[:, None])]
    return frechet_distance(*moments)


def _mmd_of_shares(x: torch.Tensor, y: torch.Tensor, p: torch.Tensor | None, q: torch.Tensor | None) -> float:
    """Squared MMD of weighted images, pairs of an image with itself left out and the rest scaled up for them."""
    p, q = (torch.full((len(r),), 1 / len(r), dtype=torch.float64) if w is None else w for r, w in ((x, p), (y, q)))

    def mean(a: torch.Tensor, b: torch.Tensor, u: torch.Tensor, v: torch.Tensor, within: bool) -> torch.Tensor:
        kernel = (a @ b.T / a.shape[1] + 1) ** 3
        kernel = kernel - torch.diag(kernel.diagonal()) if within else kernel
        return u @ kernel @ v * (len(a) / (len(a) - 1) if within else 1)

    return float(mean(x, x, p, p, True) + mean(y, y, q, q, True) - 2 * mean(x, y, p, q, False))


def test_blocks_of_rows_change_neither_distance_nor_influences(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(23, 3, 0), normal(17, 3, 1)
    whole = [fid_influences(x, y), kid_influences(x, y)]
    monkeypatch.setattr("clinalign.evaluation.fidelity._ROWS", 5)
    for before, after in zip(whole, [fid_influences(x, y), kid_influences(x, y)]):
        assert after.value == pytest.approx(before.value, rel=1e-9)
        torch.testing.assert_close(after.x, before.x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(after.y, before.y, rtol=1e-9, atol=1e-9)


def test_few_and_many_images_have_the_same_influences() -> None:
    """At n = 30, d = 10 both ways are open: the moments, and the small matrix."""
    x, y = normal(30, 10, 0), 1.5 * normal(30, 10, 1, shift=0.3)
    many = fid_influences(x, y)
    wide = [torch.cat([rows, torch.zeros(30, 25)], dim=1) for rows in (x, y)]  # 35 features, of which 25 say nothing
    few = fid_influences(*wide)
    assert few.value == pytest.approx(many.value, rel=1e-9)
    torch.testing.assert_close(few.x, many.x, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(few.y, many.y, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n", "d", "shift"), [(60, 8, 0.5), (60, 64, 0.5)])
def test_the_spread_of_an_interval_is_that_of_new_draws(n: int, d: int, shift: float) -> None:
    """Forty pairs of sets drawn anew; an interval is 3.92 standard errors wide."""
    drawn, told = [], []
    for r in range(40):
        x, y = normal(n, d, 2 * r), normal(n, d, 2 * r + 1, shift=shift / d**0.5)
        estimate = fid_interval(x, y, replicates=200)
        drawn.append(estimate.value)
        told.append((estimate.ci95[1] - estimate.ci95[0]) / 3.92)
    assert 0.75 < np.mean(told) / np.std(drawn, ddof=1) < 1.8  # spread of a spread over 40 draws: 11 %; wide near 0


def test_a_distance_is_never_below_zero_and_neither_is_its_interval() -> None:
    x = normal(12, 2, 0)
    assert fid_interval(x, x + 0.01, replicates=50).ci95[0] >= 0
    assert influence_interval(fid_influences(x, normal(12, 2, 3)), replicates=200).ci95[0] < 0  # without the cut


def test_a_paired_change_forgets_what_both_share() -> None:
    """The same cases before and after: each picture moves the same way, however different the pictures are."""
    x, before = normal(80, 5, 0), 3 * normal(80, 5, 1)
    after = before + 0.5
    paired = influence_interval(paired_influences(fid_influences(x, before), fid_influences(x, after)))
    alone = fid_interval(x, after)
    assert paired.value == pytest.approx(fid(x, after) - fid(x, before))
    assert paired.ci95[1] - paired.ci95[0] < 0.5 * (alone.ci95[1] - alone.ci95[0])
    none = influence_interval(paired_influences(fid_influences(x, before), fid_influences(x, before)))
    assert none.ci95 == (0.0, 0.0)


def test_fid_falls_with_n_and_kid_does_not() -> None:
    """One distribution on both sides: FID is all bias, about 1/n; KID stays 0 within its standard error."""
    sizes, repeats = (20, 80, 320), 40
    fids, kids = [], []
    for n in sizes:
        pairs = [(normal(n, 8, 2 * r), normal(n, 8, 2 * r + 1)) for r in range(repeats)]
        fids.append(np.mean([fid(x, y) for x, y in pairs]))
        values = np.array([(kid(x, y)) for x, y in pairs])
        kids.append(values.mean() / (values.std(ddof=1) / math.sqrt(repeats)))
    assert fids[0] > 3 * fids[1] > 9 * fids[2] > 0
    assert all(abs(z) < 3.5 for z in kids)


def test_squared_mmd_by_hand() -> None:
    x, y = torch.zeros(2, 1), torch.ones(3, 1)
    assert float(squared_mmd(x, y)) == 1 + 8 - 2  # the kernel (x.y + 1)^3 within, within and between
    same = normal(10, 4, 0)
    assert float(squared_mmd(same, same)) == pytest.approx(0.0, abs=1e-12)
    weights = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert float(squared_mmd(x, torch.tensor([[1.0], [5.0]]), None, weights)) == 7.0
    large, other = normal(500, 8, 1), normal(500, 8, 2, shift=0.5)
    assert float(squared_mmd(large, other)) == pytest.approx(float(kid(large, other)), rel=0.1)  # where n is large


def test_kid_is_unbiased_at_twenty_images() -> None:
    """Keeping the diagonal, as some libraries do, gives about 0.3 here: forty standard errors away."""
    values = np.array([(kid(normal(20, 8, 2 * r), normal(20, 8, 2 * r + 1))) for r in range(300)])
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean()) < 3.5 * error
    assert error < 0.02  # so that the line above can fail


def test_kid_by_hand() -> None:
    """D=1, x = {0, 1}, y = {1, 2}: k(a, b) = (ab + 1)^3, within x 1, within y 27, between (1 + 1 + 8 + 27) / 4."""
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    assert (kid(x, y)) == pytest.approx(1 + 27 - 2 * 37 / 4, abs=1e-12)


def test_kid_agrees_with_torch_fidelity_and_torchmetrics() -> None:
    x, y = normal(50, 7, 0), normal(50, 7, 1, shift=0.4)
    metrics = pytest.importorskip("torchmetrics.image.kid")
    assert (kid(x, y)) == pytest.approx(float(metrics.poly_mmd(x, y)), rel=1e-9)
    fidelity = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity is an extra")
    # subsets as large as the sets: every subset is everything
    theirs = fidelity.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=50, verbose=False)
    assert (kid(x, y)) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert kid_subsets(x, y, size=50, subsets=3).tolist() == pytest.approx([(kid(x, y))] * 3)


def test_kid_subsets_average_to_the_kid_of_all() -> None:
    x, y = normal(200, 4, 0), normal(200, 4, 1, shift=1.0)
    values = kid_subsets(x, y, size=50, subsets=200)
    # subsets overlap, so their mean is within the standard error of independent ones
    assert float(values.mean()) == pytest.approx((kid(x, y)), abs=4 * float(values.std()) / math.sqrt(200))


def test_intervals_hold_the_estimate_and_separate_what_differs() -> None:
    x, near, far = normal(60, 5, 0), normal(60, 5, 1), normal(60, 5, 2, shift=1.0)
    for interval in (fid_interval, kid_interval):
        small, large = interval(x, near, replicates=100), interval(x, far, replicates=100)
        assert small.ci95[0] <= small.value <= small.ci95[1] < large.ci95[0] <= large.value <= large.ci95[1]
        assert small.n == 60


def test_the_kid_interval_covers_zero_under_the_null() -> None:
    covered = 0
    for repeat in range(60):
        low, high = kid_interval(normal(30, 4, 2 * repeat), normal(30, 4, 2 * repeat + 1), replicates=200).ci95
        covered += low <= 0 <= high
    assert covered >= 52  # 57 expected, standard deviation 1.7; degenerate under the null, where it is conservative


def test_the_fid_interval_covers_the_expected_fid_at_its_n() -> None:
    draws = [(normal(40, 4, 2 * r), normal(40, 4, 2 * r + 1, shift=0.7)) for r in range(60)]
    expected = float(np.mean([fid(x, y) for x, y in draws]))
    covered = sum(low <= expected <= high for low, high in (fid_interval(x, y, replicates=60).ci95 for x, y in draws))
    assert covered >= 50  # 57 expected, 1.7 deviation, and 60 resamples place the ends coarsely


def test_extrapolation_takes_out_most_of_the_bias() -> None:
    plain, limit = [], []
    for r in range(40):
        x, y = normal(60, 8, 2 * r), normal(60, 8, 2 * r + 1)
        plain.append(fid(x, y))
        limit.append(fid_extrapolated(x, y, seed=r))
    assert np.mean(plain) > 0.8  # true value 0
    assert abs(np.mean(limit)) < 0.2  # standard error 0.05


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="same D"):
        fid(normal(5, 3, 0), normal(5, 4, 0))
    with pytest.raises(UserError, match="at least 2 images on each side, got 1 reference"):
        kid(normal(1, 3, 0), normal(5, 3, 0))
    with pytest.raises(UserError, match="subsets of 9 images"):
        kid_subsets(normal(5, 3, 0), normal(9, 3, 0), size=9)
    with pytest.raises(UserError, match="covariance needs at least 2"):
        _ = GaussianStatistics(2).covariance
