from __future__ import annotations

import random
from typing import Any

import pytest

from clinalign.data.phantoms.cxr_report import EXTENTS, SIDES, ZONES, compose_report
from clinalign.data.phantoms.cxr_settings import CXR_ATTRIBUTES
from clinalign.data.reports.labeller import FINDINGS, label_report, label_sentence
from clinalign.data.reports.places import Place

SHORT = {
    "NF": "No Finding", "EC": "Enlarged Cardiomediastinum", "CM": "Cardiomegaly", "LO": "Lung Opacity",
    "LL": "Lung Lesion", "ED": "Edema", "CO": "Consolidation", "PN": "Pneumonia", "AT": "Atelectasis",
    "PX": "Pneumothorax", "PE": "Pleural Effusion", "PO": "Pleural Other", "FX": "Fracture", "SD": "Support Devices",
}  # fmt: skip


def said(text: str) -> dict[str, Any]:
    """What a sentence says, by short names; findings that it does not speak of left out."""
    labels = label_sentence(text).labels
    return {short: labels[name] for short, name in SHORT.items() if labels[name] is not None}


def place(text: str) -> Place:
    """The place of the only positive mention."""
    (found,) = [mention.place for mention in label_sentence(text).mentions if mention.label == 1]
    return found


def check(cases: dict[str, dict[str, Any]]) -> None:
    wrong = {text: said(text) for text, expected in cases.items() if said(text) != expected}
    assert not wrong


def test_each_finding_is_found_by_its_words() -> None:
    check(
        {
            "Widened mediastinum.": {"EC": 1},
            "Enlarged heart.": {"CM": 1},
            "Patchy airspace disease.": {"LO": 1},
            "Several pulmonary nodules.": {"LL": 1},
            "Pulmonary vascular congestion.": {"ED": 1},
            "Alveolar consolidation.": {"CO": 1},
            "Bronchopneumonia.": {"PN": 1},
            "Subsegmental atelectatic changes.": {"AT": 1},
            "Pneumothoraces.": {"PX": 1},
            "Loculated pleural fluid.": {"PE": 1},
            "Pleural plaques.": {"PO": 1},
            "Compression deformity of T8.": {"FX": 1},
            "Sternotomy wires.": {"SD": 1},
            "Degenerative changes of the spine.": {},
        }
    )


def test_the_longest_words_count_and_what_only_sounds_alike_does_not() -> None:
    check(
        {
            "Nodular opacity.": {"LL": 1},
            "Airspace consolidation.": {"CO": 1},
            "Pericardial effusion.": {},
            "Soft tissue mass of the neck.": {},
            "Midline trachea.": {},
            "Findings leading to surgery.": {},
            "Heart failure.": {"ED": 1},
            "Fractured sternotomy wires.": {},
        }
    )


def test_anatomy_is_called_normal_enlarged_or_neither() -> None:
    check(
        {
            "Normal heart size.": {"CM": 0},
            "The heart is mildly enlarged.": {"CM": 1},
            "Heart size and mediastinal contours are within normal limits.": {"CM": 0, "EC": 0},
            "Cardiac and mediastinal contours are normal.": {"CM": 0, "EC": 0},
            "Heart size is borderline.": {"CM": "uncertain"},
            "Heart size at the upper limits of normal.": {"CM": "uncertain"},
            "Heart size is stable.": {},
            "The heart is stable and the mediastinum is widened.": {"EC": 1},
            "The heart is not enlarged.": {"CM": 0},
            "No cardiac enlargement.": {"CM": 0},
            "Enlarged aorta and normal heart.": {"CM": 0},
            "Normal mediastinum and enlarged heart.": {"EC": 0, "CM": 1},
            "The lungs are hyperinflated but clear.": {"LO": 0},
            "Lung volumes are normal.": {},
            "Pleural spaces are clear.": {"PE": 0},
            "Blunting of the left costophrenic angle.": {"PE": "uncertain"},
            "No blunting of the costophrenic angles.": {"PE": 0},
        }
    )


def test_denial_reaches_over_a_list_to_the_end_of_its_clause() -> None:
    check(
        {
            "No focal consolidation, pneumothorax or effusion.": {"CO": 0, "PX": 0, "PE": 0},
            "Negative for pneumothorax, effusion.": {"PX": 0, "PE": 0},
            "Clear lungs without infiltrate.": {"LO": 0},
            "No pneumothorax, small left effusion.": {"PX": 0, "PE": 1},
            "No pneumothorax but a small effusion.": {"PX": 0, "PE": 1},
            "No pneumothorax and the heart is enlarged.": {"PX": 0, "CM": 1},
            "Effusion without pneumothorax.": {"PX": 0, "PE": 1},
            "Pneumothorax or pleural effusion are not seen.": {"PX": 0, "PE": 0},
            "Previously seen edema has resolved.": {"ED": 0},
            "No opacity to suggest pneumonia.": {"LO": 0, "PN": 0},
        }
    )


def test_to_deny_a_change_is_not_to_deny_the_finding() -> None:
    check(
        {
            "No change in the left effusion.": {"PE": 1},
            "Effusion without significant change.": {"PE": 1},
            "No interval increase in edema.": {"ED": 1},
            "No effusion or increase in edema.": {"PE": 0, "ED": 0},
            "No cardiac enlargement or progression of edema.": {"CM": 0, "ED": 0},
            "Opacity not seen on the prior exam.": {"LO": 1},
        }
    )


def test_doubt_before_behind_and_between() -> None:
    check(
        {
            "Possible small effusion, stable cardiomegaly.": {"PE": "uncertain", "CM": 1},
            "Probable edema and cardiomegaly.": {"ED": "uncertain", "CM": 1},
            "Opacity which may represent atelectasis.": {"LO": 1, "AT": "uncertain"},
            "Opacity suspicious for pneumonia.": {"LO": 1, "PN": "uncertain"},
            "Opacity consistent with pneumonia.": {"LO": 1, "PN": 1},
            "Pneumonia cannot be excluded.": {"PN": "uncertain"},
            "Cannot exclude pneumonia.": {"PN": "uncertain"},
            "Atelectasis versus infiltrate.": {"AT": "uncertain", "LO": "uncertain"},
            "Atelectasis or pneumonia.": {"AT": "uncertain", "PN": "uncertain"},
            "No pneumonia or edema.": {"PN": 0, "ED": 0},
            "Borderline cardiomegaly.": {"CM": "uncertain"},
            "Opacity concerning for edema or pneumonia.": {"LO": 1, "ED": "uncertain", "PN": "uncertain"},
            "Opacity is unlikely to represent pneumonia.": {"LO": 1, "PN": "uncertain"},
        }
    )


def test_what_is_only_remembered_is_no_mention() -> None:
    check({"History of pneumonia.": {}, "Sequela of prior infection.": {}, "Status post rib fracture.": {}})


def test_normal_films() -> None:
    check(
        {
            "No acute cardiopulmonary abnormality.": {"NF": 1},
            "No evidence of active disease.": {"NF": 1},
            "Normal chest.": {"NF": 1},
            "No acute bony abnormality.": {},
            "Bony structures are intact with no acute abnormality.": {},
            "Cardiomegaly without acute pulmonary disease.": {"CM": 1},
        }
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small left pleural effusion.", Place("left", (), "small")),
        ("Nodule in the right upper lobe.", Place("right", ("upper",))),
        ("Bibasilar atelectasis.", Place("bilateral", ("lower",))),
        ("Opacities in the lung bases.", Place("bilateral", ("lower",))),
        ("Small left and right pleural effusions.", Place("bilateral", (), "small")),
        ("Opacity in the right middle and lower lobes.", Place("right", ("middle", "lower"))),
        ("Left apical pneumothorax.", Place("left", ("upper",))),
        ("Lingular opacity.", Place(None, ("middle",))),
        ("Right heart failure.", Place()),
        ("Left fracture, minimally displaced.", Place("left")),
        ("Right catheter with its tip in the lower SVC.", Place("right")),
        ("Left cardiomegaly.", Place()),
        ("Elevated right hemidiaphragm with left basilar atelectasis.", Place("left", ("lower",))),
    ],
)
def test_places(text: str, expected: Place) -> None:
    assert place(text) == expected


def test_each_finding_of_a_sentence_has_its_own_place() -> None:
    labels = label_report(
        "Opacity in the left base and large right pleural effusion. Cardiomegaly with left pacemaker."
    )
    assert labels.places("Lung Opacity") == {Place("left", ("lower",))}
    assert labels.places("Pleural Effusion") == {Place("right", (), "large")}
    assert labels.places("Support Devices") == {Place("left")}
    # one place for what is said of one thing
    labels = label_report("Left basilar opacity consistent with pneumonia. Atelectasis and scarring in the right apex.")
    assert labels.places("Pneumonia") == {Place("left", ("lower",))}
    assert labels.places("Atelectasis") == {Place("right", ("upper",))}


def test_a_report_is_positive_before_uncertain_before_negative() -> None:
    labels = label_report("No effusion. Possible effusion. Possible edema. No edema. No pneumothorax. Effusion.").labels
    assert (labels["Pleural Effusion"], labels["Edema"], labels["Pneumothorax"]) == (1, "uncertain", 0)
    assert labels["Fracture"] is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Normal chest.", 1),
        ("No effusion.", 1),
        ("Left pacemaker. No effusion.", 1),
        ("Effusion. No acute cardiopulmonary abnormality.", 0),
        ("Possible effusion.", "uncertain"),
        ("Frontal view.", None),
        ("", None),
    ],
)
def test_no_finding_is_decided_for_the_whole_report(text: str, label: object) -> None:
    assert label_report(text).labels["No Finding"] == label


@pytest.mark.parametrize(
    "text",
    [
        "No focal consolidation, pneumothorax, or small left pleural effusion.",
        "Opacity in the right lower lobe may represent atelectasis or pneumonia.",
        "The heart is enlarged and the mediastinum is normal.",
        "Stable small right effusion without pneumothorax.",
    ],
)
def test_a_removed_word_turns_no_label(text: str) -> None:
    words = text.split()
    plain = label_sentence(text)
    for number in range(len(words) + 1):
        marked = label_sentence(" ".join([*words[:number], "XXXX", *words[number:]]))
        assert marked.mentions == plain.mentions


PHANTOM = {
    "cardiomegaly": "Cardiomegaly",
    "effusion": "Pleural Effusion",
    "consolidation": "Consolidation",
    "pneumothorax": "Pneumothorax",
    "nodule": "Lung Lesion",
    "device": "Support Devices",
}


@pytest.mark.parametrize("negatives", [False, True])
def test_the_reports_of_phantoms_are_read_without_a_mistake(negatives: bool) -> None:
    for seed in range(300):
        draw = random.Random(seed)
        truth = {name: draw.randint(0, 1) for name in CXR_ATTRIBUTES}
        where = {f"{name}_side": draw.choice([-1.0, 1.0]) for name in PHANTOM}
        where |= {f"{name}_{part}": draw.randrange(3) for name in PHANTOM for part in ("zone", "extent", "kind")}
        report = label_report(compose_report(truth, where, negatives))
        absent = 0 if negatives else None
        expected = dict.fromkeys(FINDINGS, None) | {PHANTOM[name]: truth[name] or absent for name in truth}
        sick = any(truth[name] for name in truth if name != "device")
        expected["No Finding"] = 0 if sick else None if truth["device"] and not negatives else 1
        assert report.labels == expected
        for name in ("effusion", "consolidation", "pneumothorax", "nodule", "device"):
            zone = (ZONES[where[f"{name}_zone"]],) if name in ("consolidation", "nodule") else ()
            size = EXTENTS[where[f"{name}_extent"]] if name in ("effusion", "pneumothorax") else None
            places = {Place(SIDES[where[f"{name}_side"]], zone, size)} if truth[name] else set()
            assert report.places(PHANTOM[name]) == places
