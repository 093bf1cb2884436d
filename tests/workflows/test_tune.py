"""``tune`` from its config to its run folder: resumable to the bit, and clear about what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clinalign.core.checkpoint import load_state
from clinalign.core.config import TuneConfig, dump_config, load_config, parse_config
from clinalign.core.errors import UserError
from clinalign.core.files import write_json, write_text
from clinalign.core.runs import RunFolder
from clinalign.core.types import RewardResult
from clinalign.generation.model_folder import LORA_FILE
from clinalign.rewards import REWARDS
from clinalign.workflows.dry_run import dry_run
from clinalign.workflows.tune import resolve_precision, tune


def small(tiny: Any, changes: dict[str, Any] | None = None) -> TuneConfig:
    """Four epochs of eight images; ``changes`` by dotted keys."""
    tree: dict[str, Any] = {
        "data": {"path": str(tiny.data)},
        "generator": {"model": str(tiny.model), "adapter": {"rank": 2}},
        "rollout": {"steps": 3, "guidance": 2.0, "images_per_prompt": 4, "prompts_per_epoch": 2},
        "rewards": [{"name": "brightness"}],
        "advantage": {"buffer": 6, "min_count": 3},
        "objective": {"clip_range": 0.1, "timestep_fraction": 0.67},
        "train": {"epochs": 4, "device": "cpu", "checkpoint_every": 1, "learning_rate": 3e-3},
        "evaluate": {"every": 2, "prompts": 2, "images_per_prompt": 2},
    }
    for key, value in (changes or {}).items():
        section, _, name = key.partition(".")
        if name:
            tree[section] = {**tree.get(section, {}), name: value}
        else:
            tree[section] = value
    return parse_config(tree)


def rows_without_seconds(run: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.startswith("seconds/")}
        for row in RunFolder(run).read_metrics()
    ]


def assert_same_run(first: Path, second: Path, last: str = "epoch_00004") -> None:
    """Weights, average, optimiser, statistics, rows, export and pictures, to the bit."""
    tensors, info = load_state(first / "checkpoints" / last)
    others, other_info = load_state(second / "checkpoints" / last)
    assert tensors.keys() == others.keys()
    assert {name.split("/")[0] for name in tensors} == {"weights", "average", "optimizer"}
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())
    assert info == other_info
    assert info["advantage"]  # there are statistics to lose
    assert rows_without_seconds(first) == rows_without_seconds(second)
    for file in ("samples/epoch_0004.png", "samples/last/000.png"):
        assert (first / file).read_bytes() == (second / file).read_bytes()
    mine, theirs = (load_file(run / "model" / LORA_FILE) for run in (first, second))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


@pytest.fixture(scope="module")
def straight(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs without a break."""
    out = tmp_path_factory.mktemp("straight") / "run"
    tune(small(tiny), out)
    return out


def test_the_run_folder(tiny: Any, straight: Path) -> None:
    from clinalign.generation.generator import Generator

    look, *rows = RunFolder(straight).read_metrics()
    assert look["epoch"] == 0  # the model before tuning, with the same prompts and noise as every later look
    assert {key for key in look if not key.startswith("watch")} == {
        "epoch", "evaluate/reward", "evaluate/ms_ssim", "evaluate/win_rate",
    }  # fmt: skip
    assert {"watch/intensity", "watch/edges", "watch/fine_detail", "watch/layout", "watch/diversity"} <= set(look)
    assert look["evaluate/win_rate"] == 0.5  # it is the anchor
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    plan = dry_run(small(tiny))["plan"]
    # 8 images, 3 steps drawn and 2 trained, with guidance: 8 (2 * 3 + 2 * 2 * 3)
    assert plan["evaluations"] == 144
    assert [row["network_evaluations"] for row in rows] == [144, 288, 432, 576]
    assert [row["network_evaluations_epoch"] for row in rows] == [144] * 4
    assert rows[0]["kl"] == 0.0 < rows[3]["kl"]
    assert all(row["ratio/first_update_error"] < 2e-5 for row in rows)
    assert ["evaluate/reward" in row for row in rows] == [False, True, False, True]
    assert sorted(path.name for path in (straight / "samples").glob("*.png")) == [
        "epoch_0000.png", "epoch_0002.png", "epoch_0004.png",
    ]  # fmt: skip
    asked = json.loads((straight / "samples" / "prompts.json").read_text(encoding="utf-8"))
    assert len(asked) == 4
    assert set(asked[0]) == {"text", "case_id", "seed"}
    assert sorted(path.name for path in (straight / "checkpoints").iterdir()) == ["epoch_00003", "epoch_00004"]
    made_of = json.loads((straight / "manifest.json").read_text(encoding="utf-8"))
    assert made_of["plan"]["images"] == 8
    assert {"generator", "reward", "dataset", "seed", "versions"} <= set(made_of)
    assert made_of["base"] == {"hub_id": "", "from_scratch": False, "licence": ""}  # what the model card needs
    assert {"source", "licence", "citation", "counts", "groups"} <= set(made_of["dataset"])
    assert load_config(straight / "config.yaml") == small(tiny)
    # the export carries the average, and not the last weights
    tensors, _ = load_state(straight / "checkpoints" / "epoch_00004")
    exported = {name: value for name, value in Generator.load(straight).unet.named_parameters() if "lora_" in name}
    assert len(exported) == sum(name.startswith("average/") for name in tensors)
    for name, value in exported.items():
        assert torch.equal(value, tensors[f"average/{name}"])
    assert any(not torch.equal(value, tensors[f"weights/{name}"]) for name, value in exported.items())


def test_interrupted_and_resumed_is_the_same_run(tiny: Any, straight: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    tune(small(tiny, {"train.epochs": 3}), out)
    # as a kill leaves it: two epochs saved, the third only told, half a line, a checkpoint begun
    shutil.rmtree(out / "checkpoints" / "epoch_00003")
    (out / "checkpoints" / ".epoch_00003.x1y2").mkdir()
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"epoch": 4, "rewa')
    row = tune(small(tiny), out, resume=True)
    assert_same_run(straight, out)
    assert row["epoch"] == 4
    # TensorBoard shows each epoch once, though the third was told twice
    board = EventAccumulator(str(out / "logs")).Reload()
    assert [event.step for event in board.Scalars("reward/mean")] == [1, 2, 3, 4]
    # resuming a finished run changes nothing
    before = (out / "metrics.jsonl").read_bytes()
    assert tune(small(tiny), out, resume=True) == row
    assert (out / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_is_the_same_run(tiny: Any, tmp_path: Path) -> None:
    write_text(tmp_path / "config.yaml", dump_config(small(tiny)))
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "config.yaml"), str(tmp_path / "whole"), str(tmp_path / "killed"),
         "0", "5"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_folder_with_a_run_is_refused_without_resume_and_with_another_config(
    tiny: Any, straight: Path, tmp_path: Path
) -> None:
    before = (straight / "metrics.jsonl").read_bytes(), (straight / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="holds a run: add --resume to go on with it, or choose another --out"):
        tune(small(tiny), straight)
    with pytest.raises(UserError, match=r"holds another run: train.learning_rate differ; choose another --out"):
        tune(small(tiny, {"train.learning_rate": 1e-5}), straight, resume=True)
    assert before == ((straight / "metrics.jsonl").read_bytes(), (straight / "config.yaml").read_bytes())
    (tmp_path / "mine").mkdir()
    write_text(tmp_path / "mine" / "thesis.txt", "years of work")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        tune(small(tiny), tmp_path / "mine")
    with pytest.raises(UserError, match=r"thesis.txt is a file: choose a folder with --out"):
        tune(small(tiny), tmp_path / "mine" / "thesis.txt")


def test_a_run_whose_model_was_trained_anew_is_not_resumed(tiny: Any, straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    made_of = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "run" / "manifest.json", {**made_of, "generator": "model:0123456789ab"})
    with pytest.raises(UserError, match=r"made with other content: the weights of generator.model changed since"):
        tune(small(tiny), tmp_path / "run", resume=True)


def test_full_weights_are_tuned_and_exported(tiny: Any, tmp_path: Path) -> None:
    from clinalign.generation.generator import Generator

    changes = {
        "generator": {"model": str(tiny.model), "adapter": {"kind": "full"}},
        "train": {"epochs": 2, "device": "cpu", "learning_rate": 1e-3},
        "objective": {"kl": 0.1, "clip_range": 0.1},
    }
    row = tune(small(tiny, changes), tmp_path / "run")
    assert row["kl"] > 0.0  # the anchor is a copy, not the policy itself
    tuned, base = Generator.load(tmp_path / "run").unet.state_dict(), Generator.load(tiny.model).unet.state_dict()
    assert any(not torch.equal(value, base[name]) for name, value in tuned.items())


def bad_reward(kind: str) -> Callable[..., Any]:
    def score(images: torch.Tensor, cases: Any) -> RewardResult:
        count = len(images)
        if kind == "raises":
            raise RuntimeError("the server is on fire")
        values = {
            "nan": torch.full((count,), torch.nan),
            "integers": torch.ones(count, dtype=torch.long),
            "shape": torch.ones(count, 1),
        }[kind]
        return RewardResult(values, torch.ones(count, dtype=torch.bool))

    score.name = score.identity = kind  # type: ignore[attr-defined]
    return score


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "reward 'nan' returned NaN or infinity for all of 4 images"),
        ("integers", "reward 'integers' returned torch.int64 values: return float32"),
        ("shape", r"reward 'shape' returned values of shape \(4, 1\) for 4 images: return \(4,\)"),
        ("raises", "failed on 16 of the last 16 samples .*the server is on fire: mend the reward and resume the run"),
    ],
)
def test_a_bad_reward_ends_the_run_with_one_line(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    monkeypatch.setattr("clinalign.rewards.guarded.time.sleep", lambda seconds: None)
    monkeypatch.setitem(REWARDS._entries, kind, lambda path, settings, device: bad_reward(kind))
    with pytest.raises(UserError, match=message):
        tune(small(tiny, {"rewards": [{"name": kind, "require_check": False}]}), tmp_path / "run")
    assert not [
        row for row in RunFolder(tmp_path / "run").read_metrics() if row["epoch"]
    ]  # nothing was learned from it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.known": ["hiar"]}, "data.known: unknown attribute 'hiar': did you mean 'hair'"),
        ({"data.split": "tset"}, "no case in split 'tset'; did you mean 'test'"),
        ({"rewards": [{"name": "brightnes"}]}, "unknown reward 'brightnes': did you mean 'brightness'"),
        ({"rewards": [{"name": "attributes"}]}, "reward 'attributes' needs the folder of its trained weights"),
        ({"rewards": [{"name": "attributes", "path": "REWARD"}]}, "was never checked: run 'clinalign reward check"),
        (
            {
                "rewards": [{"name": "attributes", "path": "REWARD", "require_check": False}],
                "evaluate": {"evaluator": "REWARD"},
            },
            "the evaluator is the reward itself|its independence cannot be checked",
        ),
        ({"generator": {"model": "TUNED"}}, "is tuned already and carries an adapter: give the base it came from"),
        (
            {"rollout.prompts_per_epoch": 3, "rollout.images_per_prompt": 5},
            "nearest legal is rollout.prompts_per_epoch",
        ),
        ({"train.device": "cuda"}, "torch sees no CUDA device"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tiny: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "CUDA" in message and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    text = json.dumps(changes).replace("REWARD", str(tiny.reward)).replace("TUNED", str(tiny.run))
    with pytest.raises(UserError, match=message):
        tune(small(tiny, json.loads(text)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_split_without_a_usable_case_is_an_error(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from clinalign.data.prepared import PreparedDataset

    def nobody_knows(self: PreparedDataset, split: str) -> list[Any]:
        return [replace(case, attributes={"hair": None}) for case in self.cases(split)]

    monkeypatch.setattr(PreparedDataset, "prompts", nobody_knows)
    with pytest.raises(UserError, match=r"no case is left to take prompts from: look at data.split and data.known"):
        tune(small(tiny, {"data.known": ["hair"]}), tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=many", "key 'train.epochs': .*got 'many'"),
        ("train.epoch=3", "unknown key 'train.epoch': did you mean 'epochs'"),
        ("rollout.eta=-1", "key 'rollout.eta': .*got -1"),
        ("rollout.eta=0", "objective ddpo needs steps with noise: set rollout.eta above 0"),
        ("rewards.3.weight=1", "there is no such place in the config"),
        ("train.precision=fp16", "key 'train.precision': .*got 'fp16'"),
        ("epochs", "write key=value"),
    ],
)
def test_overrides_of_the_wrong_kind(tiny: Any, tmp_path: Path, override: str, message: str) -> None:
    write_text(tmp_path / "config.yaml", dump_config(small(tiny)))
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "config.yaml", [override])


def test_auto_precision_is_decided_once(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    auto, run = small(tiny, {"train.precision": "auto"}), RunFolder(tmp_path)
    monkeypatch.setattr("clinalign.workflows.tune.bf16_is_fast", lambda device_type: True)
    decided = resolve_precision(auto, cpu)
    assert decided.train.precision == "bf16"
    write_text(run.config, dump_config(decided))
    monkeypatch.setattr("clinalign.workflows.tune.bf16_is_fast", lambda device_type: False)
    assert resolve_precision(auto, cpu).train.precision == "fp32"
    assert resolve_precision(auto, cpu, run).train.precision == "bf16"  # a resumed run keeps what it used
    assert resolve_precision(small(tiny), cpu, run).train.precision == "fp32"  # what is asked for is what is done


def test_a_comparative_run_with_tokens_and_two_rewards(tiny: Any, tmp_path: Path) -> None:
    rewards = [
        {"name": "attributes", "path": str(tiny.reward), "require_check": False},
        {"name": "brightness", "comparative": False},
    ]
    config = small(tiny).model_dump(mode="json")
    config["generator"]["ace"]["tokens"] = 2
    config |= {"rewards": rewards, "feedback": {"name": "comparative"}}
    run = tmp_path / "run"
    tune(parse_config(config), run)
    row = RunFolder(run).read_metrics()[-1]
    assert 0 <= row["win_rate/attributes"] <= 1
    assert "win_rate/brightness" not in row
    assert row["network_evaluations_anchor"] == 8 * 3 * 2  # 8 images, 3 steps, guidance
    assert (run / "model" / "ace.safetensors").is_file()
    assert list((run / "anchor_scores").glob("*.jsonl"))
    again = tune(parse_config(config), run, resume=True)
    assert again["epoch"] == row["epoch"]


def test_every_look_is_weighed_for_the_front(straight: Path) -> None:
    looks = {row["epoch"]: row for row in RunFolder(straight).read_metrics() if "watch/distance" in row}
    assert list(looks) == [0, 2, 4]
    table = json.loads((straight / "front" / "front.json").read_text(encoding="utf-8"))
    keys = ("evaluate/reward", "watch/distance")
    assert table["anchor"] == {key: looks[0][key] for key in keys}
    kept = {entry["epoch"]: entry for entry in table["epochs"]}
    for epoch in (2, 4):  # kept, or beaten by another look in reward and distance
        rivals = [row for other, row in looks.items() if other != epoch]
        beaten = any(
            row["evaluate/reward"] >= looks[epoch]["evaluate/reward"]
            and row["watch/distance"] <= looks[epoch]["watch/distance"]
            for row in rivals
        )
        assert beaten != (epoch in kept)
        assert (straight / "front" / f"epoch_{epoch:04d}" / LORA_FILE).is_file() == (epoch in kept)
    assert json.loads((straight / "guard.json").read_text(encoding="utf-8"))["guard"] == "warn"


@pytest.mark.slow
def test_the_guard_changes_nothing_that_is_trained(tiny: Any, straight: Path, tmp_path: Path) -> None:
    evaluate = {"every": 2, "prompts": 2, "images_per_prompt": 2, "guard": "off"}
    tune(small(tiny, {"evaluate": evaluate}), tmp_path / "run")
    watched, blind = (load_state(run / "checkpoints" / "epoch_00004")[0] for run in (straight, tmp_path / "run"))
    assert all(torch.equal(value, blind[name]) for name, value in watched.items())
    rows = [
        {key: value for key, value in row.items() if not key.startswith("watch")}
        for row in rows_without_seconds(straight)
    ]
    assert rows_without_seconds(tmp_path / "run") == rows  # off: the rows of before, and no more
    assert not (tmp_path / "run" / "front").exists()
    assert not (tmp_path / "run" / "guard.json").exists()


@pytest.mark.slow
def test_an_ensemble_rewards_and_its_members_are_known(tiny: Any, tmp_path: Path) -> None:
    members = []
    for number in range(2):
        members.append(tmp_path / f"member{number}")
        shutil.copytree(tiny.reward, members[-1])
    ensemble = {
        "name": "ensemble", "members": [str(tiny.reward), str(tiny.evaluator)], "require_check": False,
        "settings": {"of": "attributes", "k": 1.0, "score": "probability"},
    }  # fmt: skip
    objective = {"name": "draft", "last_steps": 1}
    row = tune(small(tiny, {"rewards": [ensemble], "objective": objective, "train.epochs": 1}), tmp_path / "run")
    assert row["reward/ensemble"] == pytest.approx(
        row["reward/ensemble/mean"] - row["reward/ensemble/spread"], abs=1e-5
    )
    assert row["grad_norm"] > 0
    with pytest.raises(UserError, match="the evaluator is the reward itself"):
        tune(small(tiny, {"rewards": [ensemble], "evaluate": {"evaluator": str(tiny.evaluator)}}), tmp_path / "judged")
    twice = {**ensemble, "members": [str(member) for member in members]}
    with pytest.raises(UserError, match="the same model, which agrees with itself"):
        tune(small(tiny, {"rewards": [twice]}), tmp_path / "twice")
    with pytest.raises(UserError, match=r"in .*reward was never checked"):
        tune(small(tiny, {"rewards": [{**ensemble, "require_check": True}]}), tmp_path / "unchecked")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ({"name": "ensemble", "members": ["a"]}, "reward 'ensemble' takes two folders or more as members, and no path"),
        ({"name": "ensemble", "path": "a"}, "reward 'ensemble' takes two folders or more as members, and no path"),
        ({"name": "attributes", "members": ["a", "b"]}, "reward 'attributes' takes no members: name it ensemble"),
    ],
)
def test_members_without_an_ensemble(tiny: Any, reward: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small(tiny, {"rewards": [reward]})
