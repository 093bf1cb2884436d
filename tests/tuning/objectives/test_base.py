"""Which steps are trained of which picture, and whose pictures an optimiser step takes."""

from __future__ import annotations

import torch

from clinalign.tuning.advantage import Advantages
from clinalign.tuning.objectives.base import Rows, Turn, choose_steps


def test_steps_are_chosen_for_each_picture_whatever_the_process() -> None:
    whole = choose_steps(0, 3, [0, 1, 2, 3, 4], range(10), 4)
    assert whole.shape == (5, 4)
    assert torch.equal(choose_steps(0, 3, [3, 4], range(10), 4), whole[3:])
    assert torch.equal(choose_steps(0, 3, [2], range(10), 10).sort().values[0], torch.arange(10))  # all, none twice
    assert not torch.equal(choose_steps(0, 4, [0, 1, 2, 3, 4], range(10), 4), whole)
    assert choose_steps(0, 1, [], range(10), 5).shape == (0, 5)


def test_steps_of_a_window_are_steps_of_the_sampler() -> None:
    chosen = choose_steps(0, 3, [0, 1], range(6, 9), 3)
    assert torch.equal(chosen.sort().values, torch.tensor([[6, 7, 8]] * 2))
    assert torch.equal(chosen - 6, choose_steps(0, 3, [0, 1], range(3), 3))


def turn(update: int, first: int = 0, mine: int = 8) -> Turn:
    active = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0], dtype=torch.bool)
    return Turn(1, update, 2, Advantages(torch.arange(8.0), active, 0.25), torch.ones(8).bool(), 4, first, mine)


def test_each_picture_with_a_signal_is_used_in_one_step() -> None:
    assert turn(0).pictures() == [0, 4, 6]
    assert turn(1).pictures() == [1, 3, 5]
    assert turn(0, first=4, mine=4).pictures() == [0, 4, 6]  # of all processes
    assert [turn(0, first=4, mine=4).is_mine(picture) for picture in (3, 4, 7)] == [False, True, True]
    assert not turn(0, first=0, mine=4).is_mine(4)


def test_rows_are_split_without_losing_one() -> None:
    numbers = torch.arange(7)
    rows = Rows(numbers, numbers - 3, numbers % 4, numbers.float(), 14, turn(0))
    parts = list(rows.split(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    for name in ("pictures", "samples", "steps", "advantages"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(rows, name))
    assert {part.count for part in parts} == {14}
