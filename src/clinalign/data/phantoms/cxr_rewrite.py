"""Phantom reports with one fact changed: read back by their own grammar, and composed anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from clinalign.data.phantoms.cxr_report import DEVICES, EXTENTS, SIDES, ZONES, compose_report
from clinalign.data.phantoms.cxr_settings import CXR_ATTRIBUTES

_CODES: Mapping[str, tuple[float, ...]] = {
    "side": tuple(SIDES),
    "zone": tuple(range(len(ZONES))),
    "extent": tuple(range(len(EXTENTS))),
    "kind": tuple(range(len(DEVICES))),
}
_ASKED: Mapping[str, tuple[str, ...]] = {
    "cardiomegaly": (),
    "effusion": ("side", "extent"),
    "consolidation": ("side", "zone"),
    "pneumothorax": ("side", "extent"),
    "nodule": ("side", "zone"),
    "device": ("side", "kind"),
}
_HEAD = "Frontal chest radiograph."


class ReportFacts(NamedTuple):
    """What a phantom report says: attributes 0 or 1, the codes of those present, whether it names what is absent."""

    attributes: dict[str, int]
    parameters: dict[str, float]
    negatives: bool

    def compose(self) -> str:
        """Write the report."""
        return compose_report(self.attributes, self.parameters, self.negatives)


@cache
def _clauses() -> dict[str, tuple[str, dict[str, float]]]:
    """Return every clause that a report can hold, with its finding and codes."""
    table = {}
    for name, asked in _ASKED.items():
        for values in itertools.product(*(_CODES[code] for code in asked)):
            codes = {f"{name}_{code}": float(value) for code, value in zip(asked, values)}
            report = compose_report({other: int(other == name) for other in CXR_ATTRIBUTES}, codes)
            table[report.removeprefix(f"{_HEAD} ")] = (name, codes)
    return table


def read_report(text: str) -> ReportFacts | None:
    """Return what a report of :func:`~clinalign.data.phantoms.cxr_report.compose_report` says, ``None`` for others."""
    attributes, parameters = dict.fromkeys(CXR_ATTRIBUTES, 0), dict[str, float]()
    for sentence in text.split(". "):
        name, codes = _clauses().get(sentence.rstrip(".") + ".", ("", {}))
        if name:
            attributes[name] = 1
            parameters |= codes
    for negatives in (False, True):
        facts = ReportFacts(attributes, parameters, negatives)
        if facts.compose() == text:
            return facts
    return None


def rewrites(facts: ReportFacts, random: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """Yield ``(kind, finding, text)`` of every report that differs from ``facts`` in one fact.

    Kinds are ``removed`` and ``added`` (with place and size drawn at random) for each finding, ``side`` for each that
    is present and has one, ``zone`` (another of the three, at random) likewise.
    """
    for name in CXR_ATTRIBUTES:
        if not facts.attributes[name]:
            codes = {f"{name}_{code}": float(random.choice(_CODES[code])) for code in _ASKED[name]}
            yield "added", name, _changed(facts, {name: 1}, codes)
            continue
        yield "removed", name, _changed(facts, {name: 0}, {})
        for code in ("side", "zone"):
            if code in _ASKED[name]:
                key = f"{name}_{code}"
                others = [float(value) for value in _CODES[code] if value != facts.parameters[key]]
                yield code, name, _changed(facts, {}, {key: others[random.integers(len(others))]})


def _changed(facts: ReportFacts, attributes: Mapping[str, int], parameters: Mapping[str, float]) -> str:
    """Compose the report with some facts replaced."""
    return facts._replace(
        attributes={**facts.attributes, **attributes}, parameters={**facts.parameters, **parameters}
    ).compose()
