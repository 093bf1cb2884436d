from __future__ import annotations

import pytest
import torch

from clinalign.generation.one_cycle import one_cycle, restore_schedule


def make(steps: int, warm_up: float = 0.1) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], 1.0)
    return optimizer, one_cycle(optimizer, 1.0, steps, warm_up)


def step(optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.OneCycleLR) -> tuple[float, float]:
    """Take a step and return the learning rate and the first beta it was taken with."""
    group = optimizer.param_groups[0]
    used = group["lr"], group["betas"][0]
    optimizer.step()
    schedule.step()
    return used


def test_up_to_the_peak_and_down_again() -> None:
    optimizer, schedule = make(50)
    rates = [step(optimizer, schedule)[0] for _ in range(50)]
    assert max(rates) == rates[4] == 1.0  # 0.1 x 50 steps, counted from 0
    assert rates[0] < 0.1
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("cut", [1, 3, 10, 19])
def test_restored_it_goes_on_exactly(cut: int) -> None:
    optimizer, schedule = make(30)
    whole = [step(optimizer, schedule) for _ in range(30)]
    optimizer, schedule = make(30)
    for _ in range(cut):
        step(optimizer, schedule)
    state = schedule.state_dict()
    optimizer, schedule = make(30)
    restore_schedule(schedule, state)
    # bitwise, the first step after the cut too
    assert [step(optimizer, schedule) for _ in range(cut, 30)] == whole[cut:]


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
def test_short_trainings_have_a_schedule(steps: int) -> None:
    for warm_up in (0.05, 0.1):  # 0.1 x 10 and 0.05 x 20 divide by zero in PyTorch
        optimizer, schedule = make(steps, warm_up)
        rates = [step(optimizer, schedule)[0] for _ in range(steps)]
        assert all(0 < rate <= 1 for rate in rates)
