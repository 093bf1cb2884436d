"""Texts that are wrong in one fact: a finding removed, added or exchanged, its side or its zone changed.

They are the hard negatives of an image-text model and the wrong cases of a reward that reads the text. Where the text
is one of this tool's own (a prompt or a phantom's report), the fact is changed in its structure and the text composed
anew; any other text is changed by a few rules on its words. A fact that is not known is never changed: the result might
be true.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple, Protocol

import numpy as np

from clinalign.core.types import Case
from clinalign.data.phantoms.cxr_rewrite import read_report, rewrites
from clinalign.data.prompts import DIAGNOSES, VIEW_WORDS, PromptSettings, chest_prompt, skin_prompt

KINDS = ("removed", "added", "swapped", "side", "zone")
"""Finding left out; finding added; diagnosis exchanged for another; left for right; upper for lower or middle."""

_SETTINGS = [  # the published template first
    PromptSettings(**dict(zip([entry.name for entry in fields(PromptSettings)], values)))
    for values in sorted(itertools.product((True, False), repeat=len(fields(PromptSettings))), reverse=True)
]
_SETTINGS.sort(key=lambda settings: settings != PromptSettings())
_SWAPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "side": {"left": ("right",), "right": ("left",)},
    "zone": {
        "upper": ("lower", "middle"),
        "middle": ("upper", "lower"),
        "lower": ("upper", "middle"),
        "apical": ("basal",),
        "basal": ("apical",),
    },
}
_DENIAL = re.compile(r"\b(no|not|without|free of|negative for|resolved)\b", re.IGNORECASE)

Attributes = Mapping[str, "int | None"]


class Flip(NamedTuple):
    """A text that is wrong in one fact, the fact's kind (one of :data:`KINDS`), and the attribute it is about."""

    text: str
    kind: str
    about: str = ""


class Flipper(Protocol):
    """Makes wrong texts of a case."""

    def __call__(self, case: Case, random: np.random.Generator) -> list[Flip]:
        """Return texts that differ from ``case.text`` in one fact each; empty where none can be made."""
        ...


def text_flips(case: Case, random: np.random.Generator) -> list[Flip]:
    """Return every text that differs from the case's in one known fact; none equals it.

    Args:
        case: Text, attributes and subgroups; an attribute that is ``None`` or missing is neither added nor removed.
        random: Chooses place and size of an added finding, the other zone, the other diagnosis.
    """
    facts = read_report(case.text)
    if facts is not None:
        allowed = {"removed": 1, "added": 0}
        found = [
            Flip(text, kind, name)
            for kind, name, text in rewrites(facts, random)
            if kind not in allowed or case.attributes.get(name) == allowed[kind]
        ]
    else:
        compose = _composer(case)
        found = list(_recomposed(case, compose, random)) if compose else list(_reworded(case, random))
    return [flip for flip in dict.fromkeys(found) if flip.text != case.text]


def balanced_flips(
    cases: Sequence[Case], random: np.random.Generator, flipper: Flipper = text_flips
) -> list[Flip | None]:
    """Return one flip of each case, so chosen that each finding is removed exactly as often as it is added.

    Most findings are rare, so most flips of a case add one, and a model that has only learnt which texts are usual
    would tell nearly all of them. Balanced, what it wins on additions it loses on removals: without a look at the image
    it is near one half.

    Args:
        cases: The cases among which to balance.
        random: Decides the order and between flips that serve as well.
        flipper: Makes the flips.

    Returns:
        A flip for each case, ``None`` for a case without one or without one that keeps the balance.
    """
    chosen: list[Flip | None] = [None] * len(cases)
    surplus: Counter[str] = Counter()  # of removals, by finding
    for number in random.permutation(len(cases)).tolist():
        options = flipper(cases[number], random)
        useful = [flip for flip in options if _serves(flip, surplus)]
        kinds = sorted({flip.kind for flip in useful})
        if not kinds:
            continue
        kind = kinds[random.integers(len(kinds))]
        same = [flip for flip in useful if flip.kind == kind]
        flip = same[random.integers(len(same))]
        chosen[number] = flip
        surplus[flip.about] += {"removed": 1, "added": -1}.get(flip.kind, 0)
    for number, taken in enumerate(chosen):
        if taken is not None and taken.kind == "removed" and surplus[taken.about] > 0:
            surplus[taken.about] -= 1
            chosen[number] = None
    return chosen


def _serves(flip: Flip, surplus: Counter[str]) -> bool:
    """Say whether a flip may be taken: an addition only where removals of the finding await one."""
    return flip.kind != "added" or surplus[flip.about] > 0


def _composer(case: Case) -> Callable[[Attributes], str] | None:
    """Return what wrote the case's text from its attributes: the prompt that gives it back to the letter."""
    for view in (None, *VIEW_WORDS):
        if chest_prompt(case.attributes, view) == case.text:
            return lambda attributes: chest_prompt(attributes, view)
    for settings in _SETTINGS:
        if skin_prompt(case.attributes, case.subgroups, settings) == case.text:
            return lambda attributes: skin_prompt(attributes, case.subgroups, settings)
    return None


def _recomposed(case: Case, compose: Callable[[Attributes], str], random: np.random.Generator) -> Iterator[Flip]:
    """Flip each known attribute that the text speaks of, and exchange the diagnosis for another that is known."""
    truth = dict(case.attributes)
    for name, value in truth.items():
        if name not in DIAGNOSES and value is not None:
            yield Flip(compose({**truth, name: 1 - value}), "removed" if value else "added", name)
    present = [name for name in DIAGNOSES if truth.get(name) == 1]
    absent = [name for name in DIAGNOSES if truth.get(name) == 0]
    if len(present) == 1 and absent:
        other = absent[random.integers(len(absent))]
        yield Flip(compose({**truth, present[0]: 0, other: 1}), "swapped", other)


def _reworded(case: Case, random: np.random.Generator) -> Iterator[Flip]:
    """Change any other text sentence by sentence: exchange side and zone words, leave out or add a finding by name."""
    sentences = [part for part in re.split(r"(?<=\.)\s+", case.text.strip()) if part]
    for place, sentence in enumerate(sentences):
        for kind, table in _SWAPS.items():
            other = _exchanged(sentence, table, random)
            if other != sentence:
                yield Flip(_joined(sentences, place, other), kind)
    for name, value in case.attributes.items():
        words = name.replace("_", " ").lower()
        naming = [place for place, part in enumerate(sentences) if words in part.lower() and not _DENIAL.search(part)]
        if value == 1 and len(naming) == 1 and len(sentences) > 1:
            yield Flip(_joined(sentences, naming[0], ""), "removed", name)
        elif value == 0 and not naming:
            kept = [part for part in sentences if words not in part.lower()]  # "no effusion" gives way to "effusion"
            yield Flip(" ".join([*kept, f"{words.capitalize()}."]), "added", name)


def _exchanged(sentence: str, table: Mapping[str, tuple[str, ...]], random: np.random.Generator) -> str:
    """Replace each word of ``table`` by one of its opposites, keeping a capital letter."""

    def other(found: re.Match[str]) -> str:
        choices = table[found.group().lower()]
        word = choices[random.integers(len(choices))]
        return word.capitalize() if found.group()[0].isupper() else word

    return re.sub(rf"\b({'|'.join(table)})\b", other, sentence, flags=re.IGNORECASE)


def _joined(sentences: list[str], place: int, instead: str) -> str:
    """Return the text with one sentence replaced, or left out where ``instead`` is empty."""
    return " ".join(part for part in [*sentences[:place], instead, *sentences[place + 1 :]] if part)
