"""The learning-rate schedule of stage 1: up, then down along a cosine, and exactly where it was after a resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(
    optimizer: torch.optim.Optimizer, peak: float, steps: int, warm_up: float, final_div_factor: float = 1e4
) -> OneCycleLR:
    """Return the schedule of ``steps`` steps.

    Args:
        optimizer: Whose learning rate (and first beta) it moves.
        peak: Largest learning rate.
        steps: All steps.
        warm_up: Share of the steps until the peak.
        final_div_factor: Of OneCycleLR: how far below the first learning rate the last one is.
    """
    if warm_up * steps == 1:  # OneCycleLR divides by (warm_up * steps - 1)
        warm_up = 2 / steps
    return OneCycleLR(optimizer, peak, total_steps=steps, pct_start=warm_up, final_div_factor=final_div_factor)


def restore_schedule(schedule: OneCycleLR, state: Mapping[str, Any]) -> None:
    """Put back a ``state_dict``, and the optimiser's learning rate and beta with it, which PyTorch leaves alone."""
    schedule.load_state_dict(dict(state))
    schedule.last_epoch -= 1
    schedule.step()
    schedule._step_count = state["_step_count"]
