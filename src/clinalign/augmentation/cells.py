"""Cells of a dataset: one class within one subgroup, the unit that is rare or not, filled or not, measured or not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clinalign.core.errors import UserError, nearest
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset

NONE = "none of them"  # stratum of the cases of a multi-label problem that show no class


@dataclass(frozen=True)
class Problem:
    """What a classifier is to tell apart, and by what its results are divided.

    Attributes:
        classes: The K attributes that are classes.
        exclusive: Exactly one of them is present in a case (diagnoses): multi-class. Otherwise each is a question of
            its own: multi-label.
        subgroups: Columns that divide a class: subgroup columns, or attributes (an artifact), whose values are 1 and 0.
    """

    classes: tuple[str, ...]
    exclusive: bool
    subgroups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One class within one subgroup.

    Attributes:
        class_name: The class that its cases show.
        values: Subgroup column and value, in the order of the problem; empty where a class is not divided.
    """

    class_name: str
    values: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """For example ``MEL,age_band=<=30``."""
        return ",".join([self.class_name, *(f"{column}={value}" for column, value in self.values)])


@dataclass(frozen=True)
class CellCount:
    """A cell, its real images, and the patients or lesions that they show."""

    cell: Cell
    images: int
    groups: int


def choose_problem(dataset: PreparedDataset, classes: Sequence[str] = (), subgroups: Sequence[str] = ()) -> Problem:
    """Make the problem from names.

    Args:
        dataset: Whose attributes and subgroups they are.
        classes: Attributes; the dataset's only exclusive group (the diagnoses) when empty.
        subgroups: Subgroup columns or attributes; none leaves classes undivided.

    Raises:
        UserError: For an unknown name, a name given twice, or no class where the dataset does not suggest any.
    """
    groups: dict[str, list[str]] = dict(dataset.info.get("attribute_groups") or {})
    if not classes:
        if len(groups) != 1:
            raise UserError(f"{dataset.path} has {len(groups)} groups of classes: name the classes with --class NAME")
        classes = next(iter(groups.values()))
    for name in classes:
        if name not in dataset.attribute_names:
            raise UserError(f"--class {name}: {dataset.path} has no such attribute, {_hint(name, classes, dataset)}")
    columns = [*dataset.subgroup_names, *dataset.attribute_names]
    for name in subgroups:
        if name not in columns:
            raise UserError(f"--subgroup {name}: {dataset.path} has no such column, {nearest(name, columns)}")
        if name in classes:
            raise UserError(f"--subgroup {name} is a class already: a class cannot divide itself")
    for option, names in (("--class", classes), ("--subgroup", subgroups)):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise UserError(f"{option} {twice[0]} is given twice: name it once")
    exclusive = len(classes) > 1 and any(set(classes) <= set(members) for members in groups.values())
    return Problem(tuple(classes), exclusive, tuple(subgroups))


def _hint(name: str, classes: Sequence[str], dataset: PreparedDataset) -> str:
    return nearest(name, [known for known in dataset.attribute_names if known not in classes])


def usable_cases(cases: Sequence[Case], problem: Problem) -> list[Case]:
    """Return the cases whose class is known: exactly one present where classes exclude each other, else any known."""
    if problem.exclusive:
        return [case for case in cases if sum(case.attributes.get(name) == 1 for name in problem.classes) == 1]
    return [case for case in cases if any(case.attributes.get(name) is not None for name in problem.classes)]


def class_labels(cases: Sequence[Case], problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Return labels ``(N, K)`` float32, 0 or 1, and known ``(N, K)`` bool of usable cases."""
    rows = [[case.attributes.get(name) for name in problem.classes] for case in cases]
    shape = (len(cases), len(problem.classes))
    labels = torch.tensor([[float(value == 1) for value in row] for row in rows]).reshape(shape)
    known = torch.tensor([[problem.exclusive or value is not None for value in row] for row in rows]).reshape(shape)
    return labels, known


def subgroup_values(case: Case, problem: Problem) -> tuple[tuple[str, str], ...] | None:
    """Return column and value of each subgroup column, ``None`` where one is unknown."""
    found = []
    for column in problem.subgroups:
        value = case.subgroups[column] if column in case.subgroups else case.attributes.get(column)
        if value is None:
            return None
        found.append((column, str(value)))
    return tuple(found)


def cells_of(case: Case, problem: Problem) -> list[Cell]:
    """Return the cells of a case: one for each class that it shows; none where a subgroup is unknown."""
    values = subgroup_values(case, problem)
    if values is None:
        return []
    return [Cell(name, values) for name in problem.classes if case.attributes.get(name) == 1]


def members_of(cases: Sequence[Case], problem: Problem) -> dict[Cell, list[int]]:
    """Return the rows of ``cases`` in each cell, in the order of classes, then of subgroup values."""
    found: dict[Cell, list[int]] = defaultdict(list)
    for row, case in enumerate(cases):
        for cell in cells_of(case, problem):
            found[cell].append(row)
    order = {name: number for number, name in enumerate(problem.classes)}
    return dict(sorted(found.items(), key=lambda item: (order[item[0].class_name], item[0].values)))


def count_cells(cases: Sequence[Case], problem: Problem, also: Sequence[Cell] = ()) -> list[CellCount]:
    """Count real images, and patients or lesions, of each cell; cells in ``also`` that no case is in count 0."""
    members = members_of(cases, problem)
    counts = [
        CellCount(cell, len(rows), len({cases[row].group_id or cases[row].case_id for row in rows}))
        for cell, rows in members.items()
    ]
    return counts + [CellCount(cell, 0, 0) for cell in also if cell not in members]


def strata(cases: Sequence[Case], problem: Problem) -> list[tuple[str, str]]:
    """Return class and stratum of each case, for sampling that is balanced by class.

    A stratum is a cell, or the cases of a class whose subgroup is unknown. A case of several classes counts as the
    rarest of them.
    """
    counts = Counter(name for case in cases for name in problem.classes if case.attributes.get(name) == 1)
    found = []
    for case in cases:
        shown = [name for name in problem.classes if case.attributes.get(name) == 1]
        name = min(shown, key=lambda each: counts[each]) if shown else NONE
        values = subgroup_values(case, problem)
        found.append((name, f"{name},unknown" if values is None else Cell(name, values).name))
    return found
