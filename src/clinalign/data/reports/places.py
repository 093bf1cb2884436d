"""Finds the side, the zones and the size of a mention."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clinalign.data.reports import cues
from clinalign.data.reports import vocabulary as words
from clinalign.data.reports.mentions import Span, compiled

_CLAUSE = re.compile(r" (?:;|:|but|however|although|except(?: for)?|while|whereas) ")
_LINK = re.compile(
    r" (?:,|and|or|with|without|versus|vs|/|may|might|could|which|likely|possibly|probably|consistent|compatible|"
    r"represent(?:s|ing)?|reflect(?:s|ing)?|concerning|suspicious|suggest(?:s|ive|ing)?|suspected|due|from|no|"
    r"otherwise|negative) "
)


@dataclass(frozen=True)
class Place:
    """Where something lies and how large it is; ``None`` or empty where it is not said.

    Attributes:
        side: ``left``, ``right`` or ``bilateral``, of the patient.
        zones: Of ``upper``, ``middle``, ``lower``, in this order.
        size: ``small``, ``moderate`` or ``large``.
    """

    side: str | None = None
    zones: tuple[str, ...] = ()
    size: str | None = None


def find_places(text: str, spans: Sequence[Span]) -> list[Place]:
    """Return the place of each mention of a plain sentence.

    A mention owns the words before it, back to the link (comma, 'and', 'may represent') that parts it from the mention
    before, and the words behind it up to such a link. What it does not find there it takes from the mention before, or,
    over a bare 'and' or 'or', from the one behind: ``left basilar opacity, likely atelectasis``.
    """
    own = [_own(text, spans, number) for number in range(len(spans))]
    places: list[Place] = []
    for number, (span, (before, behind)) in enumerate(zip(spans, own)):
        if span.finding not in words.PLACED:
            places.append(Place())
            continue
        side, zones = _side(before) or _side(behind), _zones(before) or _zones(behind)
        if not side and not zones:
            side, zones = _borrowed(text, spans, own, places, number)
        lung = span.finding in words.ZONED
        places.append(Place(side, zones if lung else (), _size(before) if lung else None))
    return places


def _own(text: str, spans: Sequence[Span], number: int) -> tuple[str, str]:
    """The words before and behind a mention that belong to it; its own words count as before."""
    span = spans[number]
    left = max((other.end for other in spans if other.end <= span.start), default=0)
    right = min((other.start for other in spans if other.start >= span.end), default=len(text))
    before, behind = text[left : span.start], text[span.end : right]
    if left:
        links = list(_LINK.finditer(f" {before}"))
        # without a link the words between two mentions belong to the second: "effusion left basilar atelectasis"
        before = f" {before}"[links[-1].end() :] if links else before
    if right < len(text):
        links = list(_LINK.finditer(f"{behind} "))
        behind = behind[: links[-1].start()] if links else ""
    else:
        # "elevated right diaphragm with left basilar atelectasis": the side behind the 'with' is the finding's
        start = before.rfind(" with ") + 1
        before = before[start:] if _side(before[start:]) else before
    clauses = [cut.end() for cut in _CLAUSE.finditer(before)]
    cut = _CLAUSE.search(behind)
    return before[clauses[-1] if clauses else 0 :] + text[span.start : span.end], behind[: cut.start() if cut else None]


def _borrowed(
    text: str, spans: Sequence[Span], own: Sequence[tuple[str, str]], places: Sequence[Place], number: int
) -> tuple[str | None, tuple[str, ...]]:
    span = spans[number]
    if number and spans[number - 1].finding in words.ZONED and span.finding in words.ZONED:
        between = text[spans[number - 1].end : span.start]
        if not _CLAUSE.search(between) and (places[number - 1].side or places[number - 1].zones):
            return places[number - 1].side, places[number - 1].zones
    if number + 1 < len(spans) and spans[number + 1].finding in words.ZONED and span.finding in words.ZONED:
        between = text[span.end : spans[number + 1].start]
        if re.fullmatch(r" ?(?:and|or|,|versus|vs|/)(?: \w+)? ?", between):
            # "fibrosis and collapse of the left upper lobe": the place may stand in the next mention's own words
            behind = text[spans[number + 1].start : spans[number + 1].end] + own[number + 1][1]
            return _side(behind), _zones(behind)
    return None, ()


def _side(text: str) -> str | None:
    named = {side for side in ("left", "right", "bilateral") if compiled(cues.SIDES[side]).search(text)}
    if len(named) == 1:
        return named.pop()
    if named or compiled(cues.SIDES["plural"]).search(text):
        return "bilateral"
    return None


def _zones(text: str) -> tuple[str, ...]:
    return tuple(zone for zone, pattern in cues.ZONES.items() if compiled(pattern).search(text))


def _size(text: str) -> str | None:
    """The size word nearest to the mention."""
    hits = [(match.start(), size) for size, pattern in cues.SIZES.items() for match in compiled(pattern).finditer(text)]
    return max(hits)[1] if hits else None
