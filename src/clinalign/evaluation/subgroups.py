"""Cells of an evaluation: the cases of one subgroup, or with one attribute asked for or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinalign.core.types import Case

ALIGNMENT, FIDELITY = 20, 50  # images on each side below which a cell is left out (R)


@dataclass(frozen=True)
class Cell:
    """Images of one subgroup.

    Attributes:
        name: ``column=value``, as in ``sex=female`` or ``attribute:MEL=1``; a slash in a value is written as ``-``,
            because keys are parted by slashes.
        rows: Numbers of the generated images.
        real: Numbers of the real images.
    """

    name: str
    rows: list[int]
    real: list[int]

    @property
    def smaller(self) -> int:
        """Images on the side that has fewer."""
        return min(len(self.rows), len(self.real))


def cells_of(cases: Sequence[Case], real_cases: Sequence[Case], attributes: Sequence[str]) -> list[Cell]:
    """Return the cells of every subgroup column and of every attribute, in the order of the columns and of the values.

    Args:
        cases: Of the generated images.
        real_cases: Of the real images.
        attributes: Whose values make cells.

    Returns:
        Cells; a case whose value is unknown is in none. A column with a single value makes none: it would be all.
    """
    generated, real = (_rows_by_column(side, attributes) for side in (cases, real_cases))
    found = []
    for column in dict.fromkeys([*generated, *real]):
        values = sorted({*generated.get(column, {}), *real.get(column, {})})
        for value in values if len(values) > 1 else ():
            sides = (side.get(column, {}).get(value, []) for side in (generated, real))
            found.append(Cell(f"{column}={value.replace('/', '-')}", *sides))
    return found


def left_out(cells: Sequence[Cell], alignment: int = ALIGNMENT, fidelity: int = FIDELITY) -> list[dict[str, Any]]:
    """List the cells that are too small for some metrics: their name, images on each side, and what is left out."""
    return [
        {
            "cell": cell.name,
            "n": len(cell.rows),
            "n_real": len(cell.real),
            "left_out": ["alignment", "fidelity"] if cell.smaller < alignment else ["fidelity"],
        }
        for cell in cells
        if cell.smaller < max(alignment, fidelity)
    ]


def _rows_by_column(cases: Sequence[Case], attributes: Sequence[str]) -> Mapping[str, Mapping[str, list[int]]]:
    """Return column to value to the numbers of the cases that have it."""
    found: dict[str, dict[str, list[int]]] = {}
    for row, case in enumerate(cases):
        known: dict[str, str | int | None] = {**case.subgroups}
        known |= {f"attribute:{name}": case.attributes.get(name) for name in attributes}
        for column, value in known.items():
            if value is not None:
                found.setdefault(column, {}).setdefault(str(value), []).append(row)
    return found
