from __future__ import annotations

import pytest
import torch

from clinalign.core.average import WeightAverage


def test_the_decay_rises_to_its_value() -> None:
    # step 1: min(0.5, 2/11) = 2/11; step 10: min(0.5, 11/20) = 0.5. One at 0, then values of 1:
    value = {"w": torch.zeros(1, dtype=torch.float64)}
    average = WeightAverage(value, decay=0.5)
    expected, ones = 0.0, {"w": torch.ones(1, dtype=torch.float64)}
    for decay in (2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5):
        average.update(ones)
        expected = decay * expected + (1 - decay)
        assert average.shadow["w"].item() == pytest.approx(expected, abs=1e-15)  # float64 rounding
    assert average.steps == 9


def test_decay_0_follows_the_weights_exactly() -> None:
    average = WeightAverage({"w": torch.zeros(2)}, decay=0.0)
    average.update({"w": torch.tensor([1.0, 2.0])})
    assert average.shadow["w"].tolist() == [1.0, 2.0]


def test_it_is_a_copy() -> None:
    weights = {"w": torch.nn.Parameter(torch.zeros(1))}
    average = WeightAverage(weights, decay=0.9)
    with torch.no_grad():
        weights["w"].add_(5)
    assert average.shadow["w"].item() == 0.0
    assert not average.shadow["w"].requires_grad


def test_applied_it_is_put_back_after_an_error_too() -> None:
    weights = {"w": torch.nn.Parameter(torch.tensor([3.0])), "other": torch.nn.Parameter(torch.tensor([7.0]))}
    average = WeightAverage({"w": torch.zeros(1)}, decay=0.9)
    with pytest.raises(RuntimeError), average.applied_to(weights):  # noqa: PT012 - it must be looked at from within
        assert weights["w"].item() == 0.0
        assert weights["other"].item() == 7.0  # not averaged, not touched
        raise RuntimeError
    assert weights["w"].item() == 3.0
    assert average.shadow["w"].item() == 0.0
    assert weights["w"].requires_grad
