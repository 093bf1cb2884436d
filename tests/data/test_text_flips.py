"""A flipped text is wrong in one known fact, and in no other."""

from __future__ import annotations

import numpy as np
import pytest

from clinalign.core.types import Case
from clinalign.data.phantoms.cxr import draw_cxr
from clinalign.data.phantoms.cxr_rewrite import read_report
from clinalign.data.phantoms.cxr_settings import CxrSettings
from clinalign.data.prompts import PromptSettings, chest_prompt, skin_prompt
from clinalign.data.text_flips import balanced_flips, text_flips

SKIN = {"hair": 1, "gel_bubble": 0, "ruler": 0, "ink": 0, "MEL": 1, "NV": 0}


def flips(text: str, **more: object) -> dict[str, list[str]]:
    """Kind to the flipped texts of a case."""
    found: dict[str, list[str]] = {}
    for flip in text_flips(Case("1", text, **more), np.random.default_rng(0)):  # type: ignore[arg-type]
        found.setdefault(flip.kind, []).append(flip.text)
    return found


@pytest.mark.parametrize("negatives", [False, True])
def test_a_phantom_report_is_read_back_to_the_letter(negatives: bool) -> None:
    for seed in range(40):
        phantom = draw_cxr(seed, 16, settings=CxrSettings(report_negatives=negatives))
        facts = read_report(phantom.report or "")
        assert facts is not None
        assert facts.attributes == phantom.attributes
        assert facts.compose() == phantom.report
    assert read_report("The lungs are clear.") is None


def test_a_phantom_report_is_flipped_fact_by_fact() -> None:
    text = "Frontal chest radiograph. Cardiomegaly. Nodule in the left lower zone."
    truth = dict.fromkeys(("effusion", "consolidation", "pneumothorax", "device"), 0) | {"cardiomegaly": 1, "nodule": 1}
    found = flips(text, attributes=truth)
    assert found["removed"] == [
        "Frontal chest radiograph. Nodule in the left lower zone.",
        "Frontal chest radiograph. Cardiomegaly.",
    ]
    assert found["side"] == ["Frontal chest radiograph. Cardiomegaly. Nodule in the right lower zone."]
    assert len(found["added"]) == 4
    assert len(found["zone"]) == 1
    assert "left upper" in found["zone"][0] or "left middle" in found["zone"][0]


def test_a_fact_that_is_not_known_is_not_flipped() -> None:
    text = "Frontal chest radiograph. Cardiomegaly."
    found = flips(text, attributes={"cardiomegaly": None, "effusion": 0, "nodule": None})
    assert list(found) == ["added"]
    assert len(found["added"]) == 1
    assert "effusion" in found["added"][0]
    prompt = {"Mass": 1, "Nodule": None, "Edema": 0}
    chest = flips(chest_prompt(prompt, "AP"), attributes=prompt)
    assert chest == {
        "removed": ["Frontal chest radiograph, AP view."],
        "added": ["Frontal chest radiograph, AP view. Mass. Edema."],
    }


@pytest.mark.parametrize("settings", [PromptSettings(), PromptSettings(age_band=True, sex=True)])
def test_a_skin_prompt_is_composed_anew_with_the_clauses_it_had(settings: PromptSettings) -> None:
    person = {"age_band": "<=30", "sex": "female", "site": "back"}
    found = flips(skin_prompt(SKIN, person, settings), attributes=SKIN, subgroups=person)
    assert found["swapped"] == [skin_prompt({**SKIN, "MEL": 0, "NV": 1}, person, settings)]
    assert found["removed"] == [skin_prompt({**SKIN, "hair": 0}, person, settings)]
    assert len(found["added"]) == 3


def test_other_texts_are_changed_by_their_words() -> None:
    text = "Left lower lobe opacity. No effusion. The heart is normal."
    found = flips(text, attributes={"effusion": 0, "opacity": 1})
    assert found["side"] == ["Right lower lobe opacity. No effusion. The heart is normal."]
    assert found["zone"][0].split()[1] in ("upper", "middle")
    assert found["removed"] == ["No effusion. The heart is normal."]
    assert found["added"] == ["Left lower lobe opacity. The heart is normal. Effusion."]


def test_a_text_without_a_fact_has_no_flip() -> None:
    assert flips("") == {}
    assert flips("a dermoscopic image") == {}


def test_each_finding_is_removed_as_often_as_it_is_added() -> None:
    names = ("Mass", "Edema", "Hernia", "Fibrosis")
    cases = []
    for number in range(80):
        truth = {name: int(number % 8 == place) for place, name in enumerate(names)}  # rare, and often nothing at all
        cases.append(Case(str(number), chest_prompt(truth), truth))
    chosen = balanced_flips(cases, np.random.default_rng(0))
    taken = [flip for flip in chosen if flip is not None]
    assert len(taken) >= 50  # forty can lose a finding, and nearly as many gain one
    for name in names:
        kinds = [flip.kind for flip in taken if flip.about == name]
        assert kinds.count("removed") == kinds.count("added") > 5
    assert all(flip is None or flip.text != case.text for flip, case in zip(chosen, cases))
    assert balanced_flips([Case("1", "x")], np.random.default_rng(0)) == [None]


def test_flips_differ_from_the_text_and_from_each_other() -> None:
    random = np.random.default_rng(0)
    for seed in range(30):
        phantom = draw_cxr(seed, 16)
        case = Case(str(seed), phantom.report or "", phantom.attributes)
        texts = [flip.text for flip in text_flips(case, random)]
        assert len(set(texts)) == len(texts) >= 6
        assert case.text not in texts
