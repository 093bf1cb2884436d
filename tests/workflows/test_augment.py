"""The whole experiment on phantoms: plan, pictures, filter, arms, result, and going on with one."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clinalign import augment
from clinalign.augmentation.arms import ARMS
from clinalign.augmentation.cells import Problem
from clinalign.augmentation.learn import LearnSettings, Material, learn
from clinalign.augmentation.plan import PlanRules
from clinalign.cli.app import main
from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.generation.generator import Generator
from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.fit import Labelled
from clinalign.workflows.augment_result import arm_values, make_exam, result_entries
from clinalign.workflows.augment_settings import AugmentSettings
from clinalign.workflows.augment_summary import Statement, summarise

QUICK = AugmentSettings(
    rules=PlanRules(minimum=45, measurable=5, oversample=2.0),
    learn=LearnSettings(steps=10, batch_size=8, image_size=16),
    arms=("classical", "balanced", "tuned_balanced", "tstr_tuned"),
    seeds=1,
    every_class=6,
    pass_rate=1.0,
    fill_unmeasured=True,
    allow_reward_evaluator=True,
    resamples=20,
)


class Planted(Generator):
    """Hands out real images of split ``judge`` that show what the text asks for, in place of drawing any."""

    def __init__(self, data: Path, name: str) -> None:
        dataset = PreparedDataset.open(data)
        cases = dataset.cases("judge")
        self.by_class = {
            name: dataset.images([case for case in cases if case.attributes[name] == 1]) for name in ("MEL", "NV")
        }
        self.identity, self.image_size, self.asked = name, dataset.image_size, 0

    def encode_text(self, texts: Sequence[str]) -> Any:
        return SimpleNamespace(truncated=[False] * len(texts))

    @contextlib.contextmanager
    def anchor(self) -> Iterator[None]:
        yield

    def generate_batches(self, texts: Sequence[str], seeds: Sequence[int], *_: Any) -> Iterator[torch.Tensor]:
        self.asked += len(texts)
        pools = [self.by_class["MEL" if "(MEL)" in text else "NV"] for text in texts]
        yield torch.stack([pool[seed % len(pool)] for pool, seed in zip(pools, seeds, strict=True)])


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_dry_run_tells_the_plan_and_its_cost_and_writes_nothing(tiny: Any, tmp_path: Path) -> None:
    card = augment(tiny.run, tiny.data, tmp_path / "o", tiny.evaluator, tiny.model, QUICK, dry_run=True)
    cells = {row["cell"]: row for row in card["cells"]}
    mel = cells["MEL"]
    assert mel["rare"]
    assert mel["wanted"] == 45 - mel["real"]
    assert mel["candidates"] == 2 * mel["wanted"]
    assert not cells["NV"]["rare"]
    assert card["generators"] == ["tuned"]  # no arm asks for the base model
    assert card["pictures_of_each_generator"] == mel["candidates"] + 2 * 6
    # two steps, with guidance, as the run was tuned
    assert card["network_evaluations"] == card["pictures_of_each_generator"] * 2 * 2
    assert not (tmp_path / "o").exists()


def test_a_subgroup_of_which_prompts_do_not_speak_is_told(tiny: Any, tmp_path: Path) -> None:
    settings = replace(QUICK, subgroups=("sex",))
    card = augment(tiny.run, tiny.data, tmp_path / "o", tiny.evaluator, tiny.model, settings, dry_run=True)
    assert {row["cell"] for row in card["cells"]} == {f"{c},sex={s}" for c in ("MEL", "NV") for s in ("male", "female")}
    assert any(note.startswith("the prompts do not speak of sex") for note in card["notes"])
    by_artifact = replace(QUICK, subgroups=("hair",))  # prompts name hair
    card = augment(tiny.run, tiny.data, tmp_path / "o", tiny.evaluator, tiny.model, by_artifact, dry_run=True)
    assert not any("speak of" in note for note in card["notes"])


def test_a_cell_that_the_judge_does_not_know_is_refused_unless_asked(tiny: Any, tmp_path: Path) -> None:
    judge = AttributeClassifier(("MEL", "NV"), 16, "test_byobnet")
    judge.card = {"split": "judge", "dataset": PreparedDataset.open(tiny.data).fingerprint}
    judge.save(tmp_path / "judge")
    settings = replace(QUICK, classes=("hair",), fill_unmeasured=False, rules=PlanRules(minimum=1000))
    card = augment(tiny.run, tiny.data, tmp_path / "o", tmp_path / "judge", tiny.model, settings, dry_run=True)
    assert [(row["cell"], row["wanted"], row["refused"]) for row in card["cells"]] == [
        ("hair", 0, "the judge does not know hair")
    ]
    asked = replace(settings, fill_unmeasured=True)
    card = augment(tiny.run, tiny.data, tmp_path / "o", tmp_path / "judge", tiny.model, asked, dry_run=True)
    assert card["cells"][0]["wanted"] > 0
    assert "filled without a measure of fidelity, as asked: hair" in card["notes"]


@pytest.mark.slow
def test_the_whole_experiment_and_going_on_with_it(tiny: Any, tmp_path: Path) -> None:
    out, tuned, base = tmp_path / "o", Planted(tiny.data, "tuned"), Planted(tiny.data, "anchor")
    entries = augment(tuned, tiny.data, out, tiny.evaluator, base, QUICK)
    assert read(out / "augment.json") == entries
    for key in ("balanced/auroc", "change/tuned_balanced-balanced/auroc/cell=MEL", "images/tuned/acceptance/cell=MEL",
                "tstr_tuned/balanced_accuracy", "trts_tuned/auroc"):  # fmt: skip
        entry = entries[f"augment/{key}"]
        assert entry["ci95"][0] <= entry["ci95"][1]
        assert entry["n"] > 0
    details = read(out / "details.json")
    (cell,) = details["cells"]["tuned"]
    assert cell["used"] > 0
    table = list(csv.DictReader((out / "images.csv").open()))
    assert len(table) == cell["drawn"] == sum(cell["verdicts"].values())
    (folder,) = {row["folder"] for row in table}
    rows = list(csv.DictReader((out / "images" / "tuned" / folder / "metadata.csv").open()))
    assert {row["model"] for row in rows} == {"tuned"}
    train = {case.case_id: case for case in PreparedDataset.open(tiny.data).cases("train")}
    assert all(train[row["case_id"]].attributes["MEL"] == 1 for row in rows)
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "Augmentation report" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("data:image/png") > 8

    trained = out / "arms" / "tuned_balanced" / "seed_0.safetensors"
    drawn, before = tuned.asked, trained.stat().st_mtime_ns
    more = replace(QUICK, seeds=2, arms=(*QUICK.arms, "base_balanced"), real_images=False)
    again = augment(tuned, tiny.data, out, tiny.evaluator, base, more)
    assert tuned.asked == drawn  # what lies there is read, not drawn again
    assert base.asked == drawn
    assert len(again["augment/tuned_balanced/auroc"]["seeds"]) == 2
    assert again["augment/tuned_balanced/auroc"]["seeds"][0] == entries["augment/tuned_balanced/auroc"]["seeds"][0]
    # the two generators are one here: the same pictures, the same classifier
    assert again["augment/change/tuned_balanced-base_balanced/auroc"]["value"] == 0.0
    assert "real ones from the training split" not in (out / "report" / "index.html").read_text(encoding="utf-8")
    assert trained.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds an augmentation with another 'pass_rate'"):
        augment(tuned, tiny.data, out, tiny.evaluator, base, replace(QUICK, pass_rate=0.5))
    with pytest.raises(UserError, match="holds an augmentation with another 'model'"):
        augment(Planted(tiny.data, "other"), tiny.data, out, tiny.evaluator, base, QUICK)


def tinted(count: int, looks: Sequence[int | None], seed: int) -> torch.Tensor:
    """Return ``(count, 3, 16, 16)`` uint8 noise, each with one of ``looks``: a channel that is a little stronger."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.5 + 0.15 * torch.randn(count, 3, 16, 16, generator=generator)
    for row in range(count):
        channel = looks[row % len(looks)]
        if channel is not None:
            images[row, channel] += 0.12
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def labelled(common: torch.Tensor, rare: torch.Tensor) -> Labelled:
    labels = torch.tensor([[1.0, 0.0]] * len(common) + [[0.0, 1.0]] * len(rare))
    return Labelled(torch.cat([common, rare]), labels, torch.ones_like(labels).bool())


@pytest.mark.slow
def test_right_pictures_help_the_rare_class_and_mislabelled_ones_hurt() -> None:
    # The rare class is green or blue, and its few real images happen to be green. `tuned` draws the class as it is,
    # `base` draws what only the common class looks like, red, under the rare one's label.
    few, many, common, rare = 6, 150, (None, 0), (1, 2)
    nothing = torch.empty(0, 3, 16, 16, dtype=torch.uint8)
    train = labelled(tinted(many, common, 1), tinted(few, (1,), 2))
    right, wrong = (labelled(nothing, tinted(100, looks, 3)) for looks in (rare, (0,)))
    parts = (train, right, wrong)
    images = Labelled(*(torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels", "known")))
    strata = [("common", "common")] * many + [("rare", "rare")] * few
    added = {side: [(many + few + start + row, "rare") for row in range(100)] for side, start in
             (("tuned", 0), ("base", 100))}  # fmt: skip
    material = Material(images, strata, added, {})
    validation = labelled(tinted(60, common, 4), tinted(20, rare, 5))
    test = labelled(tinted(300, common, 6), tinted(150, rare, 7))
    problem = Problem(("common", "rare"), True)
    settings = LearnSettings(steps=60, batch_size=16, checks=3, augmentation="chest x-ray")
    answers = {
        name: [learn(ARMS[name], material, validation, {"test": test}, problem, settings, seed) for seed in range(5)]
        for name in ("balanced", "base_balanced", "tuned_balanced")
    }
    cases = [Case(str(row), "t", {"common": int(row < 300), "rare": int(row >= 300)}, str(row)) for row in range(450)]
    exam = make_exam(cases, problem, [], [])
    values = arm_values(answers, "test", exam, [case.case_id for case in cases], 200, 0)
    entries = {f"augment/{key}": entry for key, entry in result_entries(values, exam, 200, 0, {}).items()}
    helped = entries["augment/change/tuned_balanced-balanced/auroc/class=rare"]
    hurt = entries["augment/change/base_balanced-balanced/auroc/class=rare"]
    assert helped["ci95"][0] > 0
    assert hurt["ci95"][1] < 0
    details: Any = {"cells": {}, "plan": {"cells": []}, "fill_unmeasured": False, "seeds": 5, "notes": []}
    first = summarise(entries, details)[0]
    assert first.kind == "good"
    assert "“balanced + tuned images” against “classical, classes balanced”: better" in first.text
    swapped = {key.replace("base_balanced-balanced", "tuned_balanced-balanced"): entry for key, entry in
               entries.items() if "tuned_balanced-balanced" not in key}  # fmt: skip
    assert summarise(swapped, details)[0].kind == "bad"
    assert "worse" in summarise(swapped, details)[0].text


def change(value: float, low: float, high: float, n: int = 30) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": n}


def test_the_summary_names_the_cells_that_fall_and_what_is_not_filled() -> None:
    head = "augment/change/tuned_balanced-balanced"
    entries = {
        f"{head}/auroc": change(0.05, 0.02, 0.08),
        f"{head}/auroc/cell=MEL": change(0.06, 0.01, 0.1),
        f"{head}/auroc/cell=NV": change(-0.03, -0.05, -0.02),
        f"{head}/auroc/cell=DF": change(-0.02, -0.2, 0.1, 4),
        f"{head}/auroc/cell=rare": change(-0.5, -0.6, -0.4),  # a pool is no cell
    }
    refused = [{"cell": "DF", "refused": "the judge does not know DF"}]
    side = [{"cell": "MEL", "drawn": 100, "used": 0, "not_filled": "no picture passed the filter",
             "verdicts": {"not as asked": 60, "near a training image": 1, "near another picture": 2}}]  # fmt: skip
    details = {
        "cells": {"base": side}, "plan": {"cells": refused}, "fill_unmeasured": False, "seeds": 5, "notes": ["a note"],
    }  # fmt: skip
    found = summarise(entries, details)
    assert found[0] == Statement(
        "good", "“balanced + tuned images” against “classical, classes balanced”: better. Overall AUROC +5.0 points "
        "[2.0, 8.0]."
    )  # fmt: skip
    assert found[1].kind == "bad"
    assert "2 of 3 cells fall by more than one point of AUROC: NV -3.0 points [-5.0, -2.0] (n 30), DF" in found[1].text
    assert found[1].text.endswith("beyond chance: NV.")
    assert [each.text for each in found[2:]] == [
        "Of 100 base pictures the judge passed 40 %, 3 of these were near copies, and 0 were used.",
        "Not filled: DF (the judge does not know DF); MEL by base (no picture passed the filter).",
        "A note.",
    ]
    fine = {key: change(0.0, -0.005, 0.02) for key in entries}
    told = [each.text for each in summarise(fine, details)]
    assert any(each.endswith("no cell falls by more than one point of AUROC.") for each in told)


def test_mistakes(tiny: Any, tmp_path: Path) -> None:
    def run(settings: AugmentSettings = QUICK, **given: Any) -> Any:
        place = {"model": tiny.run, "data": tiny.data, "out": tmp_path / "o", "evaluator": tiny.evaluator,
                 "base": tiny.model}  # fmt: skip
        return augment(**{**place, **given}, settings=settings)

    with pytest.raises(UserError, match="augment needs --evaluator DIR"):
        run(evaluator=None)
    with pytest.raises(UserError, match="there is no such arm, did you mean 'tuned'"):
        run(replace(QUICK, arms=("tunde",)))
    with pytest.raises(UserError, match="the evaluator is the reward itself"):
        run(replace(QUICK, allow_reward_evaluator=False), evaluator=tiny.reward)
    with pytest.raises(UserError, match="the judge was trained on split 'train', whose images it would know"):
        run(replace(QUICK, allow_reward_evaluator=False), evaluator=tiny.reward, model=str(tiny.model))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "words.txt").write_text("words")
    with pytest.raises(UserError, match="is not empty and holds no augmentation"):
        run(out=tmp_path / "thesis")
    with pytest.raises(UserError, match="is a file: choose a folder"):
        run(out=tmp_path / "thesis" / "words.txt")
    small = Planted(tiny.data, "small")
    small.image_size = 8
    with pytest.raises(UserError, match=r"small draws 8 px and .* has 16 px: prepare the data with --image-size 8"):
        run(model=small, base=Planted(tiny.data, "other"))
    for wrong, message in (({"seeds": 0}, "--seeds 0"), ({"pass_rate": 0.0}, "--pass-rate 0"),
                           ({"every_class": -1}, "--every-class -1")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            replace(QUICK, **wrong)
    assert not (tmp_path / "o").exists()


def test_the_command_prints_the_plan(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"model": tiny.run, "base": tiny.model, "data": tiny.data, "evaluator": tiny.evaluator, "out": tmp_path}
    words = ["augment", *(word for name, place in places.items() for word in (f"--{name}", str(place)))]
    words += ["--minimum", "45", "--fill-unmeasured", "--dry-run"]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--allow-reward-evaluator"])
    told = capsys.readouterr().out
    assert "rare: fewer than 45 real training images" in told
    assert "network evaluations" in told
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--arm", "tunde"])
    assert "did you mean 'tuned'" in capsys.readouterr().err
