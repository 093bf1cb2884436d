"""The ablation: which arms a config has, the table by hand, and a whole one on the tiny world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clinalign.core.config import TuneConfig, parse_config
from clinalign.core.errors import UserError
from clinalign.workflows.ablate import ablate
from clinalign.workflows.ablation_arms import arms_of
from clinalign.workflows.ablation_table import build_rows, interval_over_seeds, to_markdown
from clinalign.workflows.evaluation_setup import EvaluateSettings

QUICK = EvaluateSettings(cases=24, resamples=20)


def config_of(tiny: Any, **changes: Any) -> TuneConfig:
    return parse_config(
        {
            "data": {"path": str(tiny.data)},
            "generator": {"model": str(tiny.model), "adapter": {"rank": 2}, "ace": {"tokens": 2}},
            "rollout": {"steps": 2, "guidance": 1.0, "images_per_prompt": 2, "prompts_per_epoch": 2},
            "rewards": [
                {"name": "attributes", "path": str(tiny.reward), "require_check": False},
                {"name": "brightness", "comparative": False},
            ],
            "feedback": {"name": "comparative"},
            "train": {"epochs": 1, "device": "cpu"},
            "evaluate": {"prompts": 1, "images_per_prompt": 2},
            **changes,
        }
    )


def test_an_arm_for_each_part_that_can_be_taken_away(tiny: Any) -> None:
    arms = {arm.name: arm.config for arm in arms_of(config_of(tiny))}
    assert list(arms) == [
        "anchor", "full", "without_ace", "without_rlcf", "only_attributes", "only_brightness", "ace_without_rl",
    ]  # fmt: skip
    full = config_of(tiny)
    assert arms["full"] == full
    for name, path, value in (
        ("without_ace", ("generator", "ace", "tokens"), 0),
        ("without_rlcf", ("feedback", "name"), "absolute"),
        ("only_brightness", ("rewards",), (full.rewards[1],)),
    ):
        changed = arms[name]
        assert changed is not None
        found: Any = changed
        for key in path:
            found = getattr(found, key)
        assert found == value
        # and nothing else differs
        tree, whole = changed.model_dump(), full.model_dump()
        tree.pop(path[0])
        whole.pop(path[0])
        assert tree == whole


def test_a_plain_config_has_no_more_than_itself(tiny: Any) -> None:
    plain = config_of(
        tiny, rewards=[{"name": "brightness"}], feedback={"name": "absolute"},
        generator={"model": str(tiny.model)},
    )  # fmt: skip
    assert [arm.name for arm in arms_of(plain)] == ["anchor", "full"]


def test_the_interval_over_seeds_is_students() -> None:
    assert interval_over_seeds([1.0]) is None
    low, high = interval_over_seeds([1.0, 2.0, 3.0])  # type: ignore[misc]
    assert (low, high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-4)


def test_the_table_by_hand() -> None:
    def metrics(posture: float, fid: float) -> dict[str, Any]:
        entries = {"alignment/posture": posture, "fidelity/fid": fid, "real/alignment/posture": -0.01}
        return {key: {"value": value, "ci95": [value - 0.5, value + 0.5]} for key, value in entries.items()}

    rows = build_rows(
        {"anchor": "anchor", "full": "full"},
        {"anchor": [metrics(-0.3, 9.0)], "full": [metrics(-0.1, 8.0), metrics(-0.3, 6.0)]},
    )
    assert [row["arm"] for row in rows] == ["anchor", "full", "real"]
    assert rows[1]["metrics"]["alignment/posture"]["mean"] == pytest.approx(-0.2)
    assert rows[1]["metrics"]["fidelity/fid"]["seeds"] == [8.0, 6.0]
    text = to_markdown(rows, 2)
    assert "| arm | posture ↑ | FID ↓ |" in text
    assert "| anchor | -0.300 [-0.800, 0.200] | 9.00 [8.50, 9.50] |" in text
    assert "| real images | -0.010 [-0.510, 0.490] |  |" in text
    assert "| CXRL as published |" in text
    assert "absolute numbers do not compare" in text


@pytest.mark.slow
def test_a_whole_ablation_goes_on_where_it_stopped(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = config_of(tiny), tmp_path / "out"
    first = ablate(config, out, tiny.evaluator, QUICK, seeds=(0,), arms=("full",), prompt_tuning_steps=5)
    assert [row["arm"] for row in first["rows"]] == ["anchor", "full", "real"]
    before = (out / "full" / "seed_0" / "evaluation" / "metrics.json").stat().st_mtime_ns
    whole = ablate(config, out, tiny.evaluator, QUICK, seeds=(0, 1), prompt_tuning_steps=5)
    assert (out / "full" / "seed_0" / "evaluation" / "metrics.json").stat().st_mtime_ns == before
    assert len(whole["rows"]) == 8
    assert len(whole["rows"][1]["metrics"]["fidelity/fid"]["seeds"]) == 2
    assert json.loads((out / "ablation.json").read_text())["rows"] == whole["rows"]
    cached = [json.loads(line) for line in (out / "without_ace" / "seed_0" / "run" / "metrics.jsonl").open()]
    assert cached[-1]["anchor/cached"] == 1.0  # the anchor's pictures were scored by the first arm of the same seed


def test_messages(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this config has no arm 'without_rclf': did you mean 'without_rlcf'"):
        ablate(config_of(tiny), tmp_path / "out", tiny.evaluator, QUICK, arms=("without_rclf",))
    with pytest.raises(UserError, match="at least one seed"):
        ablate(config_of(tiny), tmp_path / "out", tiny.evaluator, QUICK, seeds=())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(UserError, match="is not empty and holds no ablation"):
        ablate(config_of(tiny), tmp_path / "mine", tiny.evaluator, QUICK)
    with pytest.raises(UserError, match="is a file: choose a folder"):
        ablate(config_of(tiny), tmp_path / "mine" / "thesis.txt", tiny.evaluator, QUICK)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plan.json").write_text('{"plan": "another"}')
    with pytest.raises(UserError, match="holds an ablation with other settings"):
        ablate(config_of(tiny), tmp_path / "other", tiny.evaluator, QUICK)
