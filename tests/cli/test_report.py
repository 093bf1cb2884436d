"""``clinalign report``: where the page lies, and what a mistake looks like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clinalign.cli.app import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["report", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_page_is_written_and_its_path_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "reward/mean": 0.5}\n')
    page = tmp_path / "report" / "index.html"
    assert run(capsys, str(tmp_path)) == (0, f"{page}\n", "")
    assert page.read_text().startswith("<!doctype html>")
    status, out, _ = run(capsys, str(tmp_path), "--no-real-images", "--json")
    assert (status, json.loads(out)) == (0, {"report": str(page)})


def test_a_folder_that_is_no_run_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, str(tmp_path))
    assert (status, out) == (2, "")
    assert err.startswith(f"clinalign: error: {tmp_path} is not a run")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_table_and_card_are_written_beside_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        folder = tmp_path / f"run{seed}"
        (folder / "evaluation").mkdir(parents=True)
        (folder / "model").mkdir()
        (folder / "config.yaml").write_text(f"seed: {seed}\n")
        (folder / "metrics.jsonl").write_text('{"epoch": 1, "reward/mean": 0.5}\n')
        entries = {f"{side}/fidelity/fid": {"value": 9.0, "ci95": [8.0, 10.0], "n": 50} for side in ("base", "tuned")}
        (folder / "evaluation" / "metrics.json").write_text(json.dumps(entries))
    one, two = str(tmp_path / "run0"), str(tmp_path / "run1")
    page, table = f"{one}/report/index.html", f"{tmp_path}/numbers.csv"
    status, out, _ = run(capsys, one, "--also", two, "--csv", table, "--card", "--json")
    assert (status, json.loads(out)) == (0, {"report": page, "csv": table, "card": f"{one}/model/README.md"})
    assert len(Path(table).read_text().splitlines()) == 1 + 2 * 2
    status, out, err = run(capsys, one, "--also", one)
    assert (status, out) == (2, "")
    assert err.startswith(f"clinalign: error: --also {one} has seed 0")
    assert err.count("\n") == 1
