"""Measures a labeller of reports against annotated sentences."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from clinalign.core.errors import UserError
from clinalign.data.reports.labeller import SentenceLabels, label_sentence
from clinalign.data.reports.scopes import Label
from clinalign.data.reports.vocabulary import FINDINGS

_LABELS: dict[str, Label] = {"1": 1, "0": 0, "uncertain": "uncertain"}
_Key = TypeVar("_Key")
_COLUMNS = ("report_id", "section", "sentence", "hash", "split", "finding", "label", "side", "zone")


class Address(NamedTuple):
    """Where a sentence stands: report, section, and its number in :func:`sentences.split_sentences`, from 0."""

    report_id: str
    section: str
    number: int


@dataclass(frozen=True)
class Annotation:
    """What one sentence says of one finding, by its annotator.

    Attributes:
        address: The sentence.
        hash: Its :func:`sentences.sentence_hash`.
        split: ``dev``, ``test``, ...
        finding: One of ``FINDINGS``, or ``""`` for a sentence that speaks of none.
        label: 1, 0 or ``"uncertain"``; ``None`` only without a finding.
        side: ``left``, ``right``, ``bilateral`` or ``""``; of positive findings alone.
        zones: Of ``upper``, ``middle``, ``lower``; of positive findings alone.
    """

    address: Address
    hash: str
    split: str
    finding: str
    label: Label | None
    side: str
    zones: tuple[str, ...]


def read_annotations(path: Path) -> list[Annotation]:
    """Read a table of annotations, one row a finding of a sentence.

    Raises:
        UserError: When a column is missing, or a finding or label unknown.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if rows and (missing := [name for name in _COLUMNS if name not in rows[0]]):
        raise UserError(f"{path} has no column '{missing[0]}': the columns are {', '.join(_COLUMNS)}")
    annotations = []
    for number, row in enumerate(rows, 2):
        if row["finding"] not in (*FINDINGS, "") or row["label"] not in (_LABELS if row["finding"] else ("",)):
            raise UserError(f"{path}, line {number}: '{row['finding']}' with label '{row['label']}' is no annotation")
        annotations.append(
            Annotation(
                Address(row["report_id"], row["section"], int(row["sentence"])), row["hash"], row["split"],
                row["finding"], _LABELS.get(row["label"]), row["side"], tuple(filter(None, row["zone"].split(";"))),
            )
        )  # fmt: skip
    return annotations


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval (Wilson 1927).

    Attributes:
        hits: How many were right.
        n: Of how many.
    """

    hits: int
    n: int

    @property
    def value(self) -> float:
        """``hits / n``; NaN for none."""
        return self.hits / self.n if self.n else math.nan

    @property
    def ci95(self) -> tuple[float, float]:
        """Lower and upper end; NaN for none."""
        if not self.n:
            return math.nan, math.nan
        z = 1.959964
        share, over = self.value, 1 + z * z / self.n
        middle = (share + z * z / (2 * self.n)) / over
        half = z * math.sqrt(share * (1 - share) / self.n + z * z / (4 * self.n**2)) / over
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.ci95[0]:.3f}, {self.ci95[1]:.3f}] ({self.hits}/{self.n})"


def score_labeller(
    annotations: Sequence[Annotation],
    sentences: Mapping[Address, str],
    labeller: Callable[[str], SentenceLabels] = label_sentence,
) -> dict[str, Share]:
    """Compare a labeller with annotations. What is counted is the pair of a sentence and a finding.

    Args:
        annotations: Rows of any number of sentences; a sentence without a finding has one row that says so.
        sentences: The text of each annotated sentence.
        labeller: What to measure.

    Returns:
        ``<what>/precision`` and ``<what>/recall`` for ``mention`` (spoken of at all), ``positive``, ``negative`` and
        ``uncertain`` (spoken of, with this label), ``side`` and ``zone`` (stated and right, among the pairs that both
        call positive), and ``sentence/exact`` (all labels of a sentence right).

    Raises:
        UserError: When the text of an annotated sentence is not given.
    """
    truth: dict[Address, dict[str, Annotation]] = {}
    for row in annotations:
        if row.address not in sentences:
            raise UserError(f"no text for the annotated sentence {tuple(row.address)}: give all of them")
        truth.setdefault(row.address, {}).update({row.finding: row} if row.finding else {})
    read = {address: labeller(sentences[address]) for address in truth}
    wanted = {(where, name): row.label for where, rows in truth.items() for name, row in rows.items()}
    got = {
        (where, name): value for where, said in read.items() for name, value in said.labels.items() if value is not None
    }
    shares = _both("mention", set(wanted), set(got))
    kinds: tuple[tuple[str, Label], ...] = (("positive", 1), ("negative", 0), ("uncertain", "uncertain"))
    for kind, label in kinds:
        shares |= _both(kind, _with(wanted, label), _with(got, label))
    agreed = _with(wanted, 1) & _with(got, 1)
    for part in ("side", "zone"):
        stated = {(*key, word) for key in agreed for word in _words(truth[key[0]][key[1]], part)}
        found = {(*key, word) for key in agreed for word in _read_words(read[key[0]], key[1], part)}
        shares |= _both(part, stated, found)
    exact = sum(
        {name: row.label for name, row in rows.items()}
        == {name: value for name, value in read[where].labels.items() if value is not None}
        for where, rows in truth.items()
    )
    return {**shares, "sentence/exact": Share(exact, len(truth))}


def _both(what: str, wanted: Set[_Key], got: Set[_Key]) -> dict[str, Share]:
    hits = len(wanted & got)
    return {f"{what}/precision": Share(hits, len(got)), f"{what}/recall": Share(hits, len(wanted))}


def _with(pairs: Mapping[tuple[Address, str], Label | None], label: Label) -> set[tuple[Address, str]]:
    return {key for key, value in pairs.items() if value == label}


def _words(row: Annotation, part: str) -> Iterable[str]:
    return row.zones if part == "zone" else filter(None, [row.side])


def _read_words(said: SentenceLabels, finding: str, part: str) -> Iterable[str]:
    places = [item.place for item in said.mentions if item.finding == finding and item.label == 1]
    if part == "zone":
        return {zone for place in places for zone in place.zones}
    sides = {place.side for place in places if place.side}
    return sides if len(sides) < 2 else {"bilateral"}
