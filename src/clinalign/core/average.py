"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class WeightAverage:
    """Keeps an average of named parameters: ``average = decay * average + (1 - decay) * value``.

    The decay starts low and rises to its value, ``min(decay, (1 + step) / (10 + step))``, so that a short run is not
    dominated by its first weights.

    Args:
        parameters: Parameters by name; the average starts as a copy.
        decay: Final decay in ``[0, 1)``.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.shadow = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, torch.Tensor], decay: float | None = None) -> None:
        """Move the average towards the current values, with its own decay or the one given."""
        self.steps += 1
        if decay is None:
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        names = list(self.shadow)
        torch._foreach_lerp_([self.shadow[n] for n in names], [parameters[n].detach() for n in names], 1 - decay)

    @contextmanager
    def applied_to(self, parameters: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Put the average into the parameters inside the block, and the current values back after it."""
        current = {name: parameters[name].detach().clone() for name in self.shadow}
        try:
            self._copy(self.shadow, parameters)
            yield
        finally:
            self._copy(current, parameters)

    @staticmethod
    @torch.no_grad()
    def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
        for name, value in source.items():
            target[name].copy_(value)
