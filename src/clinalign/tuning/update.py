"""The gradient of one optimiser step: an update rule's rows, summed over micro-batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from clinalign.tuning.objectives.base import Objective, Rows, Terms
from clinalign.tuning.rollout import Rollout

WORST = "/worst"  # of what is logged under such a name the largest is kept, of all else the mean


@dataclass
class UpdateLog:
    """What the rows of one process add up to.

    Attributes:
        names: What the update rule logs.
        rows: Rows replayed.
        loss: Sum of the loss's rows, already divided by the global count.
        evaluations: Network evaluations, forward and backward counted as three.
        values: Sum over rows, or the largest, by name.
    """

    names: tuple[str, ...]
    rows: float = 0.0
    loss: float = 0.0
    evaluations: float = 0.0
    values: dict[str, float] = field(default_factory=dict)

    def add(self, terms: Terms, count: int) -> None:
        """Take a micro-batch into account."""
        self.rows += len(terms.loss)
        self.loss += float(terms.loss.detach().sum()) / count
        self.evaluations += terms.evaluations
        for name, value in terms.log.items():
            if name.endswith(WORST):
                worst = float(value.max())
                worst = worst if math.isfinite(worst) else math.inf  # max() would let NaN through
                self.values[name] = max(self.values.get(name, 0.0), worst)
            else:
                self.values[name] = self.values.get(name, 0.0) + float(value.sum())

    def sums(self) -> torch.Tensor:
        """Return what is summed over processes."""
        means = [self.values.get(name, 0.0) for name in self.names if not name.endswith(WORST)]
        return torch.tensor([self.rows, self.loss, self.evaluations, *means], dtype=torch.float64)

    def worst(self) -> torch.Tensor:
        """Return that of which the largest of all processes is taken."""
        return torch.tensor([self.values.get(name, 0.0) for name in self.names if name.endswith(WORST)])

    @staticmethod
    def together(names: tuple[str, ...], sums: torch.Tensor, worst: torch.Tensor) -> dict[str, float]:
        """Return what is logged of all processes' sums: ``loss``, ``evaluations``, and means over rows by name."""
        rows, loss, evaluations, *values = sums.tolist()
        means = dict(zip([name for name in names if not name.endswith(WORST)], values))
        largest = dict(zip([name for name in names if name.endswith(WORST)], worst.tolist()))
        nothing = {"ratio/mean": 1.0}  # without rows the policy is where it was
        return {
            "loss": loss,
            "evaluations": evaluations,
            **{name: value / rows if rows else nothing.get(name, 0.0) for name, value in means.items()},
            **largest,
        }


def accumulate(objective: Objective[Any], rollout: Rollout, rows: Rows, micro_batch: int) -> UpdateLog:
    """Add the gradient of the loss over this process's rows to the parameters.

    The loss is a sum over rows divided by the *global* number of rows, so micro-batches and processes only change how
    the sum is cut.

    Args:
        objective: The update rule.
        rollout: This process's pictures.
        rows: This process's rows of the step.
        micro_batch: Rows at once.
    """
    log = UpdateLog(objective.logged)
    for part in rows.split(micro_batch):
        terms = objective.terms(rollout, part)
        torch.autograd.backward(terms.loss.sum() / rows.count)
        log.add(terms, rows.count)
    return log
