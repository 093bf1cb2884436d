"""Which cells an evaluation splits into."""

from __future__ import annotations

from clinalign.core.types import Case
from clinalign.evaluation.subgroups import cells_of, left_out


def case(number: int, sex: str | None, site: str = "back", melanoma: int | None = 0) -> Case:
    return Case(str(number), "text", {"MEL": melanoma}, subgroups={"sex": sex, "site": site})


def test_cells_by_subgroup_and_attribute() -> None:
    generated = [case(0, "female"), case(1, "male", melanoma=1), case(2, None), case(3, "female", melanoma=None)]
    real = [case(0, "female"), case(1, "male", melanoma=1)]
    found = {cell.name: (cell.rows, cell.real) for cell in cells_of(generated, real, ["MEL"])}
    assert found == {
        "sex=female": ([0, 3], [0]),
        "sex=male": ([1], [1]),
        "attribute:MEL=0": ([0, 2], [0]),
        "attribute:MEL=1": ([1], [1]),
    }  # one site only makes no cell; what is unknown is in none


def test_a_slash_does_not_part_a_key() -> None:
    cases = [case(0, "female", "palms/soles"), case(1, "female", "back")]
    assert {cell.name for cell in cells_of(cases, cases, [])} == {"site=palms-soles", "site=back"}


def test_small_cells_are_listed_with_their_numbers() -> None:
    generated = [case(i, "female" if i < 30 else "male") for i in range(100)]
    real = generated[:29] + generated[30:]
    cells = cells_of(generated, real, [])
    assert left_out(cells, alignment=30, fidelity=80) == [
        {"cell": "sex=female", "n": 30, "n_real": 29, "left_out": ["alignment", "fidelity"]},
        {"cell": "sex=male", "n": 70, "n_real": 70, "left_out": ["fidelity"]},
    ]
    assert left_out(cells, alignment=20, fidelity=25) == []
