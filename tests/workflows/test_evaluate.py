"""Evaluation from cases to files, on a tiny world; what the numbers mean is tested where they are computed."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.generation.generator import Generator
from clinalign.workflows.evaluate import evaluate, evaluate_pair
from clinalign.workflows.evaluation_cases import judged_attributes, select_cases
from clinalign.workflows.evaluation_changes import change_entries
from clinalign.workflows.evaluation_drawn import _few_repeat
from clinalign.workflows.evaluation_measure import (
    DiversitySet,
    Instruments,
    Measured,
    real_prompt_ids,
    shared_prompt_rows,
)
from clinalign.workflows.evaluation_setup import EvaluateSettings

QUICK = EvaluateSettings(cases=14, resamples=20, device="cpu", report=False)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# --- which cases, and what they are judged on


def test_rare_prompts_come_first_and_each_case_once() -> None:
    cases = [Case(f"c{i}", "common", {"hair": 1}) for i in range(20)] + [Case("r", "rare", {"hair": 0})]
    chosen = select_cases(cases, 5, 0, ["hair"])
    assert Counter(case.text for case in chosen) == {"common": 4, "rare": 1}
    assert {case.text for case in chosen[:2]} == {"common", "rare"}
    assert len({case.case_id for case in select_cases(cases, 99, 0)}) == 21
    assert select_cases(cases, 9, 0)[:5] == select_cases(cases, 5, 0)  # a longer choice goes on from a shorter one
    assert select_cases(cases, 5, 1) != select_cases(cases, 5, 0)


def test_only_cases_whose_attributes_are_known() -> None:
    cases = [Case("a", "x", {"hair": None, "ink": 1}), Case("b", "x", {"hair": 0, "ink": 1})]
    assert [case.case_id for case in select_cases(cases, 9, 0, ["hair", "ink"])] == ["b"]
    with pytest.raises(UserError, match="none of 2 cases knows all of hair, ruler: judge fewer attributes"):
        select_cases(cases, 9, 0, ["hair", "ruler"])


def test_a_picture_is_judged_on_what_its_text_says_and_the_evaluator_sees(tiny: Any) -> None:
    dataset = PreparedDataset.open(tiny.data)
    judged, left_out = judged_attributes(dataset, ["hair", "dark_corner", "MEL"])
    assert judged == ("hair", "MEL")
    assert left_out["dark_corner"] == "the texts do not speak of it"
    assert left_out["ink"] == "the evaluator does not see it"
    assert judged_attributes(dataset, ["hair", "dark_corner"], ["dark_corner"])[0] == ("dark_corner",)
    with pytest.raises(UserError, match="no attribute 'hare'; did you mean 'hair'"):
        judged_attributes(dataset, ["hair"], ["hare"])
    with pytest.raises(UserError, match="evaluator does not see attribute 'ink'"):
        judged_attributes(dataset, ["hair"], ["ink"])
    with pytest.raises(UserError, match="nothing to judge"):
        judged_attributes(dataset, ["Pneumonia"])


def test_diversity_looks_at_a_few_images_of_each_shared_prompt() -> None:
    assert shared_prompt_rows(["a", "b", "a", "c", "b"]) == [0, 1, 2, 4]
    assert len(shared_prompt_rows(["a"] * 50)) == 8
    lesions = [Case("1", "x", group_id="g"), Case("2", "x", group_id="g"), Case("3", "x", group_id="h")]
    ids = real_prompt_ids(lesions)
    assert ids[0] == ids[2] != ids[1]  # two photographs of one lesion are no variety


def test_images_for_diversity_alone_are_drawn_only_where_texts_hardly_repeat() -> None:
    reports = [Case(str(i), f"report {i}") for i in range(40)]
    extra = _few_repeat(reports)
    assert Counter(Counter(case.text for case in extra).values()) == {8: 16}
    assert _few_repeat([*reports[:16], *reports[:16]]) == []
    assert _few_repeat([Case("1", "x"), Case("2", "x"), Case("3", "y"), Case("4", "y")]) == []


# --- one generator


@pytest.fixture(scope="module")
def one(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "out"
    settings = replace(QUICK, keep_images=None, report=True)
    assert evaluate(tiny.data, out, tiny.evaluator, model=tiny.run, settings=settings) == read(out / "metrics.json")
    return out


def test_metrics_are_flat_with_the_real_ceiling_beside(one: Path) -> None:
    metrics = read(one / "metrics.json")
    for key in ("fidelity/fid", "alignment/attribute_accuracy", "alignment/apr", "diversity/ms_ssim"):
        for entry in (metrics[key], metrics[f"real/{key}"]):
            assert {"value", "ci95", "n"} <= entry.keys()
    assert metrics["alignment/attribute_accuracy"]["n"] == 14
    assert not [key for key in metrics if "dark_corner" in key]


def test_evaluation_json_says_with_what_and_from_what(tiny: Any, one: Path) -> None:
    facts, dataset = read(one / "evaluation.json"), PreparedDataset.open(tiny.data)
    assert facts["dataset"]["fingerprint"] == dataset.fingerprint
    assert facts["evaluator"]["split"] == "judge"
    assert facts["sampler"] == {"name": "ddim", "steps": 2, "guidance": 1.5, "eta": 0.5}  # the run's own
    drawn = facts["model"]["images"] + facts["model"]["extra_images_for_diversity"]
    assert facts["model"]["network_evaluations"] == drawn * 2 * 2  # two steps, guidance counts twice
    assert facts["notes"] == []
    assert str(tiny.data) not in json.dumps(facts)  # it may be sent on


def test_images_say_that_they_are_synthetic_and_come_from_their_case_alone(tiny: Any, one: Path) -> None:
    rows = list(csv.DictReader((one / "images" / "metadata.csv").open()))
    assert len(rows) == 14
    assert rows[3]["seed"] == str(derive_seed(0, "evaluate", rows[3]["case_id"], 0))
    with Image.open(one / "images" / rows[3]["file_name"]) as picture:
        assert picture.text["synthetic"] == "true"
        assert picture.text["seed"] == rows[3]["seed"]
        assert picture.text["model"] == rows[3]["model"] == Generator.load(tiny.run).identity
        assert picture.text["tool"].startswith("clinalign ")


def test_the_report_is_built(one: Path) -> None:
    assert (one / "report" / "index.html").is_file()


def test_batch_size_is_no_result_and_an_earlier_evaluation_is_replaced(tiny: Any, one: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", replace(QUICK, batch_size=5, keep_images=3)
    for _ in range(2):
        again = evaluate(tiny.data, out, tiny.evaluator, model=tiny.run, settings=settings)
    # float32 sums are taken in another order in another batch; features move by about 1e-6
    before = read(one / "metrics.json")["fidelity/kid"]["value"]
    assert again["fidelity/kid"]["value"] == pytest.approx(before, abs=1e-4)
    assert len(list((out / "images").glob("*.png"))) == 3


def test_images_in_a_folder_measure_the_same_as_the_generator_that_drew_them(
    tiny: Any, one: Path, tmp_path: Path
) -> None:
    entries = evaluate(tiny.data, tmp_path / "out", tiny.evaluator, images=one / "images", settings=QUICK)
    before = read(one / "metrics.json")["alignment/auroc"]
    assert entries["alignment/auroc"]["n"] == before["n"]
    # 8-bit rounding may swap two probabilities that almost tie
    assert entries["alignment/auroc"]["value"] == pytest.approx(before["value"], abs=0.1)
    assert "no reward is known" in read(tmp_path / "out" / "evaluation.json")["notes"][0]


def test_images_named_by_text_go_to_the_cases_of_that_text_in_turn(tiny: Any, one: Path, tmp_path: Path) -> None:
    cases = PreparedDataset.open(tiny.data).cases("test")
    folder = tmp_path / "mine"
    folder.mkdir()
    with (folder / "metadata.csv").open("w") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "text"])
        for number, case in enumerate(cases):
            name = f"{number}.png"
            writer.writerow([name, case.text])
            (folder / name).write_bytes((one / "images" / "000000.png").read_bytes())
    evaluate(tiny.data, tmp_path / "out", tiny.evaluator, images=folder, settings=QUICK)
    facts = read(tmp_path / "out" / "evaluation.json")
    assert facts["cases"] == facts["model"]["images"] == len(cases)


def test_several_images_of_a_case_and_a_truncated_prompt(tiny: Any, tmp_path: Path) -> None:
    generator = Generator.load(tiny.model)
    generator.tokenizer.model_max_length = 8
    settings = replace(QUICK, images_per_case=2, steps=1, guidance=1.0)
    entries = evaluate(tiny.data, tmp_path / "out", tiny.evaluator, model=generator, settings=settings)
    facts = read(tmp_path / "out" / "evaluation.json")
    assert entries["alignment/attribute_accuracy"]["n"] == 28
    assert facts["model"]["extra_images_for_diversity"] == 0
    assert facts["model"]["network_evaluations"] == 28
    assert len(facts["model"]["truncated_prompts"]) == 14


# --- before and after


@pytest.fixture(scope="module")
def pair(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pair") / "out"
    evaluate_pair(None, tiny.run, tiny.data, tiny.evaluator, out, replace(QUICK, keep_images=5, report=True))
    return out


def test_a_pair_holds_everything_three_times_and_the_changes(pair: Path) -> None:
    metrics = read(pair / "metrics.json")
    for prefix in ("base", "tuned", "real"):
        assert {f"{prefix}/fidelity/fid", f"{prefix}/alignment/attribute_accuracy"} <= metrics.keys()
    changed = ("fidelity/fid", "fidelity/frd", "alignment/attribute_accuracy")
    for key in (*changed, "diversity/vendi", "diversity/feature_distance", "diversity/ms_ssim"):
        difference = metrics[f"tuned/{key}"]["value"] - metrics[f"base/{key}"]["value"]
        assert metrics[f"change/{key}"]["value"] == pytest.approx(difference, abs=1e-9)
    distance = [metrics[f"{prefix}/diversity/feature_distance"]["value"] for prefix in ("base", "tuned")]
    assert metrics["change/diversity"]["value"] == pytest.approx(distance[1] / distance[0] - 1)
    assert metrics["change/fid"] == metrics["change/fidelity/fid"]
    assert metrics["tuned/fidelity/frd"]["extractor"].endswith(":size=16")
    facts = read(pair / "evaluation.json")["subgroups"]
    assert facts["minimum"]["alignment"] == 20
    assert len(facts["left_out"]) > 4  # fourteen cases: no cell is large enough, and each is listed
    assert not [key for key in metrics if "subgroup/" in key]


def test_base_is_the_generator_without_its_adapter_on_the_same_noise(tiny: Any, pair: Path) -> None:
    rollout = replace(QUICK, steps=2, guidance=1.5, eta=0.5)
    bench = {"data": tiny.data, "evaluator": tiny.evaluator, "settings": rollout}
    from_folder = evaluate_pair(tiny.model, tiny.run, **bench)
    metrics = read(pair / "metrics.json")
    assert from_folder["base/fidelity/kid"] == metrics["base/fidelity/kid"]
    assert metrics["base/fidelity/kid"] != metrics["tuned/fidelity/kid"]
    facts = read(pair / "evaluation.json")
    assert facts["base"]["identity"] != facts["tuned"]["identity"]
    itself = evaluate_pair(tiny.run, tiny.run, **bench)  # as the command line says it
    assert itself["base/fidelity/kid"] == metrics["base/fidelity/kid"]


def test_the_gallery_shows_the_same_cases_three_times(pair: Path) -> None:
    pairs = read(pair / "pairs.json")
    assert len(pairs) == 5
    for entry in pairs:
        assert all((pair / entry[side]).is_file() for side in ("base", "tuned", "real"))
        assert entry["tuned_probabilities"].keys() == entry["attributes"].keys()
    assert (pair / "report" / "index.html").is_file()


def test_real_images_stay_where_they_are_when_asked(tiny: Any, tmp_path: Path) -> None:
    settings = replace(QUICK, keep_images=2, real_images=False)
    evaluate_pair(None, tiny.run, tiny.data, tiny.evaluator, tmp_path / "out", settings)
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["base", "tuned"]
    assert all("real" not in entry for entry in read(tmp_path / "out" / "pairs.json"))


def test_nothing_is_written_without_out(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate_pair(None, tiny.run, tiny.data, tiny.evaluator, settings=QUICK)
    assert list(tmp_path.iterdir()) == []


def measured(cases: Sequence[Case], wrong: int, features: torch.Tensor) -> Measured:
    """One attribute, asked for by every case and missing in the first ``wrong`` images."""
    probabilities = torch.ones(len(cases), 1)
    probabilities[:wrong] = 0.0
    ids = [case.text for case in cases]
    return Measured(list(cases), {"domain": features}, probabilities, DiversitySet(
        torch.randint(0, 255, (len(cases), 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
        features, ids))  # fmt: skip


def instruments() -> Instruments:
    evaluator: Any = SimpleNamespace(attribute_names=("hair",), card={}, identity="judge:1")
    extractor: Any = SimpleNamespace(identity="bands:1")
    return Instruments(evaluator, {"domain": extractor}, ("hair",), ("hair",), 200, 0)


def test_the_share_of_the_gap_and_the_loss_of_variety_on_known_numbers() -> None:
    cases = [Case(str(i), f"text {i % 5}", {"hair": 1}) for i in range(40)]
    features = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    base, tuned, real = (measured(cases, wrong, features * scale) for wrong, scale in ((20, 1), (8, 0.5), (0, 1)))
    entries, notes = change_entries(base, tuned, real, instruments())
    closed = entries["gap/attribute_accuracy_closed"]
    assert closed["value"] == pytest.approx(12 / 20)
    assert 0.3 < closed["ci95"][0] < 0.6 < closed["ci95"][1] < 0.9
    assert entries["change/alignment/apr"]["value"] == pytest.approx(0.3)
    assert entries["change/diversity"]["value"] == pytest.approx(-0.5)
    assert entries["change/fid"]["value"] > 0
    assert notes == []


def test_no_gap_is_no_number() -> None:
    cases = [Case(str(i), f"text {i % 5}", {"hair": 1}) for i in range(20)]
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    base, tuned, real = (measured(cases, wrong, features) for wrong in (0, 2, 0))
    entries, notes = change_entries(base, tuned, real, instruments())
    assert "gap/attribute_accuracy_closed" not in entries
    assert "no gap to close" in notes[0]
    # one wrong picture of 20: a third of the resamples miss it and have no gap; they are left out, not infinite
    entries, notes = change_entries(measured(cases, 1, features), tuned, real, instruments())
    json.dumps(entries["gap/attribute_accuracy_closed"], allow_nan=False)
    assert "within chance" in notes[0]


# --- further evaluators


def test_a_scorer_is_one_more_metric_with_its_change(tiny: Any, tmp_path: Path) -> None:
    settings = replace(QUICK, scorers=(tiny.evaluator,))
    entries = evaluate_pair(None, tiny.run, tiny.data, tiny.evaluator, tmp_path / "out", settings)
    # as a scorer the classifier gives each image the share of its attributes that are right
    for prefix in ("base/", "tuned/", "real/"):
        scored, known = entries[f"{prefix}alignment/attributes"], entries[f"{prefix}alignment/attribute_accuracy"]
        assert scored["value"] == pytest.approx(known["value"])
        assert scored["ci95"][0] <= scored["value"] <= scored["ci95"][1]
        assert scored["evaluator"].startswith("attributes:hard:")
    change = entries["change/alignment/attributes"]
    assert change["value"] == pytest.approx(
        entries["tuned/alignment/attributes"]["value"] - entries["base/alignment/attributes"]["value"]
    )
    assert read(tmp_path / "out" / "evaluation.json")["scorers"].keys() == {"attributes"}


def test_a_scorer_must_be_independent_and_one_of_a_kind(tiny: Any, tmp_path: Path) -> None:
    for scorers, message in (
        ((tiny.reward,), "the evaluator is the reward itself"),
        ((tiny.evaluator, tiny.evaluator), "two scorers measure 'attributes'"),
        ((tmp_path / "none",), "no network in"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(
                tiny.data, tmp_path / "out", tiny.evaluator, model=tiny.run, settings=replace(QUICK, scorers=scorers)
            )
    assert not (tmp_path / "out").exists()


# --- the evaluator must be independent


def test_the_reward_of_a_run_is_refused_as_its_evaluator(tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="the evaluator is the reward itself"):
        evaluate(tiny.data, out, tiny.reward, model=tiny.run, settings=QUICK)
    assert not out.exists()
    settings = replace(QUICK, allow_reward_evaluator=True)
    evaluate(tiny.data, out, tiny.reward, model=tiny.run / "model", settings=settings)  # the run is found from within
    assert read(out / "evaluation.json")["notes"][0].startswith("not independent: the evaluator is the reward itself")


def test_a_reward_as_extractor_or_without_a_card_is_refused(tiny: Any, tmp_path: Path) -> None:
    extractor = replace(QUICK, extractors=(f"domain:{tiny.reward}",))
    with pytest.raises(UserError, match="extractor 'domain2' is a reward of this run"):
        evaluate(tiny.data, tmp_path / "o", tiny.evaluator, model=tiny.run, settings=extractor)
    lost = replace(QUICK, rewards=(tmp_path / "lost",))
    with pytest.raises(UserError, match=r"reward .*lost has no card"):
        evaluate(tiny.data, tmp_path / "o", tiny.evaluator, model=tiny.model, settings=lost)
    allowed = replace(lost, extractors=extractor.extractors, allow_reward_evaluator=True)
    evaluate(tiny.data, tmp_path / "o", tiny.evaluator, model=tiny.run, settings=allowed)
    notes = read(tmp_path / "o" / "evaluation.json")["notes"]
    assert sum(note.startswith("not independent") for note in notes) == 2
    assert "fidelity/fid@domain2" in read(tmp_path / "o" / "metrics.json")


def test_the_evaluators_own_split_is_refused(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was trained on split 'judge', which it is to judge here"):
        evaluate(tiny.data, tmp_path / "o", tiny.evaluator, model=tiny.model, settings=replace(QUICK, split="judge"))


# --- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cases": 3}, "--cases 3: an evaluation needs at least 12"),
        ({"images_per_case": 0}, "--images-per-case 0: write a number of at least 1"),
        ({"batch_size": 0}, "--batch-size 0: write a number of at least 1"),
        ({"resamples": 1}, "an interval needs at least 2 resamples"),
        ({"steps": 0}, "--steps 0: write a number from 1 to 1000"),
        ({"guidance": 0.5}, "--guidance 0.5: write a number of at least 1"),
        ({"eta": 1.5}, "--eta 1.5: write a number from 0"),
        ({"split": "tets"}, "no case in split 'tets'; did you mean 'test'"),
    ],
)
def test_settings_are_checked_before_anything_is_drawn(
    tiny: Any, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(tiny.data, tmp_path / "o", tiny.evaluator, model=tiny.model, settings=replace(QUICK, **changes))
    assert list(tmp_path.iterdir()) == []


def test_mistakes_about_what_to_evaluate(tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "o"
    for both in ({}, {"model": tiny.model, "images": tmp_path}):
        with pytest.raises(UserError, match=r"needs either --model .* or --images"):
            evaluate(tiny.data, out, tiny.evaluator, settings=QUICK, **both)
    with pytest.raises(UserError, match="needs --evaluator DIR"):
        evaluate(tiny.data, out, model=tiny.model, settings=QUICK)
    with pytest.raises(UserError, match="give the base model too"):
        evaluate_pair(None, tiny.model, tiny.data, tiny.evaluator, settings=QUICK)
    large = SimpleNamespace(image_size=32, anchor=None)
    with pytest.raises(UserError, match="not one pair"):
        evaluate_pair(_as_generator(large), tiny.run, tiny.data, tiny.evaluator, settings=QUICK)
    with pytest.raises(UserError, match=r"the model draws 32 px and .* has 16 px"):
        evaluate(tiny.data, out, tiny.evaluator, model=_as_generator(large), settings=QUICK)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not an evaluation: choose another --out"):
        evaluate(tiny.data, tmp_path / "mine", tiny.evaluator, model=tiny.model, settings=QUICK)
    assert not out.exists()


def _as_generator(facts: SimpleNamespace) -> Generator:
    """Return a generator that has nothing but the given facts."""
    generator = object.__new__(Generator)
    generator.__dict__.update(facts.__dict__)
    return generator


def test_a_tiny_split_and_a_broken_model_are_told(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="usable cases in split 'validation', an evaluation needs at least 12"):
        evaluate(
            tiny.data, tmp_path / "o", tiny.evaluator, model=tiny.model, settings=replace(QUICK, split="validation")
        )
    broken = Generator.load(tiny.model)
    with torch.no_grad():
        next(broken.unet.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="hold NaN or infinity: the model is broken"):
        evaluate(tiny.data, tmp_path / "o", tiny.evaluator, model=broken, settings=replace(QUICK, steps=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "has no metadata.csv"),
        ("text\nx\n", "has no column `file_name`"),
        ("file_name,label\na.png,x\n", "has neither a column case_id nor text"),
        ("file_name,text\na.png,never seen\n", "1 of 1 rows have a text that is in no case of the split"),
        ("file_name,case_id\n../a.png,CASE\n", "leaves the folder"),
        ("file_name,case_id\na.png,CASE\n", "1 of 1 image files are missing, first 'a.png'"),
    ],
)
def test_mistakes_in_a_folder_of_images(tiny: Any, tmp_path: Path, table: str | None, message: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    if table is not None:
        case = PreparedDataset.open(tiny.data).cases("test")[0].case_id
        (folder / "metadata.csv").write_text(table.replace("CASE", case))
    with pytest.raises(UserError, match=message):
        evaluate(tiny.data, tmp_path / "o", tiny.evaluator, images=folder, settings=QUICK)
    with pytest.raises(UserError, match="does not exist: give the output of `clinalign sample`"):
        evaluate(tiny.data, tmp_path / "o", tiny.evaluator, images=tmp_path / "none", settings=QUICK)


def test_the_images_are_not_replaced_by_their_evaluation(tiny: Any, one: Path) -> None:
    with pytest.raises(UserError, match="holds the images that are evaluated"):
        evaluate(tiny.data, one, tiny.evaluator, images=one / "images", settings=QUICK)
