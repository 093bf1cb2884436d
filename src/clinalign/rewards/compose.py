"""Several rewards as one: a weighted sum, each part in its own log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json
from clinalign.core.types import Case, Reward, RewardResult


def combine(results: Mapping[str, RewardResult], weights: Mapping[str, float]) -> RewardResult:
    """Return the weighted sum r = sum_i w_i r_i.

    Args:
        results: Reward name to its result on the same N images.
        weights: Reward name to weight; the same names.

    Returns:
        The sum; valid where every reward is; parts ``<name>`` (unweighted, NaN where that reward was not valid) and
        ``<name>/<part>``.

    Raises:
        UserError: When there is no reward, or the names differ.
    """
    if not results:
        raise UserError("there is no reward to combine: name at least one")
    if set(results) != set(weights):
        raise UserError(f"rewards {sorted(results)} and weights {sorted(weights)} must have the same names")
    parts: dict[str, torch.Tensor] = {}
    for name, result in results.items():
        parts[name] = result.values.detach().masked_fill(~result.valid, torch.nan)
        parts.update({f"{name}/{part}": values for part, values in result.parts.items()})
    valid = torch.stack([result.valid for result in results.values()]).all(dim=0)
    # A masked value may be NaN, and 0 * NaN is NaN: choose before adding.
    values = sum(weights[name] * torch.where(valid, result.values, 0.0) for name, result in results.items())
    assert isinstance(values, torch.Tensor)  # results is not empty
    return RewardResult(values, valid, parts)


class CombinedReward:
    """A weighted sum that is itself a reward.

    Args:
        rewards: Name to reward.
        weights: Name to weight; the same names.

    Raises:
        UserError: When there is none, or the names differ.
    """

    name = "reward"

    def __init__(self, rewards: Mapping[str, Reward], weights: Mapping[str, float]) -> None:
        if not rewards or set(rewards) != set(weights):
            raise UserError(f"rewards {sorted(rewards)} and weights {sorted(weights)} must be the same, at least one")
        self.rewards = dict(rewards)
        self.weights = dict(weights)
        self.identity = "sum:" + hash_json([[name, rewards[name].identity, weights[name]] for name in sorted(rewards)])

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` with every reward and combine."""
        return combine({name: reward(images, cases) for name, reward in self.rewards.items()}, self.weights)
