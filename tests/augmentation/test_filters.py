"""Which pictures pass: calibrated on real images, without copies."""

from __future__ import annotations

import math

import pytest
import torch

from clinalign.augmentation.filters import (
    copies_of,
    duplicate_distance,
    nearest_distances,
    pass_threshold,
    repeats,
)
from clinalign.core.errors import UserError


def test_the_threshold_lets_the_asked_share_of_real_images_pass() -> None:
    real = torch.linspace(0, 1, 101)
    for share in (0.5, 0.8, 0.95, 1.0):
        threshold = pass_threshold(real, share)
        assert share <= float((real >= threshold).double().mean()) <= share + 0.02  # two of 101
    with pytest.raises(UserError, match="--pass-rate 0"):
        pass_threshold(real, 0.0)
    with pytest.raises(UserError, match="without real images"):
        pass_threshold(torch.empty(0), 0.8)


def test_the_nearest_of_another_group() -> None:
    x = torch.tensor([[0.0], [1.0], [5.0]])
    assert nearest_distances(x, torch.tensor([[4.0], [0.5]])).tolist() == [0.5, 0.5, 1.0]
    groups = ["a", "a", "b"]
    assert nearest_distances(x, x, (groups, groups)).tolist() == [5.0, 4.0, 4.0]
    assert nearest_distances(x, x, (["a"] * 3, ["a"] * 3)).tolist() == [math.inf] * 3
    assert nearest_distances(x, x[:0]).tolist() == [math.inf] * 3


def test_of_independent_real_images_about_one_in_a_hundred_would_be_called_a_copy() -> None:
    generator = torch.Generator().manual_seed(0)
    train, fresh = torch.randn(2, 2000, 3, generator=generator)
    distance = duplicate_distance(train, [str(row) for row in range(2000)])
    share = float(copies_of(fresh, train, distance).double().mean())
    assert 0.003 < share < 0.025  # 1 % with a binomial deviation of 0.2 %, and the quantile's own
    assert copies_of(train[:50] + 1e-4, train, distance).all()


def test_two_photographs_of_one_lesion_do_not_set_the_distance() -> None:
    features = torch.tensor([[0.0], [0.0], [3.0], [3.0]])
    assert duplicate_distance(features, ["a", "a", "b", "b"]) == 3.0
    assert duplicate_distance(features[:2], ["a", "a"]) == 0.0


def test_of_pictures_alike_the_first_stays() -> None:
    features = torch.tensor([[0.0], [0.05], [1.0], [0.0], [0.1]])
    everyone = torch.ones(5, dtype=torch.bool)
    # the last is near the second, which is gone already, and not near the first
    assert repeats(features, everyone, 0.06).tolist() == [False, True, False, True, False]
    without_first = torch.tensor([False, True, True, True, True])
    assert repeats(features, without_first, 0.06).tolist() == [False, False, False, True, True]
    assert not repeats(features, ~everyone, 0.06).any()
