"""Splits the text of a report into sentences.

Reports are dictated: list numbers (``1. No effusion. 2. ...``), decimals (``1.5 cm``), abbreviations, full stops
without a blank behind them. A general splitter takes list numbers for sentences.
"""

from __future__ import annotations

import hashlib
import re

from clinalign.data.reports.sections import normalise

ABBREVIATIONS = frozenset(
    {
        "dr",
        "mr",
        "mrs",
        "ms",
        "vs",
        "approx",
        "e.g",
        "i.e",
        "cf",
        "fig",
        "st",
        "resp",
        "prev",
        "a.m",
        "p.m",
        "m.d",
        "d.o",
    }
)
"""Words whose full stop ends no sentence, in lower case."""

# The end: marks, then a blank, or a capital right behind the full stop of a word ("effusion.No").
_END = re.compile(r"[.!?]+(?=\s|$)|(?<=[a-z]{2})\.(?=[A-Z][a-z])")
_LIST_NUMBER = re.compile(r"\d{1,2}[.)]\s*(?=[A-Za-z])")
_LAST_WORD = re.compile(r"\S+$")


def split_sentences(text: str) -> list[str]:
    """Return the sentences of ``text`` in order, normalised, without the numbers of lists.

    A full stop ends no sentence behind one of ``ABBREVIATIONS`` or a single letter (``C. difficile``), or within a
    number. A sentence needs at least one letter.
    """
    text = normalise(text)
    sentences, start = [], 0
    for end in _END.finditer(text):
        piece = text[start : end.end()].strip()
        if _LIST_NUMBER.match(f"{piece} a") and re.fullmatch(r"\d{1,2}\.", piece):
            continue  # the number stays with its sentence, and is taken off below
        word = _LAST_WORD.search(text[start : end.start()])
        behind = text[end.end() :].lstrip()
        if behind and word and end.group() == "." and _abbreviated(word.group().strip("([,").lower()):
            continue
        sentences.append(piece)
        start = end.end()
    sentences.append(text[start:].strip())
    cleaned = (
        _LIST_NUMBER.sub("", sentence, count=1) if _LIST_NUMBER.match(sentence) else sentence for sentence in sentences
    )
    return [sentence for sentence in cleaned if re.search("[A-Za-z]", sentence)]


def _abbreviated(word: str) -> bool:
    return word in ABBREVIATIONS or (len(word) == 1 and word.isalpha())


def sentence_hash(sentence: str) -> str:
    """Return the first 8 hexadecimal digits of the SHA-256 of the normalised sentence in lower case.

    A table of annotations addresses sentences by their number; the hash tells when a number means another sentence.
    """
    return hashlib.sha256(normalise(sentence).lower().encode()).hexdigest()[:8]
