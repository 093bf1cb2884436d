"""The benchmarks run, and the table of the efficiency benchmark is what its curves say."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def efficiency(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("efficiency", BENCHMARKS / "efficiency.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("settings", None)


def curve(*accuracies: float) -> list[dict[str, float]]:
    return [
        {"epoch": k, "network_evaluations": 100 * k, "seconds": float(k), "accuracy": accuracy, "fid": 30.0 - k}
        for k, accuracy in enumerate(accuracies)
    ]


def test_the_target_is_where_ddpo_ends_and_the_first_row_above_it_counts(efficiency: Any) -> None:
    curves = {
        "ddpo": {"0": curve(0.5, 0.6, 0.8), "1": curve(0.5, 0.7, 0.9)},
        "awm": {"0": curve(0.5, 0.86, 0.8), "1": curve(0.5, 0.6, 0.7)},
    }
    found = efficiency.summarise(curves, None)
    assert found["target"] == pytest.approx(0.85)
    assert found["rules"]["ddpo"]["reached"] == "1 of 2"
    assert found["rules"]["awm"]["network_evaluations"] == {"mean": 100, "each": [100]}
    assert found["rules"]["awm"]["fid"]["mean"] == 29.0
    assert "network_evaluations" not in efficiency.summarise(curves, 0.95)["rules"]["awm"]


def test_every_rule_of_the_benchmarks_is_a_config(efficiency: Any, tmp_path: Path) -> None:
    parts = efficiency.Parts(*(tmp_path / name for name in ("data", "base", "reward", "evaluator")))
    for rule in efficiency.RULES:
        config = efficiency.config_of(rule, parts, 3, {"train": {"epochs": 2}})
        assert (config.objective.name, config.seed, config.train.epochs) == (rule, 3, 2)
        assert config.train.learning_rate == efficiency.RULES[rule]["train"]["learning_rate"]


@pytest.mark.slow
def test_the_evaluation_benchmark_runs_at_toy_size() -> None:
    command = [sys.executable, str(BENCHMARKS / "evaluation.py"), "--tiny", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)["images"]["24"]
    assert set(found["parts"]) >= {"fidelity", "alignment", "diversity", "subgroups"}
    assert 0 < sum(found["parts"].values()) <= found["processor_seconds"] + 0.5
    assert found["over_imports_mib"] > 0
    assert found["entries"] > 20


@pytest.mark.slow
def test_the_n_sweep_runs_at_toy_size(tiny: Any, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "n_sweep.py"), "--tiny", "--data", str(tiny.data), "--json"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)["n"]
    assert len(found["8"]["frd"]) == 2
    assert sum(found["8"]["fid"]) > sum(found["12"]["fid"]) > 0
    assert "| 12 |" in (tmp_path / "n_sweep.md").read_text()
    assert (tmp_path / "n_sweep.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_real_size_benchmark_runs_at_toy_size() -> None:
    command = [sys.executable, str(BENCHMARKS / "real_size.py"), "--tiny", "--images", "2", "--steps", "2"]
    done = subprocess.run([*command, "--repeats", "1", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["images_per_second"]["sampled"] > 0
    assert 0.1 < found["over_bare_loop"]["sampling"] < 10
