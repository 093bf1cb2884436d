"""Several rewards as one."""

from __future__ import annotations

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.rewards import load_reward
from clinalign.rewards.compose import CombinedReward, combine


def test_weighted_sum_with_every_part_in_the_log() -> None:
    results = {
        "a": RewardResult(torch.tensor([1.0, 2.0]), torch.tensor([True, True]), {"hair": torch.tensor([0.0, 1.0])}),
        "b": RewardResult(torch.tensor([10.0, torch.nan]), torch.tensor([True, False])),
    }
    total = combine(results, {"a": 2.0, "b": 0.5})
    assert total.values[0].item() == 7.0  # 2 * 1 + 0.5 * 10
    assert total.valid.tolist() == [True, False]  # valid where every part is
    assert torch.isfinite(total.values).all()
    assert set(total.parts) == {"a", "b", "a/hair"}
    assert total.parts["b"][1].isnan()


def test_combined_is_a_reward_with_an_identity_of_its_own() -> None:
    rewards = {name: load_reward(name) for name in ("brightness", "compressibility")}
    one = CombinedReward(rewards, {"brightness": 1.0, "compressibility": 0.1})
    other = CombinedReward(rewards, {"brightness": 1.0, "compressibility": 0.2})
    assert one.identity != other.identity
    assert one(torch.rand(3, 3, 8, 8), [Case("1", "")] * 3).values.shape == (3,)


def test_messages() -> None:
    with pytest.raises(UserError, match="no reward to combine"):
        combine({}, {})
    fine = RewardResult(torch.zeros(1), torch.ones(1).bool())
    with pytest.raises(UserError, match=r"rewards \['a'\] and weights \['b'\]"):
        combine({"a": fine}, {"b": 1.0})
    with pytest.raises(UserError, match="at least one"):
        CombinedReward({}, {})
