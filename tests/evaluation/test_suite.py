"""The whole evaluation on a toy world whose right answers are known.

An image of the toy world is one grey level for each attribute, in its own band, plus noise. The evaluator reads the
levels, so it is never wrong about an image, and what it finds wrong is the generator's fault.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.suite import case_groups, compare_identity, evaluate_images, evaluate_real
from clinalign.networks.classifier import AttributeClassifier

NAMES = ("hair", "ink", "MEL")
SIZE = 33


class Reader:
    """An evaluator that reads the level of each band of rows."""

    attribute_names: tuple[str, ...] = NAMES
    identity = "reader:1"

    def __init__(self, **card: Any) -> None:
        self.card: dict[str, Any] = card

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([band.mean(dim=(1, 2, 3)) for band in images.chunk(3, dim=2)], dim=1)


class Bands:
    """A feature extractor: mean and spread of each band and channel."""

    def __init__(self, identity: str = "bands:1") -> None:
        self.identity = identity

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        bands = images.chunk(3, dim=2)
        return torch.cat([torch.cat([b.mean(dim=(2, 3)), b.std(dim=(2, 3))], dim=1) for b in bands], dim=1)


class Pair:
    """An image-text pair: an image is its mean level, a text the number of its words."""

    identity = "pair:1"

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images.mean(dim=(1, 2, 3)), torch.ones(len(images))], dim=1)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[len(text.split()) / 8, 1.0] for text in texts])


def world(n: int, seed: int) -> list[Case]:
    """Cases over the eight combinations of three attributes."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 2, (n, 3), generator=generator).tolist()
    return [
        Case(f"{seed}-{i}", " ".join(["a dermoscopic image", *(a for a, bit in zip(NAMES, row) if bit)]),
             dict(zip(NAMES, row)), group_id=f"{seed}-{i // 2}")
        for i, row in enumerate(rows)
    ]  # fmt: skip


def paint(cases: Sequence[Case], seed: int, noise: float = 0.1) -> torch.Tensor:
    """Draw each case's image truthfully; unknown attributes are painted absent."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.full((len(cases), 3, SIZE, SIZE), 0.2)
    for image, case in zip(images, cases):
        for band, name in zip(image.chunk(3, dim=1), NAMES):
            band += 0.6 * (case.attributes[name] or 0)
    levels = images + 0.05 * torch.randn(len(cases), 3, 1, 1, generator=generator)
    return (levels + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def evaluate(images: torch.Tensor, cases: Sequence[Case], **changes: Any) -> Entries:
    settings: dict[str, Any] = {
        "classifier": Reader(),
        "reference_images": paint(REAL, 100),
        "reference_cases": REAL,
        "extractors": {"domain": Bands()},
        "artifact_attributes": ("hair", "ink"),
        "n_bootstrap": 200,
    }
    return evaluate_images(images, cases, **(settings | changes))


REAL = world(60, 1)
ASKED = world(60, 2)


def test_a_truthful_generator_reaches_the_ceiling() -> None:
    entries = evaluate(paint(ASKED, 3), ASKED)
    for key in ("attribute_accuracy", "balanced_accuracy", "apr", "apr_single", "auroc", "f1"):
        assert entries[f"alignment/{key}"]["value"] == 1.0
    assert {f"alignment/{kind}/{name}" for kind in ("accuracy", "auroc", "f1") for name in NAMES} <= entries.keys()
    fid = entries["fidelity/fid"]
    assert fid["at_floor_n"] < 3 * fid["floor"]
    assert fid["floor_n"] == 30
    assert fid["extractor"] == "bands:1"
    assert fid["extrapolated"] < fid["value"]
    assert (fid["n"], fid["n_reference"]) == (60, 60)


def test_fid_is_not_extrapolated_from_too_few_images() -> None:
    few = evaluate(paint(ASKED[:36], 3), ASKED[:36])  # Bands has 18 features: more than 36 images are needed
    assert "extrapolated" not in few["fidelity/fid"]


def test_every_entry_keeps_the_contract_and_is_json() -> None:
    entries = evaluate(paint(ASKED, 3), ASKED, scorer=Pair())
    assert {
        "fidelity/fid",
        "alignment/attribute_accuracy",
        "alignment/apr",
        "alignment/clip_score",
        "diversity/ms_ssim",
    } <= (entries.keys())
    json.dumps(entries, allow_nan=False)
    for key, entry in entries.items():
        low, high = entry["ci95"]
        assert low <= high, key
        assert entry["n"] > 0
        assert entry.get("extractor") or entry.get("evaluator"), key


def test_a_generator_that_ignores_the_text_is_seen() -> None:
    """Real-looking images in the wrong order: fidelity holds, alignment falls to chance."""
    right, wrong = evaluate(paint(ASKED, 3), ASKED), evaluate(paint(ASKED, 3)[torch.randperm(60)], ASKED)
    assert wrong["fidelity/fid"]["value"] == pytest.approx(right["fidelity/fid"]["value"])
    assert wrong["alignment/attribute_accuracy"]["ci95"][1] < 0.75
    assert wrong["alignment/apr"]["ci95"][1] < 0.6
    assert compare_identity(right, wrong) == []


def test_one_image_for_each_prompt_makes_the_diversity_fall() -> None:
    """The one-image optimum (needs N3): alignment stays perfect, the diversity lines and recall say what happened."""
    first = {case.text: i for i, case in reversed(list(enumerate(ASKED)))}
    images = paint(ASKED, 3)
    collapsed = images[torch.tensor([first[case.text] for case in ASKED])]
    before, after = evaluate(images, ASKED), evaluate(collapsed, ASKED)
    assert after["alignment/attribute_accuracy"]["value"] == 1.0
    assert after["diversity/feature_distance"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert after["diversity/ms_ssim"]["ci95"][0] > before["diversity/ms_ssim"]["ci95"][1]
    assert after["fidelity/recall"]["value"] < 0.5 * before["fidelity/recall"]["value"]


def test_an_unknown_label_counts_nowhere() -> None:
    """Hide the labels that a liar gets wrong: what is left is right, and n says how much that is."""
    images = paint([replace(case, attributes={**case.attributes, "ink": 0}) for case in ASKED], 3)
    hidden = [replace(case, attributes={**case.attributes, "ink": None}) for case in ASKED]
    assert evaluate(images, ASKED)["alignment/attribute_accuracy"]["value"] < 0.9
    entries = evaluate(images, hidden)
    assert entries["alignment/attribute_accuracy"]["value"] == 1.0
    assert entries["alignment/apr"]["value"] == 1.0
    assert "alignment/accuracy/ink" not in entries
    some = [case if i % 3 else replace(case, attributes=dict.fromkeys(NAMES)) for i, case in enumerate(ASKED)]
    assert evaluate(paint(ASKED, 3), some)["alignment/apr"]["n"] == 40


def test_thresholds_come_from_the_card_and_are_part_of_the_identity() -> None:
    images = paint(ASKED, 3)
    strict = evaluate(images, ASKED, classifier=Reader(thresholds={"ink": 0.99}))
    plain = evaluate(images, ASKED)
    assert strict["alignment/f1/ink"]["value"] == 0.0
    assert strict["alignment/f1/hair"]["value"] == 1.0
    with pytest.raises(UserError, match="two evaluators"):
        compare_identity(plain, strict)


def test_real_images_set_the_ceiling() -> None:
    entries = evaluate_real(
        paint(REAL, 100), REAL, classifier=Reader(), extractors={"domain": Bands(), "second": Bands("bands:2")},
        artifact_attributes=("hair",), n_bootstrap=100,
    )  # fmt: skip
    assert entries["alignment/apr"] == {"value": 1.0, "ci95": [1.0, 1.0], "n": 60, "evaluator": "reader:1"}
    fid = entries["fidelity/fid"]
    assert fid["n"] == fid["n_reference"] == fid["floor_n"] == 30  # half against half, never against itself
    assert fid["floor"] == fid["value"] > 0
    assert entries["fidelity/fid@second"]["extractor"] == "bands:2"
    notes = compare_identity(
        entries, evaluate(paint(ASKED, 3), ASKED, extractors={"domain": Bands()}, artifact_attributes=())
    )
    assert notes == ["fidelity/fid: images (generated, real) (30, 30) and (60, 60); FID falls with n"]


def test_two_photographs_of_one_lesion_are_no_variety() -> None:
    cases = [Case(str(i), f"prompt {i // 4}", {"hair": 1}, group_id=f"lesion {i // 2}") for i in range(8)]
    entries = evaluate_real(
        paint([replace(c, attributes=dict.fromkeys(NAMES, 1)) for c in cases], 0), cases, n_bootstrap=20
    )
    assert entries["diversity/ms_ssim"]["n"] == 4  # eight images of four lesions


def test_further_extractors_carry_their_name_and_identities_do_not_mix() -> None:
    images = paint(ASKED, 3)
    one = evaluate(images, ASKED, extractors={"domain": Bands(), "inception": Bands("bands:2")})
    assert one["fidelity/kid@inception"]["extractor"] == "bands:2"
    assert one["diversity/feature_distance"]["extractor"] == "bands:1"
    other = evaluate(images, ASKED, extractors={"domain": Bands("bands:other weights")})
    with pytest.raises(UserError, match="two extractors, bands:1 and bands:other weights"):
        compare_identity(one, other)


def test_groups_default_to_the_lesion_and_fall_back_to_the_case() -> None:
    assert case_groups([Case("1", "", group_id="lesion"), Case("2", "")]) == ["lesion", "2"]


def test_our_own_classifier_is_an_evaluator_and_an_extractor(tmp_path: Path) -> None:
    from clinalign.evaluation.extractors import load_extractor

    torch.manual_seed(0)
    AttributeClassifier(NAMES, image_size=32, backbone="resnet10t").save(tmp_path)
    classifier, extractor = AttributeClassifier.load(tmp_path), load_extractor(f"domain:{tmp_path}")
    entries = evaluate(paint(ASKED[:20], 3), ASKED[:20], classifier=classifier, extractors={"domain": extractor})
    assert entries["alignment/attribute_accuracy"]["evaluator"] == classifier.identity
    assert entries["fidelity/coverage"]["n"] == 20


def test_the_same_seed_gives_the_same_numbers() -> None:
    images = paint(ASKED, 3)
    assert evaluate(images, ASKED, seed=5) == evaluate(images, ASKED, seed=5)
    assert evaluate(images, ASKED, seed=5) != evaluate(images, ASKED, seed=6)


def test_mistakes_are_told() -> None:
    images = paint(ASKED, 3)
    with pytest.raises(UserError, match="59 cases for 60 images"):
        evaluate(images, ASKED[1:])
    with pytest.raises(UserError, match="1 prompt ids for 60 images"):
        evaluate(images, ASKED, prompt_ids=["one"])
    with pytest.raises(UserError, match="0 cases for 60 reference images"):
        evaluate(images, ASKED, reference_cases=[])
    with pytest.raises(UserError, match="no images to evaluate"):
        evaluate(images[:0], [])
    with pytest.raises(UserError, match="outside \\[0, 1\\] or not finite"):
        evaluate(images * 2, ASKED)
    with pytest.raises(UserError, match="needs a feature extractor"):
        evaluate(images, ASKED, extractors={})
    with pytest.raises(UserError, match="APR needs an evaluator"):
        evaluate(images, ASKED, classifier=None)
    with pytest.raises(UserError, match="does not see attribute 'hare': did you mean 'hair'"):
        evaluate(images, ASKED, artifact_attributes=("hare",))
    with pytest.raises(UserError, match="no case knows any of the evaluator's attributes"):
        evaluate(images, [Case(str(i), "") for i in range(60)])
