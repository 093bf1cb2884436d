"""Comparative feedback: the three forms by hand, ties, masks, the group with the anchor as one more member."""

from __future__ import annotations

import math

import pytest
import torch

from clinalign.tuning.feedback import ComparativeFeedback, RunningSpread, Signal, compare, difference, win_rate


def signal(*scores: float) -> Signal:
    """Scores of N pictures; NaN is unknown."""
    values = torch.tensor(scores)
    return Signal(torch.nan_to_num(values), ~values.isnan())


def test_the_three_forms_by_hand() -> None:
    gap = torch.tensor([-0.3, -0.05, 0.0, 0.05, 0.3])
    assert torch.equal(compare(gap, "difference", 0.1, 1.0), gap)
    assert compare(gap, "win", 0.1, 1.0).tolist() == [0.0, 0.5, 0.5, 0.5, 1.0]
    wanted = [1 / (1 + math.exp(-value / 0.1)) for value in gap.tolist()]
    assert compare(gap, "logistic", 0.0, 0.1).tolist() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("form", ["difference", "win", "logistic"])
def test_a_policy_equal_to_the_anchor_is_a_tie_on_every_sample(form: str) -> None:
    scores = torch.randn(8, generator=torch.Generator().manual_seed(0)) * 100
    rounded = scores * (1 + 1e-6)  # the same pictures, scored in another batch
    feedback = ComparativeFeedback(form)  # type: ignore[arg-type]
    found = feedback(["a"] * 8, Signal(scores, scores < 1e9), Signal(rounded, scores < 1e9))
    assert found.values.tolist() == [0.0 if form == "difference" else 0.5] * 8
    assert found.valid.all()
    assert win_rate(Signal(scores, scores < 1e9), Signal(rounded, scores < 1e9)) == 0.5


def test_what_either_side_does_not_know_is_masked() -> None:
    found = ComparativeFeedback("win")(["a", "a", "b", "b"], signal(1, math.nan, 3, 0), signal(0, 0, math.nan, 1))
    assert found.valid.tolist() == [True, False, False, True]
    assert found.values[found.valid].tolist() == [1.0, 0.0]
    assert win_rate(signal(1, math.nan, 3, 0), signal(0, 0, math.nan, 1)) == 0.5
    assert math.isnan(win_rate(signal(math.nan), signal(1)))


def test_the_scale_of_the_logistic_follows_the_differences() -> None:
    feedback = ComparativeFeedback("logistic")
    small = feedback(["a", "b"], signal(0.01, -0.01), signal(0, 0)).values
    large = ComparativeFeedback("logistic")(["a", "b"], signal(10, -10), signal(0, 0)).values
    torch.testing.assert_close(small, large)  # in units of their own spread they are the same
    fixed = ComparativeFeedback("logistic", tau=0.5)(["a"], signal(0.5), signal(0)).values
    assert float(fixed) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)


def test_the_running_spread_forgets_and_never_becomes_zero() -> None:
    spread = RunningSpread(decay=0.5)
    assert spread.update(torch.zeros(4)) == 1.0  # nothing is known yet
    assert spread.update(torch.tensor([3.0, -3.0])) == pytest.approx(3.0)
    assert spread.update(torch.zeros(4)) == pytest.approx(3.0)  # ties say nothing of the scale
    assert 1.0 < spread.update(torch.tensor([1.0])) < 3.0


def test_in_a_group_the_anchor_is_one_more_member() -> None:
    feedback = ComparativeFeedback("win", against="group")
    own, anchor = signal(1.0, 3.0, 2.0, 5.0), signal(2.5, math.nan, math.nan, 0.0)
    found = feedback(["a", "a", "a", "b"], own, anchor)
    # 1 loses to 3, 2 and 2.5; 3 beats all; 2 beats 1 alone; 5 has the anchor for its only rival
    torch.testing.assert_close(found.values, torch.tensor([0.0, 1.0, 1 / 3, 1.0]))
    assert found.valid.all()


def test_a_picture_without_a_rival_has_no_signal() -> None:
    found = ComparativeFeedback("win", against="group")(["a", "b"], signal(1.0, math.nan), signal(math.nan, 1.0))
    assert found.valid.tolist() == [False, False]


def test_the_state_of_the_spread_survives_a_restart() -> None:
    before, after = ComparativeFeedback(), ComparativeFeedback()
    before(["a"], signal(4.0), signal(0.0))
    after.restore(before.state())
    torch.testing.assert_close(
        after(["a"], signal(1.0), signal(0.0)).values, before(["a"], signal(1.0), signal(0.0)).values
    )


def test_rounding_is_a_tie_and_more_is_not() -> None:
    own = torch.tensor([1.0, 1.0, 1000.0, 0.0])
    other = torch.tensor([1.000005, 1.0001, 1000.005, 1e-6])
    assert (difference(own, other) == 0).tolist() == [True, False, True, True]
