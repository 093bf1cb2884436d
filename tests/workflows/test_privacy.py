"""Privacy from cases to files, on a tiny world; what the numbers mean is tested where they are computed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.core.files import write_json
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.identity import IdentityEncoder
from clinalign.workflows.evaluate import evaluate, evaluate_pair
from clinalign.workflows.evaluation_setup import EvaluateSettings
from clinalign.workflows.privacy import _asked, strata_of
from clinalign.workflows.report_privacy import privacy_findings, privacy_section
from clinalign.workflows.report_sources import read_evaluation

QUICK = EvaluateSettings(cases=12, resamples=20, device="cpu", report=False, steps=1, guidance=1.0, privacy=True)
FAMILY = {"nearest_train_share", "distance_ratio", "near_duplicates", "membership_auc"}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def keys(metrics: dict[str, Any], prefix: str) -> set[str]:
    return {key.removeprefix(prefix) for key in metrics if key.startswith(prefix)}


@pytest.fixture(scope="module")
def encoder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder with the card that training on ``judge`` would give it."""
    folder = tmp_path_factory.mktemp("identity") / "encoder"
    torch.manual_seed(0)
    model = IdentityEncoder(16, width=8)
    model.card = {
        "split": "judge",
        "dataset": PreparedDataset.open(tiny.data).fingerprint,
        "pairs": "augmentations",
    }
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def pair(tiny: Any, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("privacy") / "out"
    settings = replace(QUICK, identity=encoder, report=True)
    evaluate_pair(tiny.model, tiny.run, tiny.data, tiny.evaluator, out, settings)
    return out


def test_before_after_strangers_and_the_change(pair: Path, encoder: Path) -> None:
    metrics = read(pair / "metrics.json")
    with_encoder = {*FAMILY, "reidentified"}
    for prefix in ("base", "tuned", "change"):
        assert keys(metrics, f"{prefix}/privacy/") == {*with_encoder, "membership_auc_loss"}
    assert keys(metrics, "real/privacy/") == with_encoder  # real images have no model to be asked
    share = metrics["tuned/privacy/nearest_train_share"]
    assert share["extractor"] == IdentityEncoder.load(encoder).identity
    assert share["n"] == 12
    assert 0 < share["p_value"] <= 1
    assert not [key for key in metrics if key.endswith("@identity")]  # its features are for privacy alone
    changed = metrics["change/privacy/nearest_train_share"]["value"]
    before = metrics["base/privacy/nearest_train_share"]["value"]
    assert changed == pytest.approx(share["value"] - before)


def test_privacy_json_says_what_was_compared_with_what(pair: Path, tiny: Any) -> None:
    found, dataset = read(pair / "privacy.json"), PreparedDataset.open(tiny.data)
    assert found["train_split"] == "train"
    assert found["held_out_splits"] == ["test", "validation"]  # the encoder knows those of `judge`
    assert found["train"]["images"] == len(dataset.cases("train"))
    assert found["pairs_of_the_encoder"] == "augmentations"
    assert set(found["sides"]) == {"base", "tuned"}
    assert str(tiny.data) not in json.dumps(found)


def test_the_closest_pairs_are_listed_nearest_first_with_their_pictures(pair: Path, tiny: Any) -> None:
    dataset = PreparedDataset.open(tiny.data)
    splits = {case.case_id: case.split for case in dataset.cases()}
    pairs = read(pair / "privacy.json")["sides"]["tuned"]["pairs"]
    assert 1 <= len(pairs) <= 12
    assert [each["nearness"] for each in pairs] == sorted(each["nearness"] for each in pairs)
    for each in pairs:
        assert splits[each["train_case_id"]] == "train"
        assert splits[each["held_out_case_id"]] in ("test", "validation")
        with Image.open(pair / each["pictures"]["generated"]) as picture:
            assert picture.text["synthetic"] == "true"
        original = next(case for case in dataset.cases("train") if case.case_id == each["train_case_id"])
        with Image.open(pair / each["pictures"]["train"]) as shown, Image.open(original.image) as stored:
            assert list(shown.getdata()) == list(stored.convert("RGB").getdata())


def test_the_pictures_shown_are_those_that_were_measured(pair: Path) -> None:
    for side in ("base", "tuned"):
        for each in read(pair / "privacy.json")["sides"][side]["pairs"]:
            with (
                Image.open(pair / each["pictures"]["generated"]) as again,
                Image.open(pair / "images" / side / f"{each['image']:06d}.png") as kept,
            ):
                assert list(again.getdata()) == list(kept.getdata())


def test_the_report_has_the_section(pair: Path) -> None:
    page = (pair / "report" / "index.html").read_text()
    assert "Does it give training cases away?" in page
    assert page.count("Nearest trained on") >= 2


def test_one_generator_by_the_evaluators_features_and_no_picture_of_anybody(tiny: Any, tmp_path: Path) -> None:
    settings = replace(QUICK, real_images=False, report=True)
    metrics = evaluate(tiny.data, tmp_path / "out", tiny.evaluator, model=tiny.model, settings=settings)
    assert keys(metrics, "privacy/") == {*FAMILY, "membership_auc_loss"}  # no encoder, no re-identification
    assert keys(metrics, "real/privacy/") == FAMILY
    assert metrics["privacy/nearest_train_share"]["extractor"].startswith("domain:")
    found = read(tmp_path / "out" / "privacy.json")["sides"]["images"]
    assert found["pairs"]
    assert not [each for each in found["pairs"] if "pictures" in each]
    assert not (tmp_path / "out" / "images" / "privacy").exists()
    assert "Nearest trained on" not in (tmp_path / "out" / "report" / "index.html").read_text()


@pytest.mark.slow
def test_images_in_a_folder_have_no_model_to_ask(tiny: Any, pair: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    metrics = evaluate(tiny.data, out, tiny.evaluator, images=pair / "images" / "tuned", settings=QUICK)
    assert keys(metrics, "privacy/") == FAMILY
    assert "taken on trust" in " ".join(read(out / "evaluation.json")["notes"])
    first = read(out / "privacy.json")["sides"]["images"]["pairs"][0]
    with (
        Image.open(out / first["pictures"]["generated"]) as shown,
        Image.open(pair / "images" / "tuned" / f"{first['image']:06d}.png") as given,
    ):
        assert list(shown.getdata()) == list(given.getdata())


@pytest.mark.slow
def test_without_the_option_there_is_nothing_of_it(tiny: Any, tmp_path: Path) -> None:
    settings = replace(QUICK, privacy=False)
    metrics = evaluate(tiny.data, tmp_path / "out", tiny.evaluator, model=tiny.model, settings=settings)
    assert not [key for key in metrics if "privacy/" in key]
    assert not (tmp_path / "out" / "privacy.json").exists()


# --- kinds


def test_cases_are_sorted_into_kinds_by_labels_and_images_of_the_patient() -> None:
    def case(name: str, group: str, melanoma: int, split: str) -> Case:
        return Case(name, "", {"MEL": melanoma}, group, split)

    dataset = SimpleNamespace(attribute_names=("MEL",))
    train = [case("a", "g", 1, "train"), case("b", "g", 1, "train"), case("c", "h", 0, "train")]
    held_out = [case("d", "i", 0, "test"), case("e", "j", 0, "test"), case("f", "k", 1, "test")]
    kinds, names = strata_of(dataset, train, [held_out[0]])
    assert kinds == {"a": "2|1", "b": "2|1", "c": "1|0", "d": "1|0"}
    assert names == ["images of the patient", "MEL"]
    # where labels find too few partners, the number of images alone
    strangers = [case(f"s{i}", f"s{i}", 1, "test") for i in range(4)]
    single = [case(f"t{i}", f"t{i}", 0, "train") for i in range(4)]
    kinds, names = strata_of(dataset, single, strangers)
    assert set(kinds.values()) == {"1"}
    assert names == ["images of the patient"]


def test_the_loss_attack_asks_about_as_many_of_each_kind_and_one_image_a_patient() -> None:
    train = [Case(f"t{i}", "", {}, f"g{i // 2}") for i in range(20)]
    held_out = [Case(f"h{i}", "", {}, f"k{i}") for i in range(6)]
    kinds = {case.case_id: "b" if case.case_id in ("h0", "t0", "t1") else "a" for case in [*train, *held_out]}
    members, others = _asked(train, held_out, kinds, 0)
    assert sorted(kinds[case.case_id] for case in members) == ["a"] * 5 + ["b"]
    assert sorted(kinds[case.case_id] for case in others) == ["a"] * 5 + ["b"]
    assert len({case.group_id for case in members}) == 6


# --- wrong input


def fails(tiny: Any, out: Path, model: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        evaluate(tiny.data, out, tiny.evaluator, model=model, settings=replace(QUICK, **settings))
    assert not out.exists()
    return str(caught.value)


def test_splits_that_make_no_comparison(tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no case in split 'trian'; did you mean 'train'" in fails(tiny, out, tiny.model, train_split="trian")
    assert "split 'test' is both" in fails(tiny, out, tiny.model, train_split="test")
    assert "evaluator" in fails(tiny, out, tiny.model, train_split="judge")
    assert "give both, or neither" in fails(tiny, out, tiny.model, privacy=False, identity=tmp_path)


def test_an_encoder_that_knows_the_members_or_is_none(tiny: Any, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    model = IdentityEncoder.load(encoder)
    model.card = {**model.card, "split": "train"}
    model.save(tmp_path / "wrong")
    told = fails(tiny, out, tiny.model, identity=tmp_path / "wrong")
    assert "was trained on split 'train', which it is to compare" in told
    assert "train identity --split judge" in told
    assert "make one with 'clinalign train identity'" in fails(tiny, out, tiny.model, identity=tmp_path / "none")
    assert "'identity' is needed" in fails(tiny, out, tiny.model, identity=tiny.evaluator)


@pytest.mark.slow
def test_an_encoder_of_other_data_is_noted(tiny: Any, encoder: Path, tmp_path: Path) -> None:
    model = IdentityEncoder.load(encoder)
    model.card = {**model.card, "dataset": "another"}
    model.save(tmp_path / "foreign")
    settings = replace(QUICK, identity=tmp_path / "foreign")
    evaluate(tiny.data, tmp_path / "out", tiny.evaluator, model=tiny.model, settings=settings)
    assert "trained on another dataset" in " ".join(read(tmp_path / "out" / "evaluation.json")["notes"])
    # what the encoder was not trained on can all be held out
    assert read(tmp_path / "out" / "privacy.json")["held_out_splits"] == ["judge", "test", "validation"]


@pytest.mark.slow
def test_what_the_models_card_says_is_compared_with_the_split(tiny: Any, tmp_path: Path) -> None:
    model, fingerprint = tmp_path / "model", PreparedDataset.open(tiny.data).fingerprint
    shutil.copytree(tiny.model, model)
    write_json(model / "clinalign.json", {"settings": {"split": "judge"}, "dataset": fingerprint})
    assert "trained on split 'judge', not 'train'" in fails(tiny, tmp_path / "out", model)
    write_json(model / "clinalign.json", {"settings": {"split": "train"}, "dataset": "another"})
    evaluate(tiny.data, tmp_path / "out", tiny.evaluator, model=model, settings=QUICK)
    assert "names another dataset" in " ".join(read(tmp_path / "out" / "evaluation.json")["notes"])


# --- what the report says


def metrics_of(**values: tuple[float, float, float]) -> dict[str, Any]:
    return {
        key.replace("__", "/"): {"value": middle, "ci95": [low, high], "n": 100}
        for key, (low, middle, high) in values.items()
    }


def test_the_report_says_whether_tuning_made_it_worse() -> None:
    same = metrics_of(
        base__privacy__nearest_train_share=(0.42, 0.50, 0.58),
        tuned__privacy__nearest_train_share=(0.43, 0.51, 0.59),
        real__privacy__nearest_train_share=(0.41, 0.49, 0.57),
        change__privacy__nearest_train_share=(-0.02, 0.01, 0.04),
    )
    (found,) = privacy_findings(same, compared=True)
    assert found.kind == "good"
    assert found.text.startswith("Tuning did not make pictures closer to training cases than to held-out ones: 51 %")
    assert "before 50 %; of unseen real images 49 %" in found.text
    unsure = same | metrics_of(change__privacy__nearest_train_share=(-0.04, 0.01, 0.09))
    (found,) = privacy_findings(unsure, compared=True)
    assert found.kind == "neutral"
    assert "is not sure" in found.text
    assert "(change +1.0 points [-4.0, 9.0])" in found.text
    ratios = {
        "base__privacy__distance_ratio": (0.95, 1.0, 1.05),
        "tuned__privacy__distance_ratio": (0.85, 0.9, 0.95),
        "change__privacy__distance_ratio": (-0.15, -0.1, -0.05),
    }
    nearer = list(privacy_findings(same | metrics_of(**ratios), compared=True))
    assert [each.kind for each in nearer] == ["good", "bad"]
    assert "fell from 1.00 to 0.900" in nearer[1].text
    worse = same | metrics_of(
        tuned__privacy__nearest_train_share=(0.61, 0.68, 0.75), change__privacy__nearest_train_share=(0.1, 0.18, 0.26)
    )
    (found,) = privacy_findings(worse, compared=True)
    assert found.kind == "bad"
    assert found.text.startswith("Tuning moved pictures towards training cases, a sign of memorisation: 68 %")


def test_the_report_accuses_only_what_strangers_do_not_do_too() -> None:
    strangers = metrics_of(real__privacy__near_duplicates=(0.0, 0.01, 0.04))
    few = strangers | metrics_of(images__privacy__near_duplicates=(0.01, 0.02, 0.05))
    many = strangers | metrics_of(images__privacy__near_duplicates=(0.10, 0.15, 0.22))
    assert [each.kind for each in privacy_findings(few, compared=False)] == ["neutral"]
    (accused,) = privacy_findings(many, compared=False)
    assert accused.kind == "bad"
    assert (
        "15 % [10, 22] of pictures are near duplicates of a training image; of unseen real images 1 %" in accused.text
    )
    for key, how in (("membership_auc", "pictures"), ("membership_auc_loss", "model")):
        attack = metrics_of(**{f"images__privacy__{key}": (0.52, 0.55, 0.58)})
        (told,) = privacy_findings(attack, compared=False)
        assert told.kind == "bad"
        assert how in told.text
        guess = metrics_of(**{f"images__privacy__{key}": (0.47, 0.51, 0.55)})
        assert next(iter(privacy_findings(guess, compared=False))).kind == "neutral"


def test_a_pictures_name_that_leads_elsewhere_is_not_shown(pair: Path, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    shutil.copytree(pair, folder)
    found = read(folder / "privacy.json")
    secret = tmp_path / "secret.png"
    shutil.copy(folder / found["sides"]["base"]["pairs"][0]["pictures"]["train"], secret)
    for side in found["sides"].values():
        for each in side["pairs"]:
            each["pictures"] = {"train": "../secret.png"}
    write_json(folder / "privacy.json", found)
    section = privacy_section(read_evaluation(folder))
    assert section is not None
    assert section.rows == ()
    write_json(folder / "privacy.json", {"sides": 3})
    with pytest.raises(UserError, match="is not what `evaluate --privacy` writes"):
        privacy_section(read_evaluation(folder))
