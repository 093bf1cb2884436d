"""What a report says of the guard."""

from __future__ import annotations

from typing import Any

from clinalign.workflows.report_findings import summarise
from clinalign.workflows.report_guard import guard_criterion, guard_record
from clinalign.workflows.report_plots import training_plots
from clinalign.workflows.report_verdicts import verdicts


def rows(edges: list[float], reward: list[float] | None = None) -> list[dict[str, Any]]:
    reward = reward or [0.2 * number for number in range(len(edges))]
    return [
        {
            "epoch": 10 * number, "reward/mean": value, "evaluate/reward": value, "watch_noise/reward": 0.02,
            "watch/edges": edge, "watch_noise/edges": 0.2, "watch/diversity": 0.0,
        }
        for number, (edge, value) in enumerate(zip(edges, reward, strict=True))
    ]  # fmt: skip


def config(guard: str = "warn", epochs: int = 50) -> dict[str, Any]:
    return {"evaluate": {"guard": guard}, "train": {"epochs": epochs}}


HACKED, FINE = rows([0.8, 1.5, 2.4, 3.2, 4.0]), rows([2.0, 1.5, 1.2, 1.0, 0.9])


def told(curve: list[dict[str, Any]], settings: dict[str, Any], kind: str) -> str:
    found = summarise({}, curve=curve, guard=guard_record(curve, settings))
    return " ".join(finding.text for finding in found if finding.kind == kind)


def test_a_hacked_reward_is_called_so() -> None:
    text = told(HACKED, config(), "bad")
    assert "The reward was hacked: reward rises (0 to 0.8) while edge density leaves the real range" in text
    assert "(from epoch 20). The run went on." in text
    assert "The guard ended the run." in told(HACKED[:4], config("stop"), "bad")
    assert "The run went on." in told(HACKED, config("stop", epochs=40), "bad")  # it was at its end anyway


def test_one_look_is_told_as_a_suspicion() -> None:
    text = told(HACKED[:3], config(), "bad")
    assert "The reward may have been hacked:" in text
    assert "not at several looks in a row" in text


def test_nothing_suspicious_is_told_without_praise() -> None:
    assert "no watch metric parted from the reward (5 looks)" in told(FINE, config(), "neutral")
    assert "hacked" not in told(FINE, config(), "bad")


def test_a_run_that_nobody_watched_says_nothing() -> None:
    curve = [{"epoch": 0, "evaluate/reward": 0.1}, {"epoch": 1, "reward/mean": 0.2}]
    assert guard_record(curve, config("off")) is None
    assert guard_record([], {}) is None


def test_the_guard_is_a_criterion_where_it_looked() -> None:
    states = []
    for curve in (FINE, HACKED[:3], HACKED, HACKED[:1]):
        record = guard_record(curve, config())
        assert record is not None
        states.append(guard_criterion(record)[1])
        assert [verdict.state for verdict in verdicts({}, guard=record)][-2] == states[-1]
    assert states == ["met", "open", "missed", "unknown"]
    assert len(verdicts({})) == len(verdicts({}, guard=guard_record(FINE, config()))) - 1


def test_variety_lost_for_a_reward_is_a_failure() -> None:
    def metrics(after: float) -> dict[str, dict[str, Any]]:
        entry = {"n": 64, "ci95": [0.0, 9.0]}
        return {
            "base/alignment/attribute_accuracy": {"value": 0.5, **entry},
            "tuned/alignment/attribute_accuracy": {"value": 0.8, **entry},
            "base/diversity/feature_distance": {"value": 4.0, **entry},
            "tuned/diversity/feature_distance": {"value": after, **entry},
        }

    rising = rows([1.0] * 8)

    def bad(after: float, curve: list[dict[str, Any]]) -> str:
        return " ".join(one.text for one in summarise(metrics(after), curve=curve) if one.kind == "bad")

    assert "paid for with variety, which counts as a failure" in bad(3.0, rising)
    assert "paid for" not in bad(3.9, rising)
    assert "paid for" not in bad(3.0, rows([1.0] * 8, [0.5] * 8))


def test_watch_metrics_are_drawn() -> None:
    titles = {plot.title: str(plot.svg) for plot in training_plots(HACKED)}
    assert {"Watch metrics", "Lost since before tuning"} <= set(titles)
    assert "Held-out evaluator" not in titles  # a reward is none, whichever it is
    assert not {"Watch metrics", "Lost since before tuning"} & {
        plot.title for plot in training_plots([HACKED[0] | {}][:0])
    }
