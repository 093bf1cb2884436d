"""A cell is one class within one subgroup; who is in which, and how many."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clinalign.augmentation.cells import (
    NONE,
    Cell,
    Problem,
    cells_of,
    choose_problem,
    class_labels,
    count_cells,
    strata,
    usable_cases,
)
from clinalign.core.errors import UserError
from clinalign.core.types import Case

SKIN = Problem(("MEL", "NV"), True, ("age",))


def case(name: str, group: str = "", age: str | None = "<=30", **attributes: int | None) -> Case:
    return Case(name, "a text", attributes, group or name, "train", {"age": age})


CASES = [
    case("a", "lesion 1", MEL=1, NV=0, hair=1),
    case("b", "lesion 1", MEL=1, NV=0, hair=0),
    case("c", age=">70", MEL=1, NV=0, hair=None),
    case("d", MEL=0, NV=1, hair=1),
    case("e", age=None, MEL=0, NV=1, hair=1),
]


def test_images_and_lesions_are_counted_by_class_and_subgroup() -> None:
    counts = {count.cell.name: (count.images, count.groups) for count in count_cells(CASES, SKIN)}
    assert counts == {"MEL,age=<=30": (2, 1), "MEL,age=>70": (1, 1), "NV,age=<=30": (1, 1)}  # e has no age
    also = [Cell("NV", (("age", ">70"),)), Cell("MEL", (("age", ">70"),))]
    assert [count.images for count in count_cells(CASES, SKIN, also)] == [2, 1, 1, 0]


def test_an_artifact_divides_classes_too_and_an_unknown_one_is_in_no_cell() -> None:
    problem = Problem(("MEL", "NV"), True, ("hair",))
    assert [count.cell.name for count in count_cells(CASES, problem)] == ["MEL,hair=0", "MEL,hair=1", "NV,hair=1"]
    assert cells_of(CASES[2], problem) == []


def test_only_cases_with_one_known_class_are_used() -> None:
    extra = [case("f", MEL=0, NV=0), case("g", MEL=None, NV=None), case("h", MEL=1, NV=1)]
    assert usable_cases([*CASES, *extra], SKIN) == CASES
    several = Problem(("MEL", "NV"), False)
    assert [each.case_id for each in usable_cases(extra, several)] == ["f", "h"]


def test_an_unknown_label_is_known_only_where_classes_exclude_each_other() -> None:
    rows = [case("a", MEL=1, NV=None)]
    labels, known = class_labels(rows, SKIN)
    assert labels.tolist() == [[1, 0]]
    assert known.tolist() == [[True, True]]
    assert class_labels(rows, Problem(("MEL", "NV"), False))[1].tolist() == [[True, False]]


def test_a_stratum_is_a_cell_or_an_unknown_subgroup_or_the_rarest_class_shown() -> None:
    assert strata(CASES, SKIN)[3:] == [("NV", "NV,age=<=30"), ("NV", "NV,unknown")]
    films = [case("a", x=1, y=1), case("b", x=1, y=0), case("c", x=0, y=0)]
    assert strata(films, Problem(("x", "y"), False)) == [("y", "y"), ("x", "x"), (NONE, NONE)]


def dataset(**groups: list[str]) -> Any:
    return SimpleNamespace(
        path=Path("data"), attribute_names=("MEL", "NV", "hair"), subgroup_names=("age", "sex"),
        info={"attribute_groups": groups},
    )  # fmt: skip


def test_classes_come_from_the_only_group_and_exclude_each_other_there() -> None:
    skin = dataset(diagnosis=["MEL", "NV"])
    assert choose_problem(skin) == Problem(("MEL", "NV"), True)
    assert choose_problem(skin, ["MEL", "NV"], ["hair", "sex"]) == Problem(("MEL", "NV"), True, ("hair", "sex"))
    assert not choose_problem(skin, ["MEL", "hair"]).exclusive
    assert not choose_problem(skin, ["MEL"]).exclusive


@pytest.mark.parametrize(
    ("classes", "subgroups", "message"),
    [
        (["MELL"], [], "--class MELL: data has no such attribute, did you mean 'MEL'"),
        ([], ["aage"], "--subgroup aage: data has no such column, did you mean 'age'"),
        ([], ["MEL"], "--subgroup MEL is a class already"),
        (["MEL", "MEL"], [], "--class MEL is given twice"),
        ([], ["sex", "sex"], "--subgroup sex is given twice"),
    ],
)
def test_wrong_names(classes: list[str], subgroups: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_problem(dataset(diagnosis=["MEL", "NV"]), classes, subgroups)
    with pytest.raises(UserError, match="data has 0 groups of classes: name the classes"):
        choose_problem(dataset())
