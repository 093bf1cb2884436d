"""Advantages against arithmetic done by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from clinalign.tuning.advantage import Group, PerPromptRunning

NAN = float("nan")


def rewards(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def valid(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bool)


def close(found: torch.Tensor, wanted: list[float]) -> None:
    # float32 results of float64 or float32 arithmetic on numbers near 1
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-6)


def test_running_uses_the_batch_until_a_prompt_has_min_count() -> None:
    estimator = PerPromptRunning(buffer=4, min_count=3)
    # both prompts have two rewards: batch 0 1 2 5, mean 2, variance (4 + 1 + 0 + 9) / 4 = 3.5
    found = estimator(["a", "a", "b", "b"], rewards(0, 1, 2, 5), valid(1, 1, 1, 1))
    spread = math.sqrt(3.5)
    close(found.values, [-2 / spread, -1 / spread, 0.0, 3 / spread])
    # the third picture lies on the mean: no signal, and it leaves the loss's denominator
    assert found.active.tolist() == [True, True, False, True]
    assert found.dropped == 0.25


def test_running_uses_the_prompts_last_rewards_the_current_ones_included() -> None:
    estimator = PerPromptRunning(buffer=4, min_count=3)
    estimator(["a", "a", "b", "b"], rewards(0, 1, 2, 5), valid(1, 1, 1, 1))
    # a: buffer 0 1 4 3 (its last four), mean 2, variance (4 + 1 + 4 + 1) / 4 = 2.5
    # b: 2 5 8, mean 5, variance (9 + 0 + 9) / 3 = 6
    found = estimator(["a", "b", "a"], rewards(4, 8, 3), valid(1, 1, 1))
    close(found.values, [2 / math.sqrt(2.5), 3 / math.sqrt(6), 1 / math.sqrt(2.5)])
    # a again: the buffer of four forgets 0 and holds 1 4 3 4, mean 3, variance (4 + 1 + 0 + 1) / 4 = 1.5
    close(estimator(["a"], rewards(4), valid(1)).values, [1 / math.sqrt(1.5)])


def test_running_clips() -> None:
    estimator = PerPromptRunning(buffer=200, min_count=1, clip=5.0)
    # 99 zeros and a one: (1 - 0.01) / sqrt(0.01 * 0.99) = 9.95 before the clip
    found = estimator(["a"] * 100, rewards(*[0.0] * 99, 1.0), valid(*[1] * 100))
    assert float(found.values[-1]) == 5.0
    assert PerPromptRunning(200, 1, clip=20.0)(["a"] * 100, rewards(*[0.0] * 99, 1.0), valid(*[1] * 100)).values[
        -1
    ] == pytest.approx(0.99 / math.sqrt(0.0099), rel=1e-4)


@pytest.mark.parametrize("count", [3, 7, 10])
@pytest.mark.parametrize("min_count", [2, 99])
def test_running_equal_rewards_carry_no_signal_to_the_bit(count: int, min_count: int) -> None:
    # In float32 the mean of ten times 0.7 is not 0.7, and AdamW would make a full step of the advantage that is left.
    found = PerPromptRunning(32, min_count)(["a"] * count, rewards(*[0.7] * count), valid(*[1] * count))
    assert not found.active.any()
    assert not found.values.any()
    assert found.dropped == 1.0


def test_group_divides_by_its_own_spread() -> None:
    # a: 1 3, mean 2, std 1; b: 0 4, mean 2, std 2
    found = Group(global_std=False)(["a", "b", "a", "b"], rewards(1, 0, 3, 4), valid(1, 1, 1, 1))
    close(found.values, [-1 / 1.0001, -2 / 2.0001, 1 / 1.0001, 2 / 2.0001])


def test_group_divides_by_the_spread_of_the_whole_batch() -> None:
    # batch 1 0 3 4: mean 2, variance (1 + 4 + 1 + 4) / 4 = 2.5; the means stay the groups' own
    found = Group(global_std=True)(["a", "b", "a", "b"], rewards(1, 0, 3, 4), valid(1, 1, 1, 1))
    spread = math.sqrt(2.5) + 1e-4
    close(found.values, [-1 / spread, -2 / spread, 1 / spread, 2 / spread])
    # groups far apart: the whole batch's spread counts the distance between them (10), each group's own does not
    apart = Group(global_std=True)(["a", "a", "b", "b"], rewards(0, 1, 10, 11), valid(1, 1, 1, 1))
    close(apart.values, [v / (math.sqrt(25.25) + 1e-4) for v in (-0.5, 0.5, -0.5, 0.5)])


@pytest.mark.parametrize("global_std", [True, False])
def test_group_without_spread_or_of_one_is_dropped_and_counted(global_std: bool) -> None:
    found = Group(global_std=global_std)(
        ["same", "same", "alone", "two", "two"], rewards(0.7, 0.7, 9.0, 0.0, 1.0), valid(1, 1, 1, 1, 1)
    )
    assert found.active.tolist() == [False, False, False, True, True]
    assert found.values[:3].tolist() == [0.0, 0.0, 0.0]
    assert found.dropped == pytest.approx(3 / 5)
    nothing = Group(global_std=global_std)(["a", "a"], rewards(1, 1), valid(1, 1))
    assert not nothing.active.any()
    assert nothing.values.tolist() == [0.0, 0.0]


def test_group_clips() -> None:
    found = Group(clip=1.5, global_std=False)(["a"] * 5, rewards(0, 0, 0, 0, 10), valid(*[1] * 5))
    # mean 2, std 4: (10 - 2) / 4 = 2 before the clip
    assert float(found.values[-1]) == 1.5


@pytest.mark.parametrize("estimator", [PerPromptRunning(8, 2), PerPromptRunning(8, 99), Group(), Group(5.0, False)])
def test_what_is_not_valid_leaves_statistics_and_loss(estimator: PerPromptRunning | Group) -> None:
    ids = ["a", "a", "a", "b", "b", "b"]
    masked = estimator(ids, rewards(0, NAN, 1, 3, 1e9, 5), valid(1, 0, 1, 1, 0, 1))
    assert masked.values.isfinite().all()
    assert masked.values[[1, 4]].tolist() == [0.0, 0.0]
    assert masked.active.tolist() == [True, False, True, True, False, True]
    estimator.restore({})
    alone = estimator(["a", "a", "b", "b"], rewards(0, 1, 3, 5), valid(1, 1, 1, 1))
    torch.testing.assert_close(masked.values[[0, 2, 3, 5]], alone.values, rtol=0, atol=0)


@pytest.mark.parametrize("estimator", [PerPromptRunning(), Group(), Group(5.0, False)])
def test_nothing_valid_gives_nothing(estimator: PerPromptRunning | Group) -> None:
    found = estimator(["a", "b"], rewards(NAN, NAN), valid(0, 0))
    assert found.values.tolist() == [0.0, 0.0]
    assert found.dropped == 1.0


def test_the_state_survives_json() -> None:
    first, second = PerPromptRunning(4, 2), PerPromptRunning(4, 2)
    first(["a", "a", "b"], rewards(0.1, 0.2, 0.3), valid(1, 1, 1))
    second.restore(json.loads(json.dumps(first.state())))
    follow = (["a", "b", "b"], rewards(0.7, 0.4, 0.6), valid(1, 1, 1))
    torch.testing.assert_close(first(*follow).values, second(*follow).values, rtol=0, atol=0)
    assert first.state() == second.state()
    assert Group().state() == {}
