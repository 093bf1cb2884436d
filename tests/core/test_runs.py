from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clinalign.core.checkpoint import save_state
from clinalign.core.config import TuneConfig, load_config, parse_config
from clinalign.core.errors import UserError
from clinalign.core.runs import RunFolder


def config(**sections: Any) -> TuneConfig:
    return parse_config(
        {"data": {"path": "d"}, "generator": {"model": "m"}, "rewards": [{"name": "attributes"}], **sections}
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of four epochs with a checkpoint of the second, killed while it wrote a row."""
    run = RunFolder(tmp_path / "run")
    assert run.open(config(), resume=False) is None
    for epoch in (1, 2, 3, 4):
        run.append_metrics({"epoch": epoch, "reward/mean": epoch / 10})
    save_state(run.checkpoints / "epoch_0002", {}, {})
    with run.metrics.open("a") as stream:
        stream.write('{"epoch": 5, "reward/me')
    return run


def test_a_fresh_run_writes_its_whole_config(tmp_path: Path) -> None:
    for resume in (False, True):  # nothing to go on with is no mistake
        run = RunFolder(tmp_path / f"run{resume}")
        assert run.open(config(), resume) is None
        assert load_config(run.config) == config()
        assert run.read_metrics() == []


def test_rows_are_one_json_object_a_line_and_a_torn_one_is_left_out(run: RunFolder) -> None:
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2, 3, 4]
    assert json.loads(run.metrics.read_text().splitlines()[0]) == {"epoch": 1, "reward/mean": 0.1}


def test_resumed_it_goes_on_from_the_checkpoint(run: RunFolder) -> None:
    assert run.open(config(), resume=True) == run.checkpoints / "epoch_0002"
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2]  # 3 and 4 will be written again
    run.append_metrics({"epoch": 3})
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2, 3]  # the torn line is gone


def test_killed_before_its_first_checkpoint_it_begins_again(run: RunFolder) -> None:
    for file in (run.checkpoints / "epoch_0002").iterdir():
        file.unlink()
    assert run.open(config(), resume=True) is None
    assert run.read_metrics() == []


def test_a_run_is_not_started_twice(run: RunFolder) -> None:
    with pytest.raises(UserError, match=r"holds a run: add --resume to go on with it, or choose another --out"):
        run.open(config(), resume=False)
    assert [row["epoch"] for row in run.read_metrics()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"seed": 1}, "seed"),
        ({"train": {"learning_rate": 0.1}}, "train.learning_rate"),
        ({"generator": {"model": "m", "adapter": {"rank": 4}}}, "generator.adapter.rank"),
        ({"rewards": [{"name": "attributes", "weight": 2.0}]}, "rewards"),
        ({"rollout": {"steps": 5, "eta": 0.5, "batch_size": 3}}, "rollout.steps, rollout.eta"),
    ],
)
def test_another_run_is_refused_naming_what_differs(run: RunFolder, sections: dict[str, Any], names: str) -> None:
    before = run.config.read_bytes()
    with pytest.raises(UserError, match=f"holds another run: {names} differ; choose another --out"):
        run.open(config(**sections), resume=True)
    assert run.config.read_bytes() == before
    assert len(run.read_metrics()) == 4


def test_how_long_and_where_it_runs_may_change(run: RunFolder) -> None:
    changed = config(
        train={"epochs": 99, "device": "cpu", "micro_batch": 2, "checkpoint_every": 1},
        rollout={"batch_size": 4},
        evaluate={"every": 3, "prompts": 2},
    )
    assert run.open(changed, resume=True) is not None
    assert load_config(run.config) == changed


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(UserError, match=r"is not empty and holds no run: choose another --out"):
            RunFolder(tmp_path).open(config(), resume)
    with pytest.raises(UserError, match=r"is a file: choose a folder with --out"):
        RunFolder(tmp_path / "thesis.doc").open(config(), resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_killed_while_it_wrote_its_config_it_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.123.tmp").write_text("seed: 0\nda")
    assert RunFolder(tmp_path).open(config(), resume=True) is None
