"""Bootstrap intervals."""

from __future__ import annotations

import json
import math

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.intervals import (
    Estimate,
    bootstrap,
    mean_interval,
    paired_difference,
    resampling_weights,
    weighted_mean,
)


def test_weights_count_whole_draws_and_members_of_a_group_go_together() -> None:
    weights = torch.cat(list(resampling_weights(6, ["a", "a", "b", "b", "c", "c"], replicates=50)))
    assert weights.shape == (50, 6)
    assert torch.equal(weights[:, 0], weights[:, 1])
    assert torch.equal(weights[:, ::2].sum(1), torch.full((50,), 3.0, dtype=torch.float64))  # three groups are drawn


def test_same_seed_same_interval_and_another_seed_another() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(0))
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_the_interval_covers_a_known_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for repeat in range(200):
        low, high = mean_interval(3.0 + torch.randn(60, generator=generator), replicates=400, seed=repeat).ci95
        covered += low <= 3.0 <= high
    # 95 % of 200 is 190 with standard deviation 3.1; percentiles at n=60 lose about 1 %; three deviations either way
    assert 178 <= covered <= 199


def test_groups_widen_the_interval_when_their_members_agree() -> None:
    """Twenty lesions photographed five times are twenty observations: the interval is sqrt(5) times as wide."""
    values = torch.randn(20, generator=torch.Generator().manual_seed(0)).repeat_interleave(5)
    groups = [str(i // 5) for i in range(100)]

    def width(estimate: Estimate) -> float:
        return estimate.ci95[1] - estimate.ci95[0]

    ratio = width(mean_interval(values, groups=groups)) / width(mean_interval(values))
    assert ratio == pytest.approx(math.sqrt(5), rel=0.15)  # quantiles of 1000 resamples: a few per cent each


def test_unknown_values_are_left_out_and_not_counted() -> None:
    values = torch.tensor([1.0, math.nan, 3.0, math.nan])
    assert weighted_mean(values, torch.ones(1, 4, dtype=torch.float64)).item() == 2.0
    assert mean_interval(values).n == 2


def test_an_undefined_statistic_is_nan_and_so_is_its_interval() -> None:
    estimate = mean_interval(torch.full((3,), math.nan))
    assert math.isnan(estimate.value)
    assert all(math.isnan(end) for end in estimate.ci95)


def test_a_paired_difference_lets_shared_difficulty_cancel() -> None:
    generator = torch.Generator().manual_seed(0)
    difficulty = 10 * torch.randn(50, generator=generator)
    before, after = difficulty, difficulty + 1 + 0.1 * torch.randn(50, generator=generator)
    pair = paired_difference(lambda w: weighted_mean(after, w), lambda w: weighted_mean(before, w), 50)
    assert 0.9 < pair.ci95[0] < pair.value < pair.ci95[1] < 1.1  # apart, the intervals are about 5 wide


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.cat(list(resampling_weights(7, replicates=20, seed=3)))
    monkeypatch.setattr("clinalign.evaluation.intervals._CHUNK", 21)
    assert torch.equal(whole, torch.cat(list(resampling_weights(7, replicates=20, seed=3))))


def test_an_estimate_becomes_json() -> None:
    estimate = bootstrap(lambda w: weighted_mean(torch.tensor([1.0, 2.0]), w), 2, replicates=10)
    assert json.loads(json.dumps(estimate.to_json())).keys() == {"value", "ci95", "n"}


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="2 group ids for 3 images"):
        mean_interval(torch.ones(3), groups=["a", "b"])
    with pytest.raises(UserError, match="at least two cases or groups, got 1"):
        mean_interval(torch.ones(3), groups=["a", "a", "a"])
    with pytest.raises(UserError, match="1 bootstrap resamples"):
        mean_interval(torch.ones(3), replicates=1)
