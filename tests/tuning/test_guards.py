"""When the guard speaks: series with known answers, and many of noise alone."""

from __future__ import annotations

import random
from typing import Any

import pytest

from clinalign.core.config import EvaluateConfig
from clinalign.tuning.guards import LOSSES, REAL_RANGES, Verdict, review, theil_sen, trend

NOISE = 0.3  # real ranges


def looks(reward: list[float], noise: float = 0.05, **series: list[float]) -> list[dict[str, Any]]:
    """Rows of looks every ten epochs; ``series`` by the name of a watch metric."""
    rows = []
    for number, value in enumerate(reward):
        row: dict[str, Any] = {"epoch": 10 * number, "evaluate/reward": value, "watch_noise/reward": noise}
        for name, values in series.items():
            row[f"watch/{name}"] = values[number]
            row[f"watch_noise/{name}"] = NOISE if name in REAL_RANGES else 0.02
        rows.append(row)
    return rows


def state(rows: list[dict[str, Any]], **settings: Any) -> str:
    return review(rows, EvaluateConfig(**settings)).state


RISING = [0.0, 0.2, 0.4, 0.6, 0.8]
STILL = [0.0, 0.01, -0.01, 0.0, 0.01]


class TestLines:
    def test_a_line_is_found_exactly(self) -> None:
        slope, intercept = theil_sen([0, 10, 20, 40], [1.0, 3.0, 5.0, 9.0])
        assert (slope, intercept) == (pytest.approx(0.2), pytest.approx(1.0))

    def test_one_outlier_does_not_move_it(self) -> None:
        slope, intercept = theil_sen([0, 1, 2, 3, 4], [0.0, 1.0, 2.0, 3.0, 100.0])
        assert (slope, intercept) == (pytest.approx(1.0), pytest.approx(0.0))

    def test_a_single_place_is_no_line(self) -> None:
        with pytest.raises(ValueError, match="two points"):
            theil_sen([3], [1.0])
        with pytest.raises(ValueError, match="different places"):
            theil_sen([3, 3], [1.0, 2.0])

    def test_the_rise_is_counted_from_before_tuning(self) -> None:
        found = trend(range(8), [5.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0], 0.1)
        assert found.slope == pytest.approx(1.0)  # of the last five
        assert found.rise == pytest.approx(-1.0)


class TestVerdicts:
    def test_reward_and_edges_part(self) -> None:
        verdict = review(looks(RISING, edges=[0.8, 1.5, 2.4, 3.2, 4.0]), EvaluateConfig())
        assert (verdict.state, verdict.epoch) == ("stop", 30)  # parted at 20, still parted at 30
        assert [parting.epoch for parting in verdict.partings] == [20]
        assert verdict.reasons == [
            "reward rises (0 to 0.8) while edge density leaves the real range (0.8 to 4.0, 1 is its edge)"
        ]

    def test_a_benign_reward(self) -> None:
        assert state(looks(RISING, edges=[3.0, 2.2, 1.5, 1.0, 0.9], layout=[0.5, 0.6, 0.4, 0.5, 0.6])) == "ok"

    def test_pictures_that_get_worse_without_a_rising_reward_are_no_hacking(self) -> None:
        assert state(looks(STILL, edges=[0.8, 1.5, 2.4, 3.2, 4.0])) == "ok"

    def test_within_the_real_range_nothing_is_worse(self) -> None:
        assert state(looks(RISING, edges=[0.0, 0.2, 0.4, 0.6, 0.8]), guard_tolerance=0.0) == "ok"
        assert state(looks(RISING, edges=[0.0, 0.3, 0.8, 1.2, 1.6]), guard_tolerance=0.0) == "stop"

    def test_a_generator_far_from_real_may_vary_in_proportion(self) -> None:
        assert state(looks(RISING, fine_detail=[12.0, 13.0, 14.0, 15.0, 16.0])) == "ok"
        assert state(looks(RISING, fine_detail=[12.0, 14.0, 17.0, 20.0, 22.0])) == "stop"

    def test_one_strange_look_is_not_enough(self) -> None:
        assert state(looks(RISING, edges=[0.8, 0.9, 0.8, 0.9, 9.0])) == "ok"
        early = [0.8, 9.0, 0.8, 0.9, 0.8]
        assert state(looks(RISING, edges=early)) == "warn"  # one of two cannot be told from a trend
        assert state(looks(RISING, edges=early), guard_patience=1) == "stop"

    def test_what_was_seen_is_not_forgotten(self) -> None:
        recovered = [0.8, 3.0, 4.0, 4.0, 0.8]
        verdict = review(looks(RISING, edges=recovered), EvaluateConfig())
        assert verdict.state == "stop"
        assert verdict.epoch == 20

    def test_flat_at_a_bad_level_is_still_apart(self) -> None:
        settings = EvaluateConfig(guard_patience=4)
        verdict = review(looks(RISING, edges=[0.8, 4.0, 4.0, 4.0, 4.0]), settings)
        assert (verdict.state, verdict.epoch) == ("stop", 40)

    def test_lost_diversity_and_a_displeased_evaluator(self) -> None:
        losses = [0.0, 0.1, 0.2, 0.3, 0.4]
        verdict = review(looks(RISING, diversity=losses, judge=losses), EvaluateConfig())
        assert verdict.state == "stop"
        assert [parting.metric for parting in verdict.partings] == ["judge", "diversity"]  # 5 points, 10 %
        assert verdict.reasons[0].endswith("the independent evaluator's accuracy falls by 40.0 points")
        assert verdict.reasons[1].endswith("diversity within a prompt (1\u2212MS\u2011SSIM) falls by 40 %")
        assert state(looks(RISING, diversity=losses), guard_diversity=0.5) == "ok"
        assert state(looks(RISING, judge=losses), guard_judge=0.5) == "ok"

    def test_one_of_several_rewards_may_be_the_hacked_one(self) -> None:
        rows = looks(STILL, edges=[0.8, 1.5, 2.4, 3.2, 4.0])
        for row, value in zip(rows, RISING, strict=True):
            row |= {"evaluate/reward/posture": value, "watch_noise/reward/posture": 0.05}
        verdict = review(rows, EvaluateConfig())
        assert verdict.state == "stop"
        assert verdict.reasons[0].startswith("reward posture rises (0 to 0.8) while edge density")

    def test_rows_without_a_look_a_level_or_a_noise_say_nothing(self) -> None:
        rows = looks(RISING, edges=[0.8, 1.5, 2.4, 3.2, 4.0])
        between = [{"epoch": row["epoch"] + 1, "reward/mean": 0.0} for row in rows]
        both = sorted([*rows, *between], key=lambda row: int(row["epoch"]))
        assert review(both, EvaluateConfig()) == review(rows, EvaluateConfig())
        assert review(between, EvaluateConfig()) == Verdict()
        assert review(rows[1:], EvaluateConfig()) == Verdict()  # nothing from before tuning to compare with
        silent = [{key: value for key, value in row.items() if key != "watch_noise/edges"} for row in rows]
        assert review(silent, EvaluateConfig()) == Verdict()

    def test_a_run_in_two_parts_is_judged_like_one_in_one(self) -> None:
        rows = looks(RISING, edges=[0.8, 1.5, 2.4, 3.2, 4.0])
        states = [review(rows[:count], EvaluateConfig()).state for count in range(1, 6)]
        assert states == ["ok", "ok", "warn", "stop", "stop"]


class TestRates:
    """How often it is wrong, over many runs of ten looks with all watch metrics."""

    def noisy(self, chance: random.Random, reward_slope: float, slope: float) -> list[dict[str, Any]]:
        count = 11
        series = {
            name: [1.0] + [1.0 + chance.gauss(slope * look, NOISE) for look in range(1, count)] for name in REAL_RANGES
        }
        series |= {name: [0.0] + [chance.gauss(0.0, 0.02) for _ in range(1, count)] for name in LOSSES}
        reward = [0.0] + [reward_slope * look + chance.gauss(0.0, 0.05) for look in range(1, count)]
        return looks(reward, **series)

    def test_false_alarms_are_rare(self) -> None:
        chance = random.Random(0)
        verdicts = [state(self.noisy(chance, reward_slope=0.1, slope=0.0)) for _ in range(150)]
        assert verdicts.count("stop") == 0
        assert verdicts.count("warn") <= 3

    def test_a_slow_departure_is_found(self) -> None:
        chance = random.Random(1)
        verdicts = [state(self.noisy(chance, reward_slope=0.1, slope=0.3)) for _ in range(50)]
        assert verdicts.count("stop") >= 48
