from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clinalign.cli import app as program

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the program and return status, standard output, standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            program.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def one_line(result: tuple[int, str, str]) -> str:
    """Assert a user's mistake: status 2, nothing on standard output, one line on standard error; return that line."""
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.startswith("clinalign: error: ")
    assert err.count("\n") == 1
    return err


def test_prepare_then_check(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("data", "prepare", "phantom-skin", "--out", tmp_path / "d", "--image-size", 16, "--cases", 20)
    assert status == 0
    assert out.startswith(f"prepared 20 cases of phantom-skin at 16 pixels in {tmp_path / 'd'}\nsplits: train ")
    status, out, _ = run("data", "check", tmp_path / "d")
    assert status == 0
    assert "20 cases, no error" in out


def test_json_is_one_object_on_standard_output(run: Run, tmp_path: Path) -> None:
    words = ("--image-size", 16, "--cases", 20, "--set", "prevalence.hair=1", "--json")
    status, out, _ = run("data", "prepare", "phantom-skin", "--out", tmp_path / "d", *words)
    made = json.loads(out)
    assert status == 0
    assert made["source"] == "phantom-skin"
    assert made["settings"] == {"prevalence.hair": 1}
    assert made["attribute_counts"]["train"]["hair"][1] == 0
    status, out, _ = run("data", "check", tmp_path / "d", "--json")
    assert status == 0
    assert json.loads(out)["ok"] is True


def test_fractions(run: Run, tmp_path: Path) -> None:
    words = (
        "data",
        "prepare",
        "phantom-skin",
        "--out",
        tmp_path / "d",
        "--image-size",
        16,
        "--cases",
        20,
        "--fractions",
    )
    status, out, _ = run(*words, "0.5,0,0,0.5")
    assert status == 0
    assert "splits: train 10, validation 0, judge 0, test 10" in out
    assert "write 4 numbers" in one_line(run(*words, "0.5,0.5"))
    assert "write 4 numbers" in one_line(run(*words, "a,b,c,d"))
    assert "must sum to 1" in one_line(run(*words, "0.5,0,0,0.6"))


def test_problems_found_by_check_are_one_line_each_and_status_2(run: Run, tmp_path: Path) -> None:
    run("data", "prepare", "phantom-skin", "--out", tmp_path / "d", "--image-size", 16, "--cases", 20)
    (tmp_path / "d" / "images" / "0000003.png").unlink()
    (tmp_path / "d" / "images" / "0000004.png").write_bytes(b"")
    status, out, err = run("data", "check", tmp_path / "d")
    errors = [line for line in err.splitlines() if line.startswith("clinalign: error: ")]
    assert status == 2
    assert out == ""
    assert errors == [
        "clinalign: error: image is missing: case 'phantom-skin-000003'",
        "clinalign: error: image is unreadable: case 'phantom-skin-000004'",
    ]
    status, out, _ = run("data", "check", tmp_path / "d", "--json")
    assert status == 2
    assert len(json.loads(out)["errors"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dta"], "No such command 'dta'"),
        (["data", "prepar"], "No such command 'prepar'"),
        (["data", "prepare"], "Missing argument 'SOURCE'"),
        (["data", "prepare", "phantom-skin"], "Missing option '--out'"),
        (["data", "prepare", "phantom-skin", "--out", "OUT", "--bogus"], "No such option: --bogus"),
        (["data", "prepare", "phantom-skin", "--out", "OUT", "--image-size", "big"], "'--image-size'"),
        (["data", "prepare", "phantom-skin", "--out", "OUT", "--image-size", "65"], "did you mean 64?"),
        (["data", "prepare", "phantom-skim", "--out", "OUT"], "did you mean 'phantom-skin'?"),
        (["data", "prepare", "ham10000", "--out", "OUT"], "--root DIR"),
        (["data", "prepare", "ham10000", "--out", "OUT", "--root", "nowhere"], "--root nowhere: no such folder"),
        (["data", "prepare", "phantom-skin", "--out", "OUT", "--set", "hair"], "write it as name=value"),
        (["data", "check", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in one_line(run(*words))
    assert list(tmp_path.iterdir()) == []


def test_help_and_version_are_successes(run: Run) -> None:
    for words in (
        [],
        ["--help"],
        ["data"],
        ["data", "--help"],
        ["data", "prepare", "--help"],
        ["data", "check", "--help"],
    ):
        status, out, err = run(*words)
        assert (status, err) == (0, "")
        assert out.startswith("Usage: clinalign")
    assert run("--version")[0] == 0


def test_an_interruption_is_status_130_and_a_short_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import clinalign.workflows.prepare as workflow

    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "prepare", interrupt)
    status, out, err = run("data", "prepare", "phantom-skin", "--out", "x")
    assert (status, out) == (130, "")
    assert err.strip() == "clinalign: interrupted"


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import clinalign.workflows.prepare as workflow

    def fail(*args: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(workflow, "prepare", fail)
    with pytest.raises(ZeroDivisionError):
        program.main(["data", "prepare", "phantom-skin", "--out", "x"])


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    code = (
        "import sys, clinalign.cli.app; print([m for m in ('torch', 'pandas', 'pyarrow', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
