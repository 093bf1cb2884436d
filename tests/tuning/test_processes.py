"""Eight micro-batches of one row equal one of eight equal two processes of four: samples, losses and weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clinalign.core.checkpoint import load_state
from clinalign.core.config import dump_config
from clinalign.core.files import write_json, write_text
from clinalign.core.runs import RunFolder

# A large epsilon makes AdamW's step a smooth function of the gradient: with 1e-8 a gradient that is zero but for
# rounding becomes a full step in a random direction, and no two orders of summation agree. A wide clip range keeps the
# kink of the loss away from every row for the same reason.
SMOOTH = {"train.epsilon": 1e-3, "train.learning_rate": 3e-3, "objective.clip_range": 0.5,
          "rollout.images_per_prompt": 2, "objective.timestep_fraction": 0.5}  # fmt: skip
# The other rules, each in two small epochs of the same two processes.
RULES: dict[str, dict[str, Any]] = {
    "window": {"name": "ddpo_window", "window": 2, "interval": 1, "branch": True, "clip_range": 0.5, "kl": 0.1},
    "awm": {"name": "awm", "timesteps": 2, "kl": 0.1},
    "nft": {"name": "nft", "timesteps": 2, "old_decay": 0.25},
    "draft": {"name": "draft", "last_steps": 2},
    "preference": {"name": "preference", "timesteps": 2, "beta": 50.0},
}
TINY = {"train.epsilon": 1e-3, "train.learning_rate": 3e-3, "rollout.images_per_prompt": 2,
        "evaluate.every": 9, "rollout.prompts_per_epoch": 4}  # fmt: skip
WEIGHTS = 1e-5  # 3e-6 is seen: float32 rounding, in four steps of up to 3e-3
LOSSES = 1e-5


@pytest.fixture(scope="module")
def runs() -> dict[str, Path]:
    return {}


@pytest.fixture
def two(tiny_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, runs: dict[str, Path]) -> Path:
    """The folder of all jobs of two processes, started once."""
    if "two" in runs:
        return runs["two"]
    folder = runs["two"] = tmp_path_factory.mktemp("two")
    (folder / "occupied").mkdir()
    write_text(folder / "occupied" / "thesis.txt", "years of work")
    jobs = []
    for name, changes in {
        "equal": SMOOTH,
        **{rule: {**TINY, "objective": objective} for rule, objective in RULES.items()},
        "blips": {"train.epochs": 1, "rewards": [{"name": "blips", "require_check": False}]},
        "gives-up": {"train.epochs": 1, "rewards": [{"name": "gives-up", "require_check": False}]},
        "occupied": {},
        "alarm": {"train.epochs": 3, "evaluate.every": 1, "evaluate.guard": "stop"},
    }.items():
        write_text(folder / f"{name}.yaml", dump_config(tiny_config(changes)))
        jobs.append({"config": str(folder / f"{name}.yaml"), "out": str(folder / name), "alarm": name == "alarm"})
    write_json(folder / "jobs.json", jobs)
    script = Path(__file__).with_name("two_processes.py")
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script),
         str(folder / "jobs.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def alone(tiny_config: Callable[..., Any], out: Path, changes: dict[str, Any]) -> Path:
    from clinalign.workflows.tune import tune

    tune(tiny_config(changes), out)
    return out


def assert_same_rows(one: Path, other: Path, but: tuple[str, ...] = ()) -> None:
    for mine, theirs in zip(RunFolder(one).read_metrics(), RunFolder(other).read_metrics(), strict=True):
        assert set(mine) == set(theirs)
        for key, value in mine.items():
            if not key.startswith(("seconds/", "ratio/worst", "ratio/first", *but)):
                assert theirs[key] == pytest.approx(value, rel=1e-4, abs=LOSSES), key


def test_the_same_trajectory(two: Path, tiny_config: Callable[..., Any], tmp_path: Path) -> None:
    eight = alone(tiny_config, tmp_path / "eight", {**SMOOTH, "train.micro_batch": 8})
    one = alone(tiny_config, tmp_path / "one", {**SMOOTH, "train.micro_batch": 1, "rollout.batch_size": 3})
    others = [one, two / "equal"]
    weights, info = load_state(eight / "checkpoints" / "epoch_00002")
    moved = max(float(v.abs().max()) for n, v in weights.items() if n.startswith("weights/") and "lora_B" in n)
    assert moved > 1e-3  # B starts at zero: the tolerance is far below what was learned
    for other in others:
        found, other_info = load_state(other / "checkpoints" / "epoch_00002")
        for name, value in weights.items():
            if name.startswith(("weights/", "average/")):
                torch.testing.assert_close(found[name], value, rtol=0, atol=WEIGHTS)
        drift = torch.cat([(found[n] - v).flatten() for n, v in weights.items() if n.startswith("weights/")])
        assert abs(float(drift.mean())) < WEIGHTS / 20  # rounding has no preferred side
        assert other_info["evaluations"] == info["evaluations"]
        assert_same_rows(eight, other)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_the_same_in_two_processes(
    two: Path, tiny_config: Callable[..., Any], tmp_path: Path, rule: str
) -> None:
    one = alone(tiny_config, tmp_path / "run", {**TINY, "objective": RULES[rule]})
    (weights, info), (found, other_info) = (
        load_state(run / "checkpoints" / "epoch_00002") for run in (one, two / rule)
    )
    assert max(float(v.abs().max()) for n, v in weights.items() if n.startswith("weights/") and "lora_B" in n) > 1e-3
    assert weights.keys() == found.keys()
    for name, value in weights.items():
        if name.startswith(("weights/", "average/", "objective/")):
            torch.testing.assert_close(found[name], value, rtol=0, atol=WEIGHTS)
    assert other_info["evaluations"] == info["evaluations"]
    assert_same_rows(one, two / rule)


def test_a_reward_that_fails_in_one_process_is_masked_there(two: Path) -> None:
    # the failing process has no parts to gather: without care the other would wait for ever
    row = RunFolder(two / "blips").read_metrics()[1]  # after the first look
    assert row["reward/valid"] == 0.5
    assert row["reward/blips/half"] == pytest.approx(row["reward/mean"] / 2)
    assert row["network_evaluations_epoch"] == 16 * 4 + 8 * 4 * 3


def test_a_mistake_of_one_process_is_told_by_all(two: Path) -> None:
    told = {path.name: path.read_text(encoding="utf-8") for path in two.glob("*.txt")}
    assert told["equal.0.txt"] == told["equal.1.txt"] == "fine"
    assert told["gives-up.0.txt"] == told["gives-up.1.txt"] == "the server is gone"
    assert "occupied is not empty and holds no run" in told["occupied.0.txt"]
    assert told["occupied.0.txt"] == told["occupied.1.txt"]
    assert json.loads((two / "equal" / "manifest.json").read_text(encoding="utf-8"))["processes"] == 2


def test_the_guard_stops_all_processes(two: Path) -> None:
    # the second process neither looks nor judges: unless it is told, it waits in the next epoch for ever
    assert [(two / f"alarm.{rank}.txt").read_text(encoding="utf-8") for rank in (0, 1)] == ["fine", "fine"]
    run = RunFolder(two / "alarm")
    assert [row["epoch"] for row in run.read_metrics()] == [0, 1]
    assert json.loads(run.guard.read_text(encoding="utf-8"))["stopped"] is True
    assert (run.checkpoints / "epoch_00001").is_dir()
    assert run.model.is_dir()
