"""Makes hard negatives of a report: the same text with one thing made untrue.

A consistency reward that is trained on random pairs learns to tell a normal film from a sick one; whether it reads
``left`` is tested, and taught, by texts that differ in that word alone. The labeller confirms each flip: one whose
labels do not change, or change elsewhere too, is not returned.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from clinalign.core.errors import UserError, nearest
from clinalign.data.reports.flip_words import (
    ASSERTED,
    DENIED,
    NOTHING,
    SIDE_PAIRS,
    ZONE_ALIASES,
    ZONE_PAIRS,
)
from clinalign.data.reports.labeller import ReportLabels, SentenceLabels, label_report, label_sentence
from clinalign.data.reports.places import Place
from clinalign.data.reports.vocabulary import FINDINGS, NO_FINDING

Kind = Literal["side", "zone", "remove", "negate", "add"]
KINDS: tuple[Kind, ...] = ("side", "zone", "remove", "negate", "add")
ADDED = ("Cardiomegaly", "Consolidation", "Lung Lesion", "Pleural Effusion", "Pneumothorax", "Support Devices")
"""Findings that are added by default where a report does not speak of them: those of the chest phantoms."""

_LUNG = {"Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis"}
_OTHER_SIDE = {"left": "right", "right": "left"}
_ZONE_ORDER = ("upper", "middle", "lower")
_OTHER_ZONE = {"upper": "lower", "lower": "upper"}


@dataclass(frozen=True)
class Flip:
    """A report with one thing made untrue.

    Attributes:
        text: The changed report.
        kind: ``side`` or ``zone`` (the other one), ``remove`` (no longer spoken of), ``negate`` (said to be absent) or
            ``add`` (said to be there; was absent or not spoken of).
        finding: The finding that it is about.
    """

    text: str
    kind: Kind
    finding: str


def make_flips(text: str, kinds: Collection[str] = KINDS, added: Collection[str] = ADDED) -> list[Flip]:
    """Return the hard negatives of a report, in the order of the findings and of ``KINDS``; same text, same flips.

    Side and zone change in every sentence that says the finding is there. Another finding that the same words place
    (``left basilar opacity and atelectasis``) moves with it. Sentences that speak of several findings are not removed
    or negated. What is added has a side, zone and size that depend on the text alone, and stands at the end or in place
    of its denial; a sentence that calls the film normal then goes.

    Args:
        text: A report, or a section of it.
        kinds: Which kinds to make.
        added: Findings to add where they are not spoken of; what is denied can always be added.

    Raises:
        UserError: When a kind or a finding is unknown.
    """
    _check(kinds, KINDS, "a kind of flip")
    _check(added, tuple(DENIED), "a finding that can be added")
    before = label_report(text)
    makers: Mapping[str, Callable[[ReportLabels, str], list[str] | None]] = {
        "side": _side,
        "zone": _zone,
        "remove": _remove,
        "negate": _negate,
        "add": lambda report, finding: _add(report, finding, finding in added),
    }
    flips: dict[str, Flip] = {}
    for finding in FINDINGS[1:]:
        for kind in KINDS:
            sentences = makers[kind](before, finding) if kind in kinds else None
            if sentences:
                changed = " ".join(sentences)
                if _confirmed(before, label_report(changed), kind, finding):
                    flips.setdefault(changed, Flip(changed, kind, finding))
    return list(flips.values())


def _check(given: Collection[str], known: Collection[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise UserError(f"'{name}' is not {what}: {nearest(name, known)}")


def _there(report: ReportLabels | SentenceLabels, finding: str) -> frozenset[Place]:
    return frozenset(item.place for item in report.mentions if item.finding == finding and item.label == 1)


def _swapped(places: Collection[Place], kind: str) -> frozenset[Place]:
    """The places with the other side or zone."""
    if kind == "side":
        return frozenset(replace(place, side=_OTHER_SIDE.get(place.side or "", place.side)) for place in places)
    return frozenset(
        replace(
            place, zones=tuple(sorted((_OTHER_ZONE.get(zone, zone) for zone in place.zones), key=_ZONE_ORDER.index))
        )
        for place in places
    )


def _confirmed(before: ReportLabels, after: ReportLabels, kind: Kind, finding: str) -> bool:
    """Whether the labels changed as meant, and in nothing else."""
    old, new = before.labels, after.labels
    others = [name for name in FINDINGS[1:] if name != finding]
    if any(old[name] != new[name] for name in others):
        return False
    if kind in ("side", "zone"):
        moved = [name for name in others if _there(before, name) != _there(after, name)]
        return (
            old[finding] == new[finding]
            and _there(after, finding) == _swapped(_there(before, finding), kind) != _there(before, finding)
            and all(_linked(before, after, name, kind) for name in moved)
        )
    if any(_there(before, name) != _there(after, name) for name in others):
        return False
    if kind == "add":
        return old[finding] in (0, None) and new[finding] == 1
    return old[finding] == 1 and new[finding] == (0 if kind == "negate" else None)


def _linked(before: ReportLabels, after: ReportLabels, name: str, kind: Kind) -> bool:
    """Whether another finding moved only within sentences, to the other side or zone."""
    pairs = zip(before.sentences, after.sentences)
    return all(_there(new, name) in (_there(old, name), _swapped(_there(old, name), kind)) for old, new in pairs)


def _side(report: ReportLabels, finding: str) -> list[str] | None:
    return _moved(report, finding, "side", {**SIDE_PAIRS, **{second: first for first, second in SIDE_PAIRS.items()}})


def _zone(report: ReportLabels, finding: str) -> list[str] | None:
    back = {second: first for first, second in ZONE_PAIRS.items()}
    return _moved(report, finding, "zone", {**ZONE_PAIRS, **back, **ZONE_ALIASES})


def _moved(report: ReportLabels, finding: str, kind: Kind, words: Mapping[str, str]) -> list[str] | None:
    """Swap the words of a place in each sentence that says that the finding is there.

    A left lung has no middle lobe: such a text would give itself away, and is not made.
    """
    sentences = []
    for sentence in report.sentences:
        meant = _swapped(_there(sentence, finding), kind)
        if meant == _there(sentence, finding):
            sentences.append(sentence.text)
            continue
        for text in _swaps(sentence.text, words):
            if _there(label_sentence(text), finding) == meant and not re.search(r"(?i)\bleft middle lobe", text):
                sentences.append(text)
                break
        else:
            return None
    return sentences


def _swaps(text: str, words: Mapping[str, str]) -> Iterator[str]:
    """The text with one word swapped, each in turn, then with all of them swapped."""
    pattern = re.compile(rf"\b(?:{'|'.join(sorted(words, key=len, reverse=True))})\b", re.IGNORECASE)
    hits = list(pattern.finditer(text))
    for hit in hits:
        yield text[: hit.start()] + _like(hit.group(), words[hit.group().lower()]) + text[hit.end() :]
    if len(hits) > 1:
        yield pattern.sub(lambda hit: _like(hit.group(), words[hit.group().lower()]), text)


def _like(model: str, word: str) -> str:
    return word.upper() if model.isupper() else word.capitalize() if model[0].isupper() else word


def _about(sentence: SentenceLabels) -> set[str]:
    return {mention.finding for mention in sentence.mentions}


def _without(report: ReportLabels, finding: str, instead: str | None = None) -> list[str] | None:
    """Take out the sentences about one finding; ``instead`` stands where the first that asserts it stood."""
    sentences = []
    for sentence in report.sentences:
        if finding not in _about(sentence):
            sentences.append(sentence.text)
        elif _about(sentence) != {finding}:
            return None
        elif instead and _there(sentence, finding):
            sentences.append(instead)
            instead = None
    return sentences


def _remove(report: ReportLabels, finding: str) -> list[str] | None:
    if report.labels[finding] != 1:
        return None
    sentences = _without(report, finding)
    if sentences is not None and not any(_about(label_sentence(sentence)) for sentence in sentences):
        sentences.append(NOTHING)  # as a report of a film without findings says
    return sentences


def _negate(report: ReportLabels, finding: str) -> list[str] | None:
    return _without(report, finding, DENIED[finding]) if report.labels[finding] == 1 else None


def _add(report: ReportLabels, finding: str, unspoken: bool) -> list[str] | None:
    label = report.labels[finding]
    clear = report.labels["Lung Opacity"] == 0 and finding in _LUNG and finding != "Lung Opacity"
    if label not in (0, None) or (label is None and (clear or not unspoken)):
        return None  # "the lungs are clear" beside a nodule would contradict itself
    new = _asserted(report, finding)
    sentences: list[str] = []
    for sentence in report.sentences:
        if _about(sentence) == {NO_FINDING}:
            continue
        if finding not in _about(sentence):
            sentences.append(sentence.text)
            continue
        if any(mention.label != 0 for mention in sentence.mentions):
            return None
        for name in dict.fromkeys(mention.finding for mention in sentence.mentions):
            if name != finding:
                sentences.append(DENIED[name])
            elif new not in sentences:
                sentences.append(new)
    return sentences if new in sentences else [*sentences, new]


def _asserted(report: ReportLabels, finding: str) -> str:
    """Say that the finding is there, at a place that depends on the text and the finding alone."""
    text = " ".join(sentence.text for sentence in report.sentences)
    number = int.from_bytes(hashlib.sha256(f"{text}\x1f{finding}".encode()).digest()[:4], "big")
    side, zone = ("left", "right")[number % 2], _ZONE_ORDER[number // 2 % 3]
    size = ("Small", "Moderate", "Large")[number // 6 % 3]
    return ASSERTED[finding].format(side=side, Side=side.capitalize(), zone=zone, size=size)
