from __future__ import annotations

import itertools

import numpy as np
import pytest

from clinalign.data.prompts import ARTIFACTS, PromptSettings, age_band, chest_prompt, skin_prompt

NONE = {"hair": 0, "gel_bubble": 0, "ruler": 0, "ink": 0}
MELANOMA = {"MEL": 1, "NV": 0}
NEVUS = {"MEL": 0, "NV": 1}


def test_the_published_prompts_word_for_word() -> None:
    assert skin_prompt({**MELANOMA, **NONE}) == "a dermoscopic image with melanoma (MEL) with no visible artifacts"
    everything = dict.fromkeys(NONE, 1)
    assert (
        skin_prompt({**everything, **NEVUS})
        == "a dermoscopic image with melanocytic nevus (NV) showing hair, gel bubble, ruler, ink"
    )


def test_the_two_diagnoses_and_four_artifacts_give_32_different_prompts() -> None:
    texts = {
        skin_prompt({**diagnosis, **dict(zip(ARTIFACTS, bits, strict=True))})
        for diagnosis in (MELANOMA, NEVUS)
        for bits in itertools.product((0, 1), repeat=4)
    }
    assert len(texts) == 32


def test_the_order_of_artifacts_is_the_published_one_whatever_the_order_of_the_labels() -> None:
    labels = {"ink": 1, "ruler": 0, "hair": 1, "gel_bubble": 0, **NEVUS}
    assert skin_prompt(labels).endswith("showing hair, ink")


def test_an_unknown_artifact_leaves_the_clause_out_rather_than_promise_its_absence() -> None:
    assert skin_prompt({**MELANOMA, **NONE, "ink": None}) == "a dermoscopic image with melanoma (MEL)"
    assert skin_prompt(MELANOMA) == "a dermoscopic image with melanoma (MEL)"


def test_dark_corner_comes_after_ink_when_asked_for() -> None:
    labels = {**NEVUS, **NONE, "ink": 1, "dark_corner": 1}
    assert skin_prompt(labels).endswith("showing ink")
    assert skin_prompt(labels, settings=PromptSettings(dark_corner=True)).endswith("showing ink, dark corner")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (PromptSettings(diagnosis=False), "a dermoscopic image with no visible artifacts"),
        (PromptSettings(artifacts=False), "a dermoscopic image with melanoma (MEL)"),
        (
            PromptSettings(artifacts=False, age_band=True, sex=True, site=True),
            "a dermoscopic image with melanoma (MEL), aged 30 or younger, female, on the back",
        ),
    ],
)
def test_clauses_can_be_chosen(settings: PromptSettings, text: str) -> None:
    subgroups = {"age_band": "<=30", "sex": "female", "site": "back"}
    assert skin_prompt({**MELANOMA, **NONE}, subgroups, settings) == text


def test_the_lesion_is_placed_when_asked_for_and_its_mask_is_known() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:6, 12:] = True
    settings = PromptSettings(artifacts=False, sex=True, lesion=True)
    text = skin_prompt(MELANOMA, {"sex": "female"}, settings, mask)
    assert text == "a dermoscopic image with melanoma (MEL), moderate lesion in the upper right, female"
    assert skin_prompt(MELANOMA, settings=settings) == "a dermoscopic image with melanoma (MEL)"
    assert skin_prompt(MELANOMA, settings=settings, lesion=np.zeros((4, 4), dtype=bool)).endswith("(MEL)")
    assert "lesion" not in skin_prompt(MELANOMA, lesion=mask)


def test_unknown_subgroups_are_not_spoken_of() -> None:
    settings = PromptSettings(artifacts=False, age_band=True, sex=True, site=True)
    assert skin_prompt(MELANOMA, {"age_band": None, "sex": None}, settings) == "a dermoscopic image with melanoma (MEL)"


def test_chest_prompts() -> None:
    absent = {"Cardiomegaly": 0, "Effusion": 0, "Pleural_Thickening": 0}
    assert chest_prompt(absent, "AP") == "Frontal chest radiograph, AP view. No finding."
    found = {"Cardiomegaly": 1, "Effusion": 1, "Pleural_Thickening": 1}
    assert chest_prompt(found, "PA") == (
        "Frontal chest radiograph, PA view. Cardiomegaly. Effusion. Pleural thickening."
    )
    assert chest_prompt({**absent, "Effusion": None}) == "Frontal chest radiograph."


@pytest.mark.parametrize(
    ("age", "band"),
    [(0, "<=30"), (30, "<=30"), (31, "31-50"), (50, "31-50"), (70, "51-70"), (71, ">70"), (411, None), (None, None)],
)
def test_age_bands(age: float | None, band: str | None) -> None:
    assert age_band(age) == band
