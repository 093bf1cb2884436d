"""The annotated sentences of the Indiana collection: how they were drawn, and how their table is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from clinalign.data.reports.sections import Report
from clinalign.data.reports.sentences import split_sentences

SEED = 20
EACH = 120  # sentences drawn from all reports, and as many from reports whose codes are not normal


class Address(NamedTuple):
    """Where a sentence stands."""

    report_id: str
    section: str
    number: int


def sentences_of(reports: Iterable[Report]) -> Iterator[tuple[Address, str]]:
    for report in reports:
        for section in ("findings", "impression"):
            for number, sentence in enumerate(split_sentences(getattr(report, section))):
                yield Address(report.report_id, section, number), sentence


def draw(reports: Sequence[Report]) -> dict[Address, str]:
    """Return the drawn addresses and their split, 'dev' or 'test', without looking at a word of the labeller.

    Sentences are ordered by a keyed hash of their address. The first ``EACH`` of all, then the first ``EACH`` of the
    reports that are not normal; a sentence whose words were drawn before is passed over, so that no test sentence was
    seen in development, and a report gives one sentence at most, so that sentences are independent.
    """
    abnormal = {report.report_id for report in reports if set(report.codes) - {"normal", "No Indexing"}}
    key = {address: hashlib.sha256(f"{SEED}:{address}".encode()).hexdigest() for address, _ in sentences_of(reports)}
    ordered = sorted(sentences_of(reports), key=lambda pair: key[pair[0]])
    chosen: dict[Address, str] = {}
    words: set[str] = set()
    used: set[str] = set()
    for pool in (ordered, [pair for pair in ordered if pair[0].report_id in abnormal]):
        wanted = len(chosen) + EACH
        for address, sentence in pool:
            if len(chosen) == wanted:
                break
            plain = "".join(letter for letter in sentence.lower() if letter.isalpha())
            if address.report_id not in used and plain not in words:
                chosen[address] = "dev" if len(chosen) % 2 == 0 else "test"
                words.add(plain)
                used.add(address.report_id)
    return chosen
