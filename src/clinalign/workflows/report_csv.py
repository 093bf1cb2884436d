"""The numbers of a report as a table for a spreadsheet or pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from clinalign.core.errors import UserError
from clinalign.core.files import write_text
from clinalign.workflows.report_keys import split_key
from clinalign.workflows.report_metrics import instrument, interval, value
from clinalign.workflows.report_sources import METRICS, Material

COLUMNS = ("run", "prefix", "subgroup", "family", "name", "value", "low", "high", "n", "measured_with")


def write_csv(materials: Sequence[Material], path: Path) -> None:
    """Write one row a metric: :data:`COLUMNS`, numbers with every digit, empty where there is none.

    ``low`` and ``high`` are the ends of the 95 % interval; ``measured_with`` is the identity of the evaluator or
    extractor. A key of ``metrics.json`` is ``prefix``, ``subgroup/`` and ``subgroup``, ``family`` and ``name``, joined.

    Args:
        materials: One a run.
        path: The file; an earlier one is replaced.

    Raises:
        UserError: When a run was not evaluated, or the file cannot be written.
    """
    for material in materials:
        if not material.metrics:
            raise UserError(
                f"{material.name} has no numbers to export: it was not evaluated; make its {METRICS} with "
                "`clinalign evaluate`, and name the folder with --evaluation"
            )
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for material in materials:
        writer.writerows(_rows(material))
    write_text(path, stream.getvalue())


def _rows(material: Material) -> Iterator[tuple[str, ...]]:
    for key, entry in material.metrics.items():
        parts, amount = split_key(key), value(material.metrics, key)
        low, high = interval(material.metrics, key) or (None, None)
        numbers = ("" if number is None else repr(number) for number in (amount, low, high))
        size = entry.get("n")
        yield (
            material.name, parts.prefix, parts.subgroup, parts.family, parts.name, *numbers,
            "" if size is None else str(size), instrument(entry),
        )  # fmt: skip
