"""The tables of a report: every metric with its interval, n, floor and what it was measured with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clinalign.workflows.report_keys import split_key
from clinalign.workflows.report_metrics import (
    COMPARED,
    FAMILIES,
    PER_ATTRIBUTE,
    SINGLE,
    Metrics,
    attributes,
    instrument,
    interval,
    meaning,
    move,
    number,
    value,
    words,
    written,
)


@dataclass(frozen=True)
class Cell:
    """One value.

    Attributes:
        text: The value in its unit; empty where it was not measured.
        around: Its 95 % interval in brackets.
        size: Number of images, where known.
    """

    text: str = ""
    around: str = ""
    size: str = ""


@dataclass(frozen=True)
class Row:
    """One metric.

    Attributes:
        label: Its name.
        explanation: What it is, and which way is better.
        cells: One a column.
        floor: Real images against real images, and this generator at the same n.
        mark: Letter of what it was measured with, see :attr:`Tables.instruments`.
        trend: Whether tuning made it better or worse beyond chance; empty where neither is sure.
    """

    label: str
    explanation: str
    cells: tuple[Cell, ...]
    floor: str = ""
    mark: str = ""
    trend: Literal["better", "worse", ""] = ""


@dataclass(frozen=True)
class Tables:
    """All tables of a page.

    Attributes:
        columns: Headings of the cells.
        families: Heading and rows of each family of metrics.
        per_attribute: Name and rows of each attribute.
        instruments: Letter and identity of every evaluator and extractor.
        floors: Some row has a floor.
    """

    columns: tuple[str, ...]
    families: tuple[tuple[str, tuple[Row, ...]], ...]
    per_attribute: tuple[tuple[str, tuple[Row, ...]], ...]
    instruments: tuple[tuple[str, str], ...]
    floors: bool


def build_tables(metrics: Metrics, compared: bool = True) -> Tables:
    """Put entries into tables.

    Args:
        metrics: Entries of ``metrics.json``.
        compared: Whether they are of a generator before and after tuning, or of one set of images.
    """
    columns = [
        column for column in (COMPARED if compared else SINGLE) if any(key.startswith(column[0]) for key in metrics)
    ]
    letters = _letters(metrics)
    plain = _plain_keys(metrics, [prefix for prefix, _ in columns])
    families = []
    for family, (heading, known) in FAMILIES.items():
        keys = [key for name in known for key in plain if key.partition("@")[0] == f"{family}/{name}"]
        rows = tuple(_row(metrics, key, columns, letters) for key in keys)
        if rows:
            families.append((heading, rows))
    listed = {f"{family}/{name}" for family, (_, known) in FAMILIES.items() for name in known}
    single = {f"alignment/{measure}/{name}" for measure in PER_ATTRIBUTE for name in attributes(metrics)}
    other = [key for key in plain if key.partition("@")[0] not in listed and key not in single]
    other = [key for key in other if not key.startswith("subgroup/")]
    if other:
        families.append(("Further metrics", tuple(_row(metrics, key, columns, letters) for key in other)))
    return Tables(
        columns=tuple(heading for _, heading in columns),
        families=tuple(families),
        per_attribute=tuple(
            (words(name), tuple(_attribute_rows(metrics, name, columns))) for name in attributes(metrics)
        ),
        instruments=tuple((letter, identity) for identity, letter in letters.items()),
        floors=any(row.floor for _, rows in families for row in rows),
    )


def _plain_keys(metrics: Metrics, prefixes: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for key in metrics:
        for prefix in prefixes:
            if key.startswith(prefix):
                if not split_key(key).subgroup:  # they have a section of their own
                    found[key.removeprefix(prefix)] = None
                break
    return list(found)


def _letters(metrics: Metrics) -> dict[str, str]:
    identities = dict.fromkeys(instrument(entry) for entry in metrics.values())
    return {identity: chr(ord("a") + index) for index, identity in enumerate(i for i in identities if i)}


def _row(metrics: Metrics, key: str, columns: Sequence[tuple[str, str]], letters: Mapping[str, str]) -> Row:
    known = meaning(key)
    unit = known.unit if known else "number"
    entries = [metrics[prefix + key] for prefix, _ in columns if prefix + key in metrics]
    generated = [metrics[prefix + key] for prefix, _ in columns if prefix != "real/" and prefix + key in metrics]
    return Row(
        label=known.label if known else words(key),
        explanation=f"{known.explanation}; {known.better} is better" if known else "",
        cells=tuple(_cell(metrics, prefix + key, unit) for prefix, _ in columns),
        floor=_floor(generated, unit),
        mark=" ".join(sorted({letters[instrument(entry)] for entry in entries if instrument(entry)})),
        trend=_trend(metrics, key, known.better if known else None),
    )


def _attribute_rows(metrics: Metrics, name: str, columns: Sequence[tuple[str, str]]) -> Iterator[Row]:
    for measure, label in (("accuracy", "as asked"), ("balanced_accuracy", "balanced"), ("auroc", "AUROC")):
        key = f"alignment/{measure}/{name}"
        cells = tuple(
            _cell(metrics, prefix + key, "number" if measure == "auroc" else "percent") for prefix, _ in columns
        )
        if any(cell.text for cell in cells):
            yield Row(label, "", cells, trend=_trend(metrics, key, "higher"))


def _cell(metrics: Metrics, key: str, unit: str) -> Cell:
    amount = value(metrics, key)
    if amount is None:
        return Cell()
    size = metrics[key].get("n")
    return Cell(*written(amount, unit, interval(metrics, key)), "" if size is None else f"n {size}")


def _floor(entries: Sequence[Mapping[str, Any]], unit: str) -> str:
    """Write the floor of the tuned images, or of whichever were compared with real ones."""
    stated = [entry for entry in entries if "at_floor_n" in entry]
    tuned = stated[-1] if stated else {}
    floor, here, size = tuned.get("floor"), tuned.get("at_floor_n"), tuned.get("floor_n")
    if not isinstance(floor, int | float) or not isinstance(here, int | float):
        return ""
    return f"real {written(floor, unit)[0]}, generated {written(here, unit)[0]}, n {size} each"


def _trend(metrics: Metrics, key: str, better: str | None) -> Literal["better", "worse", ""]:
    change = move(metrics, key)
    if change is None or better is None or not change.sure:
        return ""
    return "better" if change.rose == (better == "higher") else "worse"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every leaf of a tree as dotted name and text, short lists as one leaf, for a two-column table."""
    for key, branch in tree.items():
        name = f"{prefix}{words(str(key))}"
        if isinstance(branch, Mapping):
            yield from flatten(branch, f"{name}: ")
        elif isinstance(branch, list):
            yield name, ", ".join(str(item) for item in branch) or "none"
        else:
            yield name, "none" if branch is None else number(branch) if isinstance(branch, float) else str(branch)
