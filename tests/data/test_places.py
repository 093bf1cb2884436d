"""Reading where a finding lies: from texts, from a phantom's truth, from a mask."""

from __future__ import annotations

import numpy as np
import pytest

from clinalign.data.phantoms.cxr import draw_cxr
from clinalign.data.places import Place, contradicted, lesion_words, place_of_mask, places_in, true_places


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("Small left pleural effusion.", [Place("effusion", "left", None, "small")]),
        ("Consolidation in the right lower zone.", [Place("consolidation", "right", "lower")]),
        ("Left pacemaker.", [Place("device", "left")]),
        ("Right central venous catheter.", [Place("device", "right")]),  # "central" is no place here
        ("Bilateral effusions.", [Place("effusion", "bilateral")]),
        ("Left and right effusion.", [Place("effusion", "bilateral")]),
        ("Large right pneumothorax and left basal consolidation.",
         [Place("consolidation", "left", "lower"), Place("pneumothorax", "right", None, "large")]),
        ("Nodule in the left upper zone. Nodule in the right lower zone.", [Place("nodule", "bilateral")]),
        ("Left effusion. The effusion is small.", [Place("effusion", "left", None, "small")]),
        ("a picture with vascular lesion, small lesion on the right", [Place("lesion", "right", None, "small")]),
        ("Small to moderate left effusion.", [Place("effusion", "left")]),  # two sizes: unknown
        ("a dermoscopic image with no visible artifacts, small lesion in the upper left, on the lower extremity",
         [Place("lesion", "left", "upper", "small")]),
        ("large lesion in the centre", [Place("lesion", "central", "middle", "large")]),
        ("moderate lesion on the right", [Place("lesion", "right", None, "moderate")]),
    ],
)  # fmt: skip
def test_what_a_text_says(text: str, places: list[Place]) -> None:
    assert sorted(places_in(text), key=lambda place: place.region) == places


@pytest.mark.parametrize(
    "text",
    [
        "Frontal chest radiograph. Cardiomegaly. Effusion.",
        "No left effusion.",
        "Without right pneumothorax.",
        "The left hemidiaphragm is high.",
        "a dermoscopic image with melanoma (MEL), on the upper extremity",
        "",
    ],
)
def test_what_says_nothing_about_place(text: str) -> None:
    assert places_in(text) == ()


@pytest.mark.parametrize("seed", range(40))
def test_a_phantoms_report_says_its_truth(seed: int) -> None:
    phantom = draw_cxr(seed, 16)
    assert phantom.report is not None
    assert set(places_in(phantom.report)) == set(true_places(phantom.parameters))


def square(left: int, top: int, side: int, size: int = 50) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (square(20, 20, 10), "small lesion in the centre"),
        (square(0, 0, 20), "moderate lesion in the upper left"),
        (square(20, 0, 10), "small lesion in the upper part"),
        (square(40, 20, 10), "small lesion on the right"),
        (square(2, 2, 46), "large lesion in the centre"),
    ],
)
def test_the_words_of_a_mask_are_read_back(mask: np.ndarray, words: str) -> None:
    assert lesion_words(mask) == words
    truth = place_of_mask(mask)
    (read,) = places_in(words)
    assert truth is not None
    for kind, value in read.clauses().items():  # a middle axis is not named unless both are
        assert getattr(truth, kind) == value


def test_an_empty_mask_has_no_place() -> None:
    assert place_of_mask(square(0, 0, 0)) is None
    assert lesion_words(square(0, 0, 0)) is None


@pytest.mark.parametrize(
    "text",
    [
        "Frontal chest radiograph. Cardiomegaly. Small left pleural effusion. Nodule in the right upper zone.",
        "Bilateral effusions.",
        "a dermoscopic image with melanoma (MEL), large lesion in the centre, female",
    ],
)
def test_a_contradicted_text_is_wrong_in_every_clause_and_no_word_else(text: str) -> None:
    for seed in range(8):
        wrong = contradicted(text, np.random.default_rng(seed))
        assert wrong is not None
        right, changed = ({place.region: place for place in places_in(words)} for words in (text, wrong))
        assert right.keys() == changed.keys()
        for region, place in right.items():
            for kind, value in place.clauses().items():
                assert getattr(changed[region], kind) not in (None, value)
        assert ("Cardiomegaly." in wrong, "melanoma (MEL)" in wrong) == ("Cardiomegaly." in text, "MEL" in text)


def test_a_text_without_places_has_no_wrong_version() -> None:
    random = np.random.default_rng(0)
    assert contradicted("Frontal chest radiograph. Cardiomegaly.", random) is None
    assert contradicted("No left effusion.", random) is None
