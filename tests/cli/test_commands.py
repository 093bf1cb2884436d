"""The commands are thin: words in, one call, lines or one JSON object out, mistakes as status 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinalign.cli import app as program
from clinalign.core.errors import UserError

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


COMMANDS = (["train"], ["train", "base"], ["train", "reward"], ["reward"], ["reward", "check"], ["sample"],
            ["evaluate"], ["doctor"])  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_a_success(run: Run, words: list[str]) -> None:
    status, out, err = run(*words, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: clinalign {' '.join(words)}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "--data", "d", "--out", "o"], "needs either --model"),
        (["evaluate", "--model", "m", "--data", "d", "--out", "o"], "needs --evaluator DIR"),
        (["evaluate", "--base", "b", "--data", "d", "--out", "o"], "--base compares two generators"),
        (["evaluate", "--model", "m", "--out", "o"], "--data"),
        (["sample", "--model", "m", "--prompts", "p.csv", "--out", "o"], "p.csv does not exist"),
        (["train", "base", "--data", "d", "--out", "o"], "d: no such folder"),
        (["train", "base", "--data", "d", "--out", "o", "--precision", "fp8"], "fp8"),
        (["train", "base", "--data", "d", "--out", "o", "--steps", "0"], "--steps"),
        (["train", "reward", "atributes", "--data", "d", "--out", "o"], "did you mean 'attributes'"),
        (["train", "reward", "attributes", "--data", "d", "--out", "o", "--set", "epochs=3"], "write it as --epochs"),
        (["train", "reward", "attributes", "--data", "d", "--out", "o", "--set", "rate=3"], "no setting 'rate'"),
        (["reward", "check", "brightnes", "--data", "d"], "did you mean 'brightness'"),
        (["reward", "check", "brightness", "--data", "d", "--count", "1"], "--count"),
        (["evaluat"], "evaluat"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert err.startswith("clinalign: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_several_problems_are_several_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import clinalign.workflows.doctor as workflow

    def refuse() -> None:
        raise UserError("first problem\nsecond   problem\n")

    monkeypatch.setattr(workflow, "doctor", refuse)
    status, _, err = run("doctor")
    assert status == 2
    assert err == "clinalign: error: first problem\nclinalign: error: second problem\n"


def test_sample_then_evaluate_the_images(run: Run, tiny: Any, tmp_path: Path) -> None:
    from clinalign.data.prepared import PreparedDataset

    cases = PreparedDataset.open(tiny.data).cases("test")
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("case_id,text\n" + "".join(f'{case.case_id},"{case.text}"\n' for case in cases[:14]))
    words = ("sample", "--model", tiny.run, "--prompts", prompts, "--seed", 3, "--steps", 1, "--guidance", 1)
    status, out, _ = run(*words, "--out", tmp_path / "a")
    assert status == 0
    assert out == f"14 synthetic images in {tmp_path / 'a'} (14 network evaluations)\n"
    status, out, _ = run(*words, "--out", tmp_path / "b", "--json")
    assert json.loads(out)["images"] == 14
    judged = ("--data", tiny.data, "--evaluator", tiny.evaluator, "--no-report")
    status, out, _ = run("evaluate", "--images", tmp_path / "a", "--out", tmp_path / "e", *judged)
    assert status == 0
    assert out.startswith("alignment/attribute_accuracy ")
    assert out.endswith(f"written to {tmp_path / 'e'}\n")


def test_evaluate_prints_metrics_as_one_object(run: Run, tiny: Any, tmp_path: Path) -> None:
    words = ("--model", tiny.run, "--data", tiny.data, "--evaluator", tiny.evaluator, "--cases", 12, "--steps", 1)
    status, out, _ = run("evaluate", *words, "--out", tmp_path / "one", "--attribute", "hair", "--json")
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert not [key for key in json.loads(out) if key.endswith("/ink")]
    assert (tmp_path / "one" / "report" / "index.html").is_file()
    status, out, _ = run("evaluate", *words, "--out", tmp_path / "two", "--base", tiny.run, "--no-report")
    assert status == 0
    for key in ("base/fidelity/fid", "tuned/fidelity/fid", "real/fidelity/fid", "change/diversity", "change/fid"):
        assert f"\n{key} " in out


def test_train_base_passes_its_options_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import clinalign.workflows.train_base as workflow

    given = {}

    def note(data: Path, out: Path, settings: workflow.BaseSettings) -> dict[str, Any]:
        given.update(data=data, out=out, settings=settings)
        return {"cases": 3, "loss": 0.5, "seconds": {"total": 1.0}}

    monkeypatch.setattr(workflow, "train_base", note)
    status, out, _ = run(
        "train", "base", "--data", "d", "--out", "o", "--from", "m", "--steps", 9, "--precision", "bf16"
    )
    assert (status, out) == (0, "base generator in o: 3 cases, loss 0.5000, 1 s\n")
    assert given["settings"] == workflow.BaseSettings(from_model="m", steps=9, precision="bf16")
    # what is not given is left to the function, so that its defaults are stated once
    run("train", "base", "--data", "d", "--out", "o")
    assert given["settings"] == workflow.BaseSettings()


def test_train_and_check_a_reward(run: Run, tiny: Any, tmp_path: Path) -> None:
    words = ("train", "reward", "attributes", "--data", tiny.data, "--backbone", "test_byobnet", "--epochs", 1)
    status, out, _ = run(*words, "--out", tmp_path / "r", "--set", "batch_size=16", "--image-size", 16)
    assert status == 0
    assert out.splitlines()[-1] == f"next: clinalign reward check {tmp_path / 'r'} --data {tiny.data}"
    card = json.loads((tmp_path / "r" / "card.json").read_text())
    assert (card["fit"]["epochs"], card["fit"]["batch_size"]) == (1, 16)
    status, out, err = run("reward", "check", tmp_path / "r", "--data", tiny.data)
    assert status == 2  # one epoch on a few phantoms makes no reward
    assert "did not pass" in out
    assert err.startswith("clinalign: ")
    status, out, _ = run("reward", "check", "brightness", "--data", tiny.data, "--json")
    assert (status, json.loads(out)["passed"]) == (0, True)


def test_doctor_says_what_is_there_and_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import clinalign.workflows.doctor as workflow

    status, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert found["versions"]["torch"]
    assert found["devices"]["cpu"]["bf16_is_fast"] in (True, False)
    assert {"path", "free_gib", "offline"} == found["cache"].keys()
    monkeypatch.setitem(workflow.EXTRAS, "moon", ("no_such_module", "a trip"))
    monkeypatch.setattr(
        workflow, "_requirements", lambda: ["torch>=99", "no-such-library>=1", "absent; extra == 'dev'"]
    )
    status, out, err = run("doctor")
    assert status == 2
    assert "extra moon (a trip): not installed: pip install 'clinalign[moon]'" in out
    assert "torch is " in err
    assert "no-such-library is missing: pip install 'no-such-library>=1'" in err
    assert "absent" not in err


def test_doctor_names_the_place_of_models_that_does_not_exist_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from clinalign.workflows.doctor import _cache

    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere/at/all")
    # other programs write to the disk meanwhile
    assert _cache()["free_gib"] == pytest.approx(shutil.disk_usage("/").free / 2**30, abs=5)
