"""The sum over rows of one optimiser step: how it is cut changes nothing, and what is logged of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clinalign.tuning.objectives.base import Terms
from clinalign.tuning.update import UpdateLog

NAMES = ("ratio/mean", "ratio/worst", "kl_trained")


def log_of(*batches: tuple[list[float], list[float]]) -> UpdateLog:
    """Return the log of micro-batches of (loss, values) rows, 4 rows over all processes."""
    log = UpdateLog(NAMES)
    for loss, values in batches:
        column = torch.tensor(values)
        log.add(Terms(torch.tensor(loss), 3 * len(loss), dict.fromkeys(NAMES, column)), 4)
    return log


def together(*logs: UpdateLog) -> dict[str, Any]:
    sums = torch.stack([log.sums() for log in logs]).sum(0)
    worst = torch.stack([log.worst() for log in logs]).amax(dim=0)
    return UpdateLog.together(NAMES, sums, worst)


def test_means_are_over_rows_and_the_worst_is_the_largest() -> None:
    # three rows of one process in two micro-batches, and one of another
    one, other = log_of(([1.0, 2.0], [0.5, 0.1]), ([3.0], [0.2])), log_of(([6.0], [0.4]))
    found = together(one, other)
    assert found == pytest.approx({
        "loss": 3.0,  # (1 + 2 + 3 + 6) / 4
        "evaluations": 12.0,
        "ratio/mean": 0.3,  # (0.5 + 0.1 + 0.2 + 0.4) / 4
        "kl_trained": 0.3,
        "ratio/worst": 0.5,
    })  # fmt: skip
    assert one.rows == 3


def test_what_is_not_finite_is_the_worst_of_all() -> None:
    for broken in (float("nan"), float("inf")):
        found = together(log_of(([1.0], [broken]), ([1.0], [0.2])), log_of(([1.0], [0.3])))
        assert found["ratio/worst"] == float("inf")  # max() of Python would have forgotten NaN


def test_without_rows_the_policy_is_where_it_was() -> None:
    assert together(log_of(), log_of()) == {
        "loss": 0.0, "evaluations": 0.0, "ratio/mean": 1.0, "kl_trained": 0.0, "ratio/worst": 0.0,
    }  # fmt: skip
    idle = together(log_of(([1.0], [0.25])), log_of())  # one process without rows does not change the mean
    assert idle["ratio/mean"] == idle["ratio/worst"] == 0.25


def test_a_rule_without_a_worst_has_none() -> None:
    log = UpdateLog(("margin",))
    log.add(Terms(torch.tensor([2.0]), 4, {"margin": torch.tensor([0.5])}), 1)
    assert log.worst().shape == (0,)
    assert UpdateLog.together(("margin",), log.sums(), log.worst()) == {"loss": 2.0, "evaluations": 4.0, "margin": 0.5}
