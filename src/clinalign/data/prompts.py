"""Texts from structured labels; such a text is never parsed back into labels.

Dermoscopy follows RL4Med-DDPO (Saremi et al., MICCAI 2025): ``a dermoscopic image with <disease> <artefacts>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clinalign.data.places import lesion_words

DIAGNOSES: Mapping[str, str] = {
    "MEL": "melanoma (MEL)",
    "NV": "melanocytic nevus (NV)",
    "BKL": "benign keratosis (BKL)",
    "BCC": "basal cell carcinoma (BCC)",
    "AKIEC": "actinic keratosis (AKIEC)",
    "DF": "dermatofibroma (DF)",
    "VASC": "vascular lesion (VASC)",
}
"""Attribute name of a diagnosis to its words."""

ARTIFACTS: Mapping[str, str] = {"hair": "hair", "gel_bubble": "gel bubble", "ruler": "ruler", "ink": "ink"}
"""Attribute name of an artifact to its words, in the order of the published prompts."""

AGE_WORDS: Mapping[str, str] = {
    "<=30": "aged 30 or younger",
    "31-50": "aged 31 to 50",
    "51-70": "aged 51 to 70",
    ">70": "older than 70",
}
VIEW_WORDS: Mapping[str, str] = {"PA": "Frontal chest radiograph, PA view.", "AP": "Frontal chest radiograph, AP view."}

Labels = Mapping[str, "int | None"]
Subgroups = Mapping[str, "str | None"]


@dataclass(frozen=True)
class PromptSettings:
    """Which clauses a dermoscopy prompt has. The defaults are the published template.

    Attributes:
        diagnosis: Name the diagnosis.
        artifacts: Name the artifacts, or that none is visible; left out where one of them is unknown.
        dark_corner: Count the dark corner among the artifacts, after ink.
        age_band: Name the age band, where known.
        sex: Name the sex, where known.
        site: Name the body site, where known.
        lesion: Name size and place of the lesion in the picture (R), where its mask is known.
    """

    diagnosis: bool = True
    artifacts: bool = True
    dark_corner: bool = False
    age_band: bool = False
    sex: bool = False
    site: bool = False
    lesion: bool = False

    def named(self, attributes: Iterable[str]) -> tuple[str, ...]:
        """Return those of ``attributes`` that the prompts speak of."""
        spoken = {
            *(DIAGNOSES if self.diagnosis else ()),
            *(ARTIFACTS if self.artifacts else ()),
            *(("dark_corner",) if self.artifacts and self.dark_corner else ()),
        }
        return tuple(name for name in attributes if name in spoken)


@dataclass(frozen=True)
class ChestPromptSettings:
    """What the text of a chest film is.

    Attributes:
        report: The report, with side, zone and size of what is seen; otherwise the findings' names alone.
    """

    report: bool = True


def skin_prompt(
    attributes: Labels,
    subgroups: Subgroups | None = None,
    settings: PromptSettings = PromptSettings(),
    lesion: npt.NDArray[np.bool_] | None = None,
) -> str:
    """Write the prompt of a dermoscopic image.

    Args:
        attributes: Name to 1, 0 or ``None`` (unknown).
        subgroups: ``age_band``, ``sex``, ``site``; asked only for the clauses that ``settings`` turns on.
        settings: Which clauses to write.
        lesion: ``(H, W)`` mask of the lesion, where known; asked only when ``settings.lesion`` is on.

    Returns:
        For example ``a dermoscopic image with melanoma (MEL) showing hair, ruler``.
    """
    words = ["a dermoscopic image"]
    if settings.diagnosis:
        words += [f"with {text}" for name, text in DIAGNOSES.items() if attributes.get(name) == 1]
    if settings.artifacts:
        words += _artifact_clause(attributes, settings.dark_corner)
    place = lesion_words(lesion) if settings.lesion and lesion is not None else None
    return " ".join(words) + (f", {place}" if place else "") + _person_clause(subgroups or {}, settings)


def _artifact_clause(attributes: Labels, dark_corner: bool) -> list[str]:
    """The artifacts in published order; nothing where one is unknown, for the prompt would then promise too much."""
    names = {**ARTIFACTS, **({"dark_corner": "dark corner"} if dark_corner else {})}
    if any(attributes.get(name) is None for name in names):
        return []
    seen = [text for name, text in names.items() if attributes[name] == 1]
    return [f"showing {', '.join(seen)}" if seen else "with no visible artifacts"]


def _person_clause(subgroups: Subgroups, settings: PromptSettings) -> str:
    """The clauses on age, sex and body site, each after a comma."""
    clauses = []
    age, sex, site = subgroups.get("age_band"), subgroups.get("sex"), subgroups.get("site")
    if settings.age_band and age:
        clauses.append(AGE_WORDS.get(age, f"age {age}"))
    if settings.sex and sex:
        clauses.append(sex)
    if settings.site and site:
        clauses.append(f"on the {site}")
    return "".join(f", {clause}" for clause in clauses)


def chest_prompt(findings: Labels, view: str | None = None) -> str:
    """Write the prompt of a frontal chest film from its findings.

    Args:
        findings: Finding to 1, 0 or ``None`` (unknown), in the order in which they are named.
        view: ``PA``, ``AP`` or ``None``.

    Returns:
        For example ``Frontal chest radiograph, PA view. Cardiomegaly. Effusion.``; with all findings absent the text
        ends in ``No finding.``; where none is present and some are unknown nothing is said of them.
    """
    text = VIEW_WORDS.get(view or "", "Frontal chest radiograph.")
    present = [name.replace("_", " ") for name, value in findings.items() if value == 1]
    if not present and all(value == 0 for value in findings.values()):
        present = ["No finding"]
    return " ".join([text, *(f"{name[0].upper()}{name[1:].lower()}." for name in present)])


def age_band(age: float | None) -> str | None:
    """Return the band of an age in years: ``<=30``, ``31-50``, ``51-70`` or ``>70``.

    Ages below 0 or above 120 are errors of the table (ChestX-ray14 has some above 400) and count as unknown.
    """
    if age is None or not 0 <= age <= 120:
        return None
    return "<=30" if age <= 30 else "31-50" if age <= 50 else "51-70" if age <= 70 else ">70"
