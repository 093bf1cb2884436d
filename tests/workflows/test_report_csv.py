"""The numbers of a report as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clinalign.core.errors import UserError
from clinalign.workflows.report import export_report

METRICS: dict[str, dict[str, Any]] = {
    "base/fidelity/fid": {"value": 33.94683189613221, "ci95": [30.1, 38.7], "n": 300, "extractor": "domain:x:1"},
    "tuned/fidelity/fid": {"value": 1 / 3, "ci95": [0.1, 2 / 3], "n": 300, "extractor": "domain:x:1"},
    "tuned/subgroup/site=head/neck/alignment/attribute_accuracy": {
        "value": 0.1 + 0.2, "ci95": [0.2, 0.4], "n": 41, "evaluator": "classifier:a, b",
    },
    "change/fid": {"value": -1e-17, "ci95": [-2e-17, 3.0]},
    "tuned/privacy/membership_auc": {"value": None, "n": 3},
}  # fmt: skip


def make_run(folder: Path, metrics: dict[str, Any] | None) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "reward/mean": 0.5}\n')
    if metrics is not None:
        (folder / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_every_number_comes_back_from_pandas_to_the_last_digit(tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    written = export_report(make_run(tmp_path / "run", METRICS), csv=file)
    assert written["csv"] == file
    table = pd.read_csv(file, float_precision="round_trip", keep_default_na=True)
    assert list(table) == [
        "run", "prefix", "subgroup", "family", "name", "value", "low", "high", "n", "measured_with",
    ]  # fmt: skip
    assert len(table) == len(METRICS)
    text = table.fillna({"prefix": "", "subgroup": "", "family": "", "measured_with": ""})
    for row, (key, entry) in zip(text.itertuples(), METRICS.items(), strict=True):
        subgroup = f"subgroup/{row.subgroup}" if row.subgroup else ""
        assert "/".join(part for part in (row.prefix, subgroup, row.family, row.name) if part) == key
        assert row.measured_with == (entry.get("evaluator") or entry.get("extractor") or "")
        assert row.run == "run"
        if entry["value"] is None:
            assert pd.isna(row.value)  # undefined is empty, never 0
        else:
            assert row.value == entry["value"]
        assert [row.low, row.high] == entry["ci95"] if "ci95" in entry else pd.isna(row.low)
        assert row.n == entry["n"] if "n" in entry else pd.isna(row.n)


def test_one_set_of_images_has_its_own_prefix(tmp_path: Path) -> None:
    entry = {"value": 1.5, "ci95": [1.0, 2.0], "n": 9}
    (tmp_path / "metrics.json").write_text(json.dumps({"fidelity/fid": entry, "real/fidelity/fid": entry}))
    export_report(tmp_path, csv=tmp_path / "numbers.csv")
    table = pd.read_csv(tmp_path / "numbers.csv")
    assert list(table["prefix"]) == ["images", "real"]


def test_runs_of_several_seeds_stand_one_below_the_other(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"run{seed}", METRICS) for seed in (0, 1)]
    (runs[1] / "config.yaml").write_text("seed: 1\n")
    export_report(runs[0], also=[runs[1]], csv=tmp_path / "numbers.csv")
    assert list(pd.read_csv(tmp_path / "numbers.csv")["run"].value_counts()) == [5, 5]


def test_without_numbers_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run has no numbers to export: it was not evaluated"):
        export_report(make_run(tmp_path / "run", None), csv=tmp_path / "numbers.csv")
    assert not (tmp_path / "numbers.csv").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", METRICS)
    with pytest.raises(UserError, match="cannot write"):
        export_report(run, csv=run / "config.yaml" / "numbers.csv")
