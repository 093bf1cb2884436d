"""Several rewards, one advantage (methods 1.2).

``advantage_aggregate`` turns each reward into advantages of its own and adds them with the rewards' weights, so that
the scales of the rewards do not matter (R). ``reward_aggregate`` adds the weighted signals first, as published recipes
do. An unknown score takes part in neither: with the first the picture is judged by the rewards that know it, with the
second it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clinalign.core.config import AdvantageConfig
from clinalign.tuning.advantage import Advantages, Group, PerPromptRunning
from clinalign.tuning.feedback import Signal

SUM = "sum"


def build_estimator(config: AdvantageConfig) -> PerPromptRunning | Group:
    """Return the estimator that the config names."""
    if config.name == "per_prompt_running":
        return PerPromptRunning(config.buffer, config.min_count, config.clip)
    return Group(config.clip, config.global_std)


class Aggregator:
    """Advantages of pictures that several rewards judge.

    Args:
        config: Estimator and way of adding.
        weights: Reward name to weight.
    """

    def __init__(self, config: AdvantageConfig, weights: Mapping[str, float]) -> None:
        self.config, self.weights = config, dict(weights)
        names = [SUM] if config.aggregate == "reward_aggregate" else list(weights)
        self.estimators = {name: build_estimator(config) for name in names}

    def __call__(self, prompt_ids: Sequence[str], signals: Mapping[str, Signal]) -> Advantages:
        """Return the advantages of N pictures from the signals of each reward, clipped once more after adding."""
        if self.config.aggregate == "reward_aggregate":
            valid = torch.stack([signal.valid for signal in signals.values()]).all(dim=0)
            values = torch.zeros(len(prompt_ids))
            for name, signal in signals.items():
                values = values + self.weights[name] * torch.where(valid, signal.values, 0.0)
            return self.estimators[SUM](prompt_ids, values, valid)
        each = {
            name: estimator(
                prompt_ids, torch.where(signals[name].valid, signals[name].values, 0.0), signals[name].valid
            )
            for name, estimator in self.estimators.items()
        }
        values = torch.stack([self.weights[name] * part.values for name, part in each.items()]).sum(0)
        active = torch.stack([part.active for part in each.values()]).any(dim=0) & (values != 0)
        dropped = 1.0 - float(active.float().mean()) if len(active) else 0.0
        return Advantages(values.clamp(-self.config.clip, self.config.clip), active, dropped)

    def state(self) -> dict[str, Any]:
        """Return what the estimators remember, for the checkpoint."""
        return {name: estimator.state() for name, estimator in self.estimators.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        for name, estimator in self.estimators.items():
            estimator.restore(state[name])
