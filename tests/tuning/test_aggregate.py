"""Several rewards, one advantage: scales, weights and masks."""

from __future__ import annotations

import math

import torch

from clinalign.core.config import AdvantageConfig
from clinalign.tuning.aggregate import Aggregator
from clinalign.tuning.feedback import Signal

PROMPTS = ["a"] * 4


def signal(*scores: float) -> Signal:
    values = torch.tensor(scores)
    return Signal(torch.nan_to_num(values), ~values.isnan())


def aggregator(way: str, weights: dict[str, float], name: str = "group") -> Aggregator:
    return Aggregator(AdvantageConfig.model_validate({"name": name, "aggregate": way, "global_std": False}), weights)


def test_advantages_do_not_depend_on_the_scale_of_a_reward_and_sums_of_rewards_do() -> None:
    one, other = signal(0, 1, 2, 3), signal(3, 0, 3, 0)
    weights = {"one": 1.0, "other": 1.0}
    for way, same in (("advantage_aggregate", True), ("reward_aggregate", False)):
        plain = aggregator(way, weights)(PROMPTS, {"one": one, "other": other}).values
        scaled = aggregator(way, weights)(
            PROMPTS, {"one": one, "other": Signal(100 * other.values, other.valid)}
        ).values
        assert torch.allclose(plain, scaled, atol=1e-2) is same


def test_a_reward_aggregate_is_the_published_sum() -> None:
    signals = {"one": signal(0, 1, 2, 3), "other": signal(1, 0, 1, 0)}
    both = aggregator("reward_aggregate", {"one": 1.0, "other": 2.0})(PROMPTS, signals)
    alone = aggregator("reward_aggregate", {"sum": 1.0})(PROMPTS, {"sum": signal(2, 1, 4, 3)})
    torch.testing.assert_close(both.values, alone.values)


def test_one_reward_is_the_same_either_way() -> None:
    scores = {"one": signal(0, 1, 5, 3)}
    for name in ("group", "per_prompt_running"):
        first, second = (
            aggregator(way, {"one": 1.0}, name)(PROMPTS, scores) for way in ("advantage_aggregate", "reward_aggregate")
        )
        assert torch.equal(first.values, second.values)
        assert torch.equal(first.active, second.active)


def test_an_unknown_score_is_never_zero() -> None:
    signals = {"one": signal(0, 1, 2, 3), "other": signal(math.nan, 5, 5, 7)}
    weights = {"one": 1.0, "other": 1.0}
    added = aggregator("advantage_aggregate", weights)(PROMPTS, signals)
    alone = aggregator("advantage_aggregate", {"one": 1.0})(PROMPTS, {"one": signals["one"]})
    torch.testing.assert_close(added.values[0], alone.values[0])  # judged by the reward that knows it
    assert added.active.all()
    summed = aggregator("reward_aggregate", weights)(PROMPTS, signals)
    assert summed.active.tolist() == [False, True, True, True]  # left out, and out of the mean
    torch.testing.assert_close(summed.values[1:].sum(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_state_goes_through_a_checkpoint() -> None:
    first = aggregator("advantage_aggregate", {"one": 1.0}, "per_prompt_running")
    first(PROMPTS, {"one": signal(0, 1, 2, 9)})
    second = aggregator("advantage_aggregate", {"one": 1.0}, "per_prompt_running")
    second.restore(first.state())
    new = {"one": signal(1, 1, 2, 2)}
    assert torch.equal(first(PROMPTS, new).values, second(PROMPTS, new).values)
