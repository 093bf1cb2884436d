"""Forest plots: one metric, row by row, before and after tuning and beside real images, each with its interval and n.

A forest is a table whose strips are drawn in percent of their width, so that it reads on a phone, on paper and aloud.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinalign.workflows.report_keys import split_key, subgroups
from clinalign.workflows.report_metrics import (
    FAMILIES,
    Meaning,
    Metrics,
    attributes,
    instrument,
    interval,
    meaning,
    move,
    number,
    value,
    words,
)
from clinalign.workflows.report_trends import MINUS, Trend, difference, trend

# These move with the number of images, so that rows of different n, or a row and the whole, do not compare.
MOVES_WITH_N = ("fid", "frd", "precision", "recall", "density", "coverage", "vendi")
SUBGROUPS = "subgroups"  # in evaluation.json
_SIDES = {"base": "before", "tuned": "after", "images": "these images", "real": "real images"}


@dataclass(frozen=True)
class Mark:
    """A value in a strip.

    Attributes:
        side: ``base``, ``tuned``, ``images`` or ``real``.
        text: The value with its side, for those who do not see the strip.
        at: Its place, in percent of the strip's width.
        low: Place of the lower end of its interval, ``None`` where it has none.
        high: Place of the upper end.
    """

    side: str
    text: str
    at: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One subgroup, or one attribute.

    Attributes:
        label: For a reader.
        size: Number of images.
        marks: Before, after, real.
        change: The difference with its interval, in words; empty where one of the two is missing.
        moved: Its mark in the strip of changes.
        trend: Better or worse beyond chance.
    """

    label: str
    size: str
    marks: tuple[Mark, ...]
    change: str = ""
    moved: Mark | None = None
    trend: Trend = ""


@dataclass(frozen=True)
class Forest:
    """One plot.

    Attributes:
        metric: ``family/name``.
        title: Name of the metric.
        caption: What it is, which way is better, what may not be compared.
        overall: The row of all images; its value is the line through the others.
        groups: Heading and rows; the heading is empty where there is one group.
        ticks: Place and text of each tick of the values.
        change_ticks: The same of the changes; empty where nothing was measured twice.
        line: Place of the overall value, ``None`` where rows do not compare with it.
        change_line: Place of the overall change.
        zero: Place of no change.
        measured_with: Identity of the evaluator or extractor.
    """

    metric: str
    title: str
    caption: str
    overall: Row | None
    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    ticks: tuple[tuple[float, str], ...]
    change_ticks: tuple[tuple[float, str], ...]
    line: float | None
    change_line: float | None
    zero: float
    measured_with: str


@dataclass(frozen=True)
class LeftOut:
    """A subgroup with too few images.

    Attributes:
        name: For a reader.
        size: Generated images.
        real: Real images.
        families: What was not measured of it.
    """

    name: str
    size: str
    real: str
    families: str


@dataclass(frozen=True)
class Scale:
    """From values to percent of a strip's width."""

    low: float
    high: float

    def __call__(self, amount: float) -> float:
        """Return the place of ``amount``, within the strip."""
        return round(min(100.0, max(0.0, 100 * (amount - self.low) / (self.high - self.low))), 2)


def attribute_forest(metrics: Metrics) -> Forest | None:
    """Return how often each attribute is as asked; ``None`` where it was not measured one by one."""
    rows = [(words(name), f"alignment/accuracy/{name}") for name in attributes(metrics)]
    known = Meaning("Attributes kept", "share of pictures in which an attribute is as asked", "higher", "percent")
    return _forest(metrics, known, "alignment/attribute_accuracy", [("", rows)])


def subgroup_forests(metrics: Metrics) -> list[Forest]:
    """Return one forest for each metric that was measured in subgroups, those that matter first."""
    columns = subgroups(metrics)
    measured = dict.fromkeys(parts.metric for key in metrics if (parts := split_key(key)).subgroup)
    order = [f"{family}/{name}" for family, (_, known) in FAMILIES.items() for name in known]
    found = []
    for metric in sorted(measured, key=lambda metric: _rank(metric.partition("@")[0], order)):
        known = meaning(metric)
        if known is None:
            continue
        groups = [
            (column_name(column), [(value_name(column, each), f"subgroup/{column}={each}/{metric}") for each in values])
            for column, values in columns.items()
        ]
        forest = _forest(metrics, known, metric, groups)
        if forest is not None:
            found.append(forest)
    return found


def left_out(details: Mapping[str, Any]) -> list[LeftOut]:
    """Return the subgroups that had too few images for some measurement, as the evaluation states them."""
    stated = details.get(SUBGROUPS)
    cells = stated.get("left_out") if isinstance(stated, Mapping) else None
    return [
        LeftOut(cell_name(str(cell["cell"])), str(cell.get("n", "")), str(cell.get("n_real", "")),
                ", ".join(map(str, cell.get("left_out", ()))))
        for cell in (cells if isinstance(cells, list) else ())
        if isinstance(cell, Mapping) and "cell" in cell
    ]  # fmt: skip


def cell_name(cell: str) -> str:
    """Name a cell, such as ``sex=female``, for a reader."""
    column, _, each = cell.partition("=")
    return f"{column_name(column)}: {value_name(column, each)}"


def column_name(column: str) -> str:
    """Name a subgroup column for a reader."""
    kind, colon, name = column.partition(":")
    return words(name if colon else kind)


def value_name(column: str, each: str) -> str:
    """Name a subgroup's value for a reader; attributes are asked for or not."""
    if column.startswith("attribute:"):
        return {"1": "asked for", "0": "not asked for"}.get(each, each)
    return words(each)


def _rank(metric: str, order: Sequence[str]) -> int:
    return order.index(metric) if metric in order else len(order)


def _forest(
    metrics: Metrics, known: Meaning, overall: str, groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]
) -> Forest | None:
    """Lay the rows out on one scale."""
    sides = [side for side in _SIDES if any(key.startswith(f"{side}/") for key in metrics)]
    compares = overall.partition("/")[2].partition("@")[0] not in MOVES_WITH_N
    keys = [key for _, rows in groups for _, key in rows]
    shown = [key for key in [overall, *keys] if any(value(metrics, f"{side}/{key}") is not None for side in sides)]
    if not any(key in shown for key in keys):
        return None
    spread = [amount for key in shown for side in sides for amount in _amounts(metrics, f"{side}/{key}")]
    moves = {key: found for key in shown if (found := move(metrics, key)) is not None}
    changes = [0.0] + [
        amount for found in moves.values() for amount in (found.difference, found.low, found.high) if amount is not None
    ]
    scale, change_scale = _scale(spread), _scale(changes)

    def row(label: str, key: str) -> Row:
        marks = tuple(_marks(metrics, key, sides, known.unit, scale, compares))
        sizes = [metrics[f"{side}/{key}"].get("n") for side in ("tuned", "images", "base", "real")
                 if f"{side}/{key}" in metrics]  # fmt: skip
        size, found = next((str(size) for size in sizes if size is not None), ""), moves.get(key)
        if found is None:
            return Row(label, size, marks)
        at = [None if end is None else change_scale(end) for end in (found.low, found.high)]
        told = difference(found, known.unit)
        moved = Mark("change", told, change_scale(found.difference), *at)
        return Row(label, size, marks, told, moved, trend(found, known.better))

    note = "" if compares else (
        "; it depends on the number of images, so compare before with after, not rows with one another"
    )  # fmt: skip
    whole, whole_key = moves.get(overall), next((f"{side}/{overall}" for side in ("tuned", "images")
                                                 if value(metrics, f"{side}/{overall}") is not None), "")  # fmt: skip
    center = value(metrics, whole_key)
    return Forest(
        metric=overall,
        title=known.label,
        caption=f"{known.explanation[:1].upper()}{known.explanation[1:]}; {known.better} is better{note}.",
        overall=row("All", overall) if overall in shown else None,
        groups=tuple(
            (heading, tuple(row(label, key) for label, key in rows if key in shown))
            for heading, rows in groups
            if any(key in shown for _, key in rows)
        ),
        ticks=_ticks(scale, known.unit),
        change_ticks=_ticks(change_scale, known.unit, signed=True) if moves else (),
        line=scale(center) if compares and center is not None else None,
        change_line=change_scale(whole.difference) if compares and whole is not None else None,
        zero=change_scale(0.0),
        measured_with=next(
            (instrument(entry) for key, entry in metrics.items() if split_key(key).metric == split_key(shown[-1]).metric
             and instrument(entry)), "",
        ),
    )  # fmt: skip


def _marks(metrics: Metrics, key: str, sides: Sequence[str], unit: str, scale: Scale, compares: bool) -> Iterator[Mark]:
    sizes = {side: metrics.get(f"{side}/{key}", {}).get("n") for side in sides}
    for side in sides:
        amount, ends = value(metrics, f"{side}/{key}"), interval(metrics, f"{side}/{key}")
        if amount is None:
            continue
        if side == "real" and not compares and sizes["real"] != sizes.get("tuned", sizes.get("images")):
            continue  # another number of images, so another scale
        low, high = (scale(ends[0]), scale(ends[1])) if ends else (None, None)
        yield Mark(side, f"{_SIDES[side]} {_short(amount, unit)}", scale(amount), low, high)


def _amounts(metrics: Metrics, key: str) -> list[float]:
    amount = value(metrics, key)
    return [] if amount is None else [amount, *(interval(metrics, key) or ())]


def _scale(amounts: Sequence[float]) -> Scale:
    """Return a scale that holds all amounts with a little room, never of no width."""
    finite = [amount for amount in amounts if math.isfinite(amount)]
    low, high = min(finite), max(finite)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
    return Scale(low - room, high + room)


def _ticks(scale: Scale, unit: str, signed: bool = False) -> tuple[tuple[float, str], ...]:
    """Return three or four round ticks within the scale."""
    from matplotlib.ticker import MaxNLocator

    found = [float(tick) for tick in MaxNLocator(nbins=3).tick_values(scale.low, scale.high)]
    inside = [tick for tick in found if scale.low <= tick <= scale.high]
    texts = [_tick(tick, unit, signed).replace("-", MINUS) for tick in inside]
    return tuple((scale(tick), text) for tick, text in zip(inside, texts, strict=True))


def _tick(tick: float, unit: str, signed: bool) -> str:
    sign = "+" if signed and tick > 1e-12 else ""
    if unit == "percent":
        return f"{sign}{100 * tick:.0f}{'' if signed else ' %'}"
    return f"{sign}{tick:g}"


def _short(amount: float, unit: str) -> str:
    return f"{100 * amount:.1f} %" if unit == "percent" else number(amount)
