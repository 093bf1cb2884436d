"""The whole job at a size that takes seconds, and that the recipe beside it is the same job."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clinalign.core.config import load_config, parse_config
from clinalign.core.errors import UserError
from clinalign.workflows.demo import DEMOS, demo, demo_config

RECIPE = Path(__file__).parents[2] / "recipes" / "rl4med_phantom.yaml"
STAGES = ["data", "base", "reward", "evaluator", "reward check", "tuning", "evaluation"]
TINY = {
    "cases": 300, "autoencoder_steps": 40, "base_steps": 8, "width": 16, "reward_epochs": 6, "evaluator_epochs": 3,
    "epochs": 2, "evaluated": 40,
}  # fmt: skip


def test_the_recipe_is_the_tuning_stage_of_the_demo() -> None:
    written = load_config(RECIPE)
    run = parse_config(demo_config(Path("demo"), DEMOS["skin"], seed=0))
    assert run == written


@pytest.mark.parametrize("modality", ["skin", "cxr"])
def test_the_demos_differ_only_where_the_data_do(modality: str) -> None:
    config = parse_config(demo_config(Path("demo"), DEMOS[modality], seed=3))
    assert config.seed == 3
    assert config.images_per_epoch % config.train.updates_per_epoch == 0
    assert config.objective == load_config(RECIPE).objective


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["skin", "cxr"])
def test_one_command_makes_everything_and_a_second_finds_it_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DEMOS, modality, replace(DEMOS[modality], **TINY))
    monkeypatch.setattr("clinalign.workflows.tune.require_check", lambda reward, path: None)  # six epochs may fail it
    out = tmp_path / "demo"
    first = demo(out, modality)
    assert list(first["seconds"]) == STAGES
    assert Path(first["report"]).is_file()
    assert json.loads((out / "metrics.json").read_text()) == first["metrics"]
    assert first["metrics"]["tuned/alignment/attribute_accuracy"]["n"] == 40
    for part in ("data/dataset.json", "base/model_index.json", "reward/check.json", "run/model/README.md",
                 "evaluation/images"):  # fmt: skip
        assert (out / part).exists(), part

    again = demo(out, modality)
    assert again["seconds"] == first["seconds"]
    assert capsys.readouterr().err.count("done before") == len(STAGES)

    (out / "demo.json").write_text(json.dumps({"key": "another", "seconds": {}}))
    with pytest.raises(UserError, match="holds a demo with other settings: choose another --out or delete it"):
        demo(out, modality)


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown modality 'skim': did you mean 'skin'"):
        demo(tmp_path / "demo", "skim")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: choose a folder with --out"):
        demo(tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(UserError, match="is not empty and holds no demo: choose another --out"):
        demo(tmp_path / "full")
