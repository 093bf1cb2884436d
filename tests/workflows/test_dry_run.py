"""The price before the purchase."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clinalign.core.config import TuneConfig, parse_config
from clinalign.core.errors import UserError
from clinalign.generation.generator import Generator
from clinalign.workflows.dry_run import dry_run


def config(tiny: Any, **changes: Any) -> TuneConfig:
    tree: dict[str, Any] = {
        "data": {"path": str(tiny.data)},
        "generator": {"model": str(tiny.model)},
        "rollout": {"steps": 50, "guidance": 5.0, "images_per_prompt": 8, "prompts_per_epoch": 4},
        "rewards": [{"name": "brightness"}],
        "train": {"epochs": 10, "device": "cpu"},
    }
    return parse_config({**tree, **changes})


def test_it_predicts_without_a_weight(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny.model, tmp_path / "model")
    for weights in (tmp_path / "model").rglob("*.safetensors"):
        weights.write_bytes(b"")  # whoever opens one fails
    monkeypatch.setattr(Generator, "load", None)
    result = dry_run(config(tiny, generator={"model": str(tmp_path / "model")}))
    assert result["plan"]["evaluations"] == 32 * 400  # DDPO's 400 an image
    assert result["plan"]["images"] == 32
    assert 1 < result["prompts"] <= 32
    cost = result["cost"]
    assert cost["seconds"] == pytest.approx(10 * cost["seconds_per_epoch"])
    json.dumps(result)


def test_the_denoiser_is_measured_by_its_config(tiny: Any) -> None:
    cost = dry_run(config(tiny))["cost"]
    assert cost["parameters"] == sum(weight.numel() for weight in Generator.load(tiny.model).unet.parameters())
    assert 0 < cost["gflop"] < 1
    assert 0 < cost["memory_gb"] < 1


def test_what_costs_more_is_said_to_cost_more(tiny: Any) -> None:
    def cost(**changes: Any) -> Any:
        return dry_run(config(tiny, **changes))

    base = cost()
    fewer_steps = cost(rollout={"steps": 25, "guidance": 5.0, "images_per_prompt": 8, "prompts_per_epoch": 4})
    assert fewer_steps["plan"]["evaluations"] * 2 == base["plan"]["evaluations"]
    full = cost(generator={"model": str(tiny.model), "adapter": {"kind": "full"}})
    assert full["cost"]["memory_gb"] > base["cost"]["memory_gb"]
    small_rows = cost(train={"device": "cpu", "micro_batch": 1})
    assert small_rows["cost"]["memory_gb"] < base["cost"]["memory_gb"]
    shared = dry_run(config(tiny), processes=2)
    assert shared["plan"]["images_per_process"] == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": [{"name": "attributes", "path": "NOWHERE"}]}, "reward 'attributes': nothing at .*nowhere; make"),
        ({"rewards": [{"name": "attributs", "path": "NOWHERE"}]}, "unknown reward 'attributs': did you mean"),
        ({"rewards": [{"name": "attributes"}]}, "reward 'attributes' needs the folder of its trained weights"),
        ({"rewards": [{"name": "attributes", "path": "REWARD"}]}, "was never checked: run 'clinalign reward check"),
        ({"rewards": [{"name": "brightness", "settings": {"gain": 2}}]}, "reward 'brightness' has no setting 'gain'"),
        ({"evaluate": {"evaluator": "NOWHERE"}}, "evaluate.evaluator: no folder at"),
        ({"generator": {"model": "TUNED"}}, "is tuned already and carries an adapter"),
        ({"generator": {"model": "NOWHERE"}}, "model folder .*nowhere does not exist"),
        ({"data": {"path": "NOWHERE"}}, "no such folder; make a dataset with"),
        ({"data": {"path": "DATA", "known": ["hiar"]}}, "data.known: unknown attribute 'hiar'"),
        ({"rollout": {"images_per_prompt": 5, "prompts_per_epoch": 3}}, "nearest legal is rollout.prompts_per_epoch"),
    ],
)
def test_mistakes(tiny: Any, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    text = json.dumps(changes).replace("NOWHERE", str(tmp_path / "nowhere")).replace("TUNED", str(tiny.run))
    text = text.replace("REWARD", str(tiny.reward)).replace("DATA", str(tiny.data))
    with pytest.raises(UserError, match=message):
        dry_run(config(tiny, **json.loads(text)))
