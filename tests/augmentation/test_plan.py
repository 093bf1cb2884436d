"""How many pictures for which cell: arithmetic, and the cells that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from clinalign.augmentation.cells import Cell, CellCount
from clinalign.augmentation.plan import CellPlan, PlanRules, plan_cells
from clinalign.core.errors import UserError


def counts(**images: int) -> list[CellCount]:
    return [CellCount(Cell(name), number, number) for name, number in images.items()]


def plan(rules: PlanRules, unmeasured: dict[str, str] | None = None, fill: bool = False, **images: int) -> list[Any]:
    return plan_cells(counts(**images), rules, unmeasured or {}, fill)


def wanted(plans: list[CellPlan]) -> dict[str, int]:
    return {each.cell.name: each.wanted for each in plans}


def test_a_cell_is_filled_up_to_a_share_of_the_largest() -> None:
    plans = plan(PlanRules(share=0.25, ratio=5, oversample=1.5), NV=400, MEL=70, DF=100)
    assert wanted(plans) == {"NV": 0, "MEL": 30, "DF": 0}  # 100 is not below 100
    assert [each.candidates for each in plans] == [0, 45, 0]
    assert [each.rare for each in plans] == [False, True, False]


def test_or_to_a_number_but_never_past_ratio_and_cap() -> None:
    assert wanted(plan(PlanRules(minimum=500), NV=600, MEL=450, DF=20)) == {"NV": 0, "MEL": 50, "DF": 100}
    assert wanted(plan(PlanRules(minimum=500, ratio=2.5), DF=21)) == {"DF": 52}
    assert wanted(plan(PlanRules(minimum=5000, cap=70), DF=21)) == {"DF": 70}


def test_a_cell_whose_fidelity_cannot_be_measured_is_refused_with_the_reason() -> None:
    blind = {"DF": "the judge does not know DF"}
    plans = plan(PlanRules(minimum=100, measurable=10), blind, MEL=9, DF=50, VASC=10, NV=0)
    assert wanted(plans) == {"MEL": 0, "DF": 0, "VASC": 50, "NV": 0}
    assert [each.refused for each in plans] == [
        "9 real images to measure against, 10 needed",
        "the judge does not know DF",
        "",
        "no training case to take a prompt from",
    ]


def test_a_subgroup_that_the_judge_cannot_tell_refuses_its_cells() -> None:
    cell = CellCount(Cell("MEL", (("ink", "1"),)), 20, 20)
    (refused,) = plan_cells([cell], PlanRules(minimum=30), {"ink": "the judge does not know ink"})
    assert (refused.wanted, refused.refused) == (0, "the judge does not know ink")


def test_unmeasured_cells_are_filled_when_asked_but_not_without_a_prompt() -> None:
    plans = plan(PlanRules(minimum=100), {"DF": "unknown"}, True, MEL=9, DF=50, NV=0)
    assert wanted(plans) == {"MEL": 45, "DF": 50, "NV": 0}
    assert [each.refused for each in plans] == ["", "", "no training case to take a prompt from"]


def test_a_common_cell_is_never_called_refused() -> None:
    assert [each.refused for each in plan(PlanRules(minimum=5), {"NV": "unknown"}, NV=9)] == [""]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minimum": 0}, "--minimum 0"),
        ({"share": 1.5}, "--share 1.5"),
        ({"ratio": 0.0}, "--ratio 0"),
        ({"cap": 0}, "--cap 0"),
        ({"oversample": 0.5}, "--oversample 0.5"),
        ({"measurable": 1}, "--measurable 1"),
    ],
)
def test_rules_that_make_no_plan(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PlanRules(**settings)
