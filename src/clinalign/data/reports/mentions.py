"""Finds where a sentence speaks of a finding, by its name or by calling a part of the body normal or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from clinalign.data.reports import vocabulary as words
from clinalign.data.reports.sections import REMOVED, normalise


@dataclass(frozen=True)
class Span:
    """A place in the plain sentence that speaks of a finding.

    Attributes:
        finding: One of ``FINDINGS``.
        start: Where its words begin.
        end: Where they end.
        fixed: 0 or ``"uncertain"`` where the words themselves say it (``heart size is normal``); ``None`` where
            negation and doubt around them decide.
        anchor: Where negation and doubt are looked for: the finding's name, or the word that calls a part abnormal.
    """

    finding: str
    start: int
    end: int
    fixed: int | str | None
    anchor: tuple[int, int]


def plain(sentence: str) -> str:
    """Return a sentence as the tables of :mod:`vocabulary` expect it; removed words (``XXXX``) are gone."""
    text = normalise(sentence).replace(REMOVED, " ").lower()
    text = (
        text.replace("and/or", "or")
        .replace("w/o", "without")
        .replace("w/", "with ")
        .replace("cardio mediastinal", "cardiomediastinal")
    )
    text = re.sub(r"(?<=[a-z])['’]s\b", "", text)
    text = re.sub(r"[()\[\]]", " , ", text).replace("?", " questionable ")
    text = re.sub(r"(?<!\d)[.!]|[.!](?!\d)", " ", text)
    text = re.sub(r"\s*([,;:/])\s*", r" \1 ", text.replace("-", " "))
    return " ".join(re.sub(r"(?: ,)+(?= ,)", "", f" {text}").split()).strip(" ,")


@cache
def compiled(pattern: str | tuple[str, ...]) -> re.Pattern[str]:
    """Compile one entry, or several as alternatives, of a table: whole words."""
    joined = pattern if isinstance(pattern, str) else "|".join(pattern)
    return re.compile(rf"(?<![\w])(?:{joined})(?![\w])")


def find_spans(text: str) -> list[Span]:
    """Return what a plain sentence speaks of, in its order. Of overlapping matches the longest counts."""
    named = [
        Span(finding, match.start(), match.end(), None, match.span())
        for finding, patterns in words.MENTIONS.items()
        for match in _matches(patterns, text)
    ]
    other = [Span("", *match.span(), None, match.span()) for match in _matches(words.OTHER_THINGS, text)]
    chosen = _longest([*named, *other])
    normal = [Span(words.NO_FINDING, *match.span(), 1, match.span()) for match in _matches(words.NORMAL_FILM, text)]
    spans = [span for span in chosen if span.finding]
    elsewhere = compiled(words.ELSEWHERE)
    spans += [
        span
        for span in _longest(normal)
        if not any(_overlap(span, other) for other in spans) and not elsewhere.search(text, 0, span.start)
    ]
    spans += list(_judged_anatomy(text))
    return sorted(set(spans), key=lambda span: (span.anchor, span.finding, span.start, span.end))


def _matches(patterns: Iterable[str], text: str) -> Iterator[re.Match[str]]:
    for pattern in patterns:
        for match in compiled(pattern).finditer(text):
            if match.group().strip():
                yield match


def _overlap(first: Span, second: Span) -> bool:
    return first.start < second.end and second.start < first.end


def _longest(spans: Iterable[Span]) -> list[Span]:
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
        if not any(_overlap(span, other) for other in chosen):
            chosen.append(span)
    return chosen


_VERB = compiled(r"is|are|was|were|appears?|remains?|has|have|demonstrates?|shows?|measures?")
_BREAK = re.compile(r" (?:;|but|however|although|with|without|which) ")
_PART = re.compile(r" (?:,|and) ")


_FIXED: dict[str, int | str | None] = {"normal": 0, "doubtful": "uncertain", "abnormal": None}


def _judged_anatomy(text: str) -> Iterator[Span]:
    for finding, patterns in words.SUBJECTS.items():
        for subject in _matches(patterns, text):
            found = _state_before(finding, text, subject.start()) or _state_after(finding, text, subject.end())
            if found:
                kind, start, end = found
                fixed = _FIXED[kind]
                yield Span(finding, min(subject.start(), start), max(subject.end(), end), fixed, (start, end))


def _first_state(finding: str, text: str) -> tuple[str, int, int] | None:
    """The earliest state in a piece of text."""
    hits = [
        (match.start(), rank, kind, match.end())
        for rank, (kind, pattern) in enumerate(words.STATES[finding].items())
        if (match := compiled(pattern).search(text))
    ]
    if not hits:
        return None
    start, _, kind, end = min(hits)
    return kind, start, end


def _state_before(finding: str, text: str, subject: int) -> tuple[str, int, int] | None:
    """'Normal heart size and mediastinal contours': the state stands before, and no verb stands between."""
    start = max(
        (match.end() for match in re.finditer(r" [,;:] | but | with | without |\bof normal\b", text[:subject])),
        default=0,
    )
    verbs = [match.end() for match in _VERB.finditer(text, start, subject)]
    start = verbs[-1] if verbs else start
    # The nearest member of a list first: in "normal mediastinum and enlarged heart" the heart is enlarged.
    for begin in [*reversed([match.end() for match in re.finditer(r" and ", text[start:subject])]), 0]:
        piece = text[start + begin : subject]
        found = _first_state(finding, piece)
        if found:
            # A word between that belongs to something else ("enlarged aorta and heart") breaks the link.
            linked = not compiled(words.ANOTHER_PART).search(piece[found[2] :])
            return (found[0], start + begin + found[1], start + begin + found[2]) if linked else None
    return None


def _state_after(finding: str, text: str, subject: int) -> tuple[str, int, int] | None:
    """'Heart size and mediastinal contours are normal': the next state counts, over a list, up to another statement."""
    start, stable = subject, False
    while start < len(text):
        part = _PART.search(text, start)
        end = part.start() if part else len(text)
        piece = text[start:end]
        stop = _BREAK.search(f"{piece} ")
        found = _first_state(finding, piece[: stop.start()] if stop and finding != "Lung Opacity" else piece)
        if found and (not stable or not _VERB.search(piece[: found[1]])):
            return found[0], start + found[1], start + found[2]
        # Said to be unchanged, or something else said: only a state that follows at once still belongs to the subject.
        unchanged = compiled(words.UNCHANGED).search(piece)
        if stop or stable or (_VERB.search(piece) and not unchanged):
            return None
        stable = unchanged is not None
        start = part.end() if part else len(text)
    return None
