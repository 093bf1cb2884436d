"""Decides whether a mention is asserted, denied or doubted by the words around it.

In the manner of NegEx and ConText (Chapman et al., 2001; Harkema et al., 2009): a cue reaches from where it stands to
the end of its clause. Denial goes before doubt (``no opacity to suggest pneumonia``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from clinalign.data.reports import cues
from clinalign.data.reports import vocabulary as words
from clinalign.data.reports.mentions import Span, compiled

Label = Literal[0, 1, "uncertain"]


def judge(text: str, span: Span, spans: Sequence[Span]) -> Label | None:
    """Return the label of a mention in a plain sentence; ``None`` where it is only remembered (``history of``).

    Args:
        text: The plain sentence.
        span: The mention.
        spans: All mentions of the sentence, for ``or`` and ``versus`` between two of them.
    """
    if span.fixed == 1:
        return 1
    if span.fixed == 0:
        return 0
    if span.fixed == "uncertain":
        return 0 if _denied(text, span) else "uncertain"
    text = _masked(text, cues.NOT_NEGATION)
    if _reaches(cues.PAST, text, span):
        return None
    if _denied(text, span):
        return 0
    doubted = (
        _reaches(cues.DOUBTED_BEFORE, text, span)
        or _reaches(cues.DOUBTED_BEFORE_NEAR, text, span, near=True)
        or _follows(cues.DOUBTED_AFTER, text, span)
        or _alternative(text, span, spans)
    )
    return "uncertain" if doubted else 1


def _masked(text: str, patterns: tuple[str, ...]) -> str:
    """Blank out what only looks like a cue, keeping every position."""
    for pattern in patterns:
        text = compiled(pattern).sub(lambda match: re.sub(r"\w", "~", match.group()), text)
    return text


def _denied(text: str, span: Span) -> bool:
    masked = _masked(text, (*cues.NOT_NEGATION, *cues.DOUBT_WITH_NOT))
    return _reaches(cues.DENIED_BEFORE, masked, span) or _follows(cues.DENIED_AFTER, masked, span)


def _reaches(table: tuple[str, ...], text: str, span: Span, near: bool = False) -> bool:
    """Whether a cue before the mention reaches it; a ``near`` cue only to the next comma or 'and'."""
    for cue in compiled(table).finditer(text, 0, span.anchor[0]):
        between = text[cue.end() : span.anchor[0]]
        if near and re.search(r" (?:,|and) ", between):
            continue
        if not _clause_ends(between, text[cue.end() :]):
            return True
    return False


def _clause_ends(between: str, rest: str) -> bool:
    """Whether the clause of a cue ends in the text between it and a mention."""
    if any(end.start() < len(between.rstrip()) for end in compiled(cues.CLAUSE_ENDS).finditer(rest)):
        return True
    for comma in re.finditer(r" , (?:and )?", between):
        starter = compiled(cues.NEW_CLAUSE).match(rest, comma.end())
        if starter and not re.search(r"\b(?:or|nor)\b", rest[comma.end() :]):
            return True
    return False


def _follows(table: tuple[str, ...], text: str, span: Span) -> bool:
    """Whether a cue behind the mention speaks of it: no other clause begins between them."""
    for cue in compiled(table).finditer(text, span.anchor[1]):
        between = text[span.anchor[1] : cue.start()]
        if not _clause_ends(between + " x", between + " x") and " , " not in f"{between} ".replace(" , or ", " "):
            return True
    return False


def _alternative(text: str, span: Span, spans: Sequence[Span]) -> bool:
    """Whether it is one of two findings that 'or' or 'versus' leave open."""
    here = spans.index(span)
    same = here + 1 < len(spans) and spans[here + 1].finding == span.finding
    if re.match(r" (?:versus|vs|or) ", text[span.anchor[1] :]) and not same:
        return True
    for other in spans[max(here - 1, 0) : here + 2]:
        if other.finding == span.finding or other.finding == words.NO_FINDING or other.fixed is not None:
            continue
        first, second = sorted((span, other), key=lambda item: item.anchor)
        between = text[first.anchor[1] : second.anchor[0]]
        if re.fullmatch(cues.ALTERNATIVE, between):
            return True
    return False
