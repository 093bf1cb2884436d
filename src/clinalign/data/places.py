"""What a text, a mask or a phantom's truth says about *where* a finding lies and how large it is.

A small reader of plain wording, not a labeller: it knows the findings of the chest phantoms and the skin lesion, and
the words below. Sides of a chest are the patient's (the patient's left is on the picture's right); sides of a lesion
are the picture's. What is not said, or said in two ways, is ``None``: unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

KINDS = ("side", "zone", "size")
"""The clauses that a text may have about a finding."""

SIDES = ("left", "right", "bilateral", "central")
ZONES = ("upper", "middle", "lower")
SIZES = ("small", "moderate", "large")
OFF_CENTRE = 0.06
"""R: a lesion lies left, right, high or low when its centre of mass is further than this from the picture's (sides)."""
LESION_SIZES = (0.12, 0.30)
"""R: a lesion is small below the first share of the picture's area, and large above the second."""

_REGIONS: Mapping[str, str] = {
    "effusion": r"effusions?",
    "consolidation": r"consolidations?",
    "pneumothorax": r"pneumothora(?:x|xes|ces)",
    "nodule": r"nodules?",
    "device": r"pacemakers?|ports?|catheters?|devices?",
    "lesion": r"lesions?",
}
# word -> what it says; "centre" alone means the middle of both axes
_WORDS: Mapping[str, tuple[str, str]] = {
    "left": ("side", "left"), "right": ("side", "right"), "bilateral": ("side", "bilateral"),
    "both": ("side", "bilateral"), "centre": ("side", "central"), "center": ("side", "central"),
    "upper": ("zone", "upper"), "apical": ("zone", "upper"), "top": ("zone", "upper"),
    "middle": ("zone", "middle"), "mid": ("zone", "middle"),
    "lower": ("zone", "lower"), "basal": ("zone", "lower"), "basilar": ("zone", "lower"), "bottom": ("zone", "lower"),
    "small": ("size", "small"), "tiny": ("size", "small"), "moderate": ("size", "moderate"),
    "medium": ("size", "moderate"), "large": ("size", "large"), "massive": ("size", "large"),
}  # fmt: skip
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)
_NAMED = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in _REGIONS.items()}
_NEGATED = re.compile(r"\b(no|not|without|free of|negative for|resolved)\b", re.IGNORECASE)
_SPLIT, _JOINED = re.compile(r"[.;,\n]"), re.compile(r"\b(?:and|with)\b", re.IGNORECASE)
_SIGNS = {-1.0: "right", 1.0: "left"}  # the sign of the picture's x: the patient faces us


@dataclass(frozen=True)
class Place:
    """Where one finding lies, as far as it is said.

    Attributes:
        region: Name of the finding, which is the name of its mask.
        side: One of :data:`SIDES` or ``None``; ``central`` is said of lesions only, ``bilateral`` of chests only.
        zone: One of :data:`ZONES` or ``None``: a third of the lung's height, or of the picture's.
        size: One of :data:`SIZES` or ``None``.
    """

    region: str
    side: str | None = None
    zone: str | None = None
    size: str | None = None

    def clauses(self) -> dict[str, str]:
        """Return what is said: a subset of :data:`KINDS` to its value."""
        return {kind: value for kind in KINDS if (value := getattr(self, kind)) is not None}


@lru_cache(maxsize=65536)
def places_in(text: str) -> tuple[Place, ...]:
    """Read the places that ``text`` states, one a finding, in the order of first mention.

    Sentences are cut at full stops, semicolons and commas, and those that name several findings at "and" and "with";
    a part belongs to the one finding that it names. Negated parts say nothing. ``left and right`` is bilateral; two
    zones or two sizes of one finding are unknown.

    Args:
        text: Prompt or report, for example ``Frontal chest radiograph. Small left pleural effusion.``

    Returns:
        The findings of which something is said; empty where the text says nothing about place.
    """
    said: dict[str, list[dict[str, str]]] = {}
    for part in _parts(text):
        named = [name for name, pattern in _NAMED.items() if pattern.search(part)]
        if len(named) == 1 and not _NEGATED.search(part):
            said.setdefault(named[0], []).append(_read(part))
    places = (Place(region, **_merge(found)) for region, found in said.items())
    return tuple(place for place in places if place.clauses())


def true_places(parameters: Mapping[str, float]) -> tuple[Place, ...]:
    """Return the places of a chest phantom's findings from its truth.

    Args:
        parameters: ``<finding>_side`` (-1 the patient's right, +1 left), ``<finding>_zone`` and ``<finding>_extent``
            (indices into :data:`ZONES` and :data:`SIZES`); others are ignored.
    """
    found: dict[str, dict[str, str]] = {}
    for key, value in parameters.items():
        region, _, what = key.rpartition("_")
        if region not in _REGIONS:
            continue
        if what == "side":
            found.setdefault(region, {})["side"] = _SIGNS[value]
        elif what == "zone":
            found.setdefault(region, {})["zone"] = ZONES[int(value)]
        elif what == "extent":
            found.setdefault(region, {})["size"] = SIZES[int(value)]
    return tuple(Place(region, **clauses) for region, clauses in found.items())


def place_of_mask(mask: npt.NDArray[np.bool_], region: str = "lesion") -> Place | None:
    """Return where the mask of a skin lesion lies in its picture, every clause known, or ``None`` where it is empty.

    Args:
        mask: ``(H, W)`` bool.
        region: Its name.

    Returns:
        Side and zone by the centre of mass (:data:`OFF_CENTRE`), size by the share of the area (:data:`LESION_SIZES`).
    """
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        return None
    x, y = ((line.mean() + 0.5) / side - 0.5 for line, side in zip((columns, rows), mask.shape[::-1], strict=True))
    return Place(
        region,
        "left" if x < -OFF_CENTRE else "right" if x > OFF_CENTRE else "central",
        "upper" if y < -OFF_CENTRE else "lower" if y > OFF_CENTRE else "middle",
        SIZES[int(np.digitize(mask.mean(), LESION_SIZES))],
    )


def lesion_words(mask: npt.NDArray[np.bool_]) -> str | None:
    """Return for example ``small lesion in the upper left``, or ``None`` for an empty mask.

    An axis on which the lesion is in the middle is not named, unless both are: ``in the centre``.
    """
    place = place_of_mask(mask)
    if place is None:
        return None
    if place.side == "central":
        where = "in the centre" if place.zone == "middle" else f"in the {place.zone} part"
    else:
        where = f"on the {place.side}" if place.zone == "middle" else f"in the {place.zone} {place.side}"
    return f"{place.size} lesion {where}"


def contradicted(text: str, random: np.random.Generator) -> str | None:
    """Return ``text`` with every word about side, zone and size of its findings made wrong.

    Left changes with right; a zone or a size becomes one of the two others; ``centre`` becomes a corner; bilateral
    becomes left or right. Whatever else the text says stays.

    Returns:
        The wrong text, or ``None`` where the text says nothing about place that could be made wrong word by word.
    """

    def other(match: re.Match[str]) -> str:
        kind, value = _WORDS[match[0].lower()]
        if value == "central":
            return f"{_pick(('upper', 'lower'), random)} {_pick(('left', 'right'), random)}"
        if kind == "side":
            word = {"left": "right", "right": "left"}.get(value) or _pick(("left", "right"), random)
        else:
            word = _pick([name for name in (ZONES if kind == "zone" else SIZES) if name != value], random)
        return word.capitalize() if match[0][0].isupper() else word

    wrong = []
    for part in re.split(r"([.;,\n])", text):  # the separators stay in the list
        names = any(pattern.search(part) for pattern in _NAMED.values())
        wrong.append(_WORD.sub(other, part) if names and not _NEGATED.search(part) else part)
    changed = "".join(wrong)
    return changed if places_in(changed) != places_in(text) else None


def _pick(words: Iterable[str], random: np.random.Generator) -> str:
    """Return one of ``words``."""
    choice = list(words)
    return choice[int(random.integers(len(choice)))]


def _parts(text: str) -> Iterable[str]:
    """Yield the parts of a text; those with several findings are cut at "and" and "with"."""
    for part in _SPLIT.split(text):
        several = sum(bool(pattern.search(part)) for pattern in _NAMED.values()) > 1
        yield from _JOINED.split(part) if several else (part,)


def _read(part: str) -> dict[str, str]:
    """Return what the words of one part say; what is said in two ways is left out."""
    values: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for word in _WORD.findall(part):
        kind, value = _WORDS[word.lower()]
        values[kind].add(value)
    sides = values["side"]
    if "central" in sides:
        sides -= {"central"} if len(sides) > 1 else set()
        values["zone"] = values["zone"] or {"middle"}
    if {"left", "right"} <= sides:
        values["side"] = {"bilateral"}
    return {kind: next(iter(found)) for kind, found in values.items() if len(found) == 1}


def _merge(found: list[dict[str, str]]) -> dict[str, str]:
    """Join what several parts say of one finding: other sides make it bilateral, other zones or sizes unknown."""
    values = {kind: {part[kind] for part in found if kind in part} for kind in KINDS}
    merged = {kind: next(iter(said)) for kind, said in values.items() if len(said) == 1}
    if {"left", "right"} <= values["side"] or "bilateral" in values["side"]:
        merged["side"] = "bilateral"
    return merged
