"""The evaluation by subgroup, on numbers that are known: tuning helps women and harms men."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clinalign.core.types import Case
from clinalign.workflows.evaluation_measure import DiversitySet, Instruments, Measured
from clinalign.workflows.evaluation_subgroups import Minimum, subgroup_changes, subgroup_entries, subgroup_facts

CASES = [
    Case(
        str(i), f"text {i}", {"hair": 1, "MEL": i % 2},
        subgroups={"sex": "female" if i < 60 else "male", "site": "back" if i else "scalp"},
    )
    for i in range(100)
]  # fmt: skip
LEAST = Minimum(20, 50)


def measured(wrong: range, shift: torch.Tensor | float = 0.0, seed: int = 0) -> Measured:
    """Pictures without hair in the rows ``wrong``; features of one cloud, moved by ``shift``."""
    probabilities = torch.tensor([[1.0, float(i % 2)] for i in range(100)])
    probabilities[list(wrong), 0] = 0.0
    features = torch.randn(100, 3, generator=torch.Generator().manual_seed(seed)) + shift
    nothing = DiversitySet(torch.empty((0, 3, 0, 0), dtype=torch.uint8), features[:0], [])
    return Measured(CASES, {"domain": features}, probabilities, nothing)


def instruments() -> Instruments:
    evaluator: Any = SimpleNamespace(attribute_names=("hair", "MEL"), card={}, identity="judge:1")
    extractor: Any = SimpleNamespace(identity="bands:1")
    return Instruments(evaluator, {"domain": extractor}, ("hair", "MEL"), ("hair",), 200, 0)


REAL = measured(range(0), seed=1)


def test_each_cell_has_its_own_numbers() -> None:
    women_moved = torch.tensor([3.0] * 60 + [0.0] * 40)[:, None]
    entries = subgroup_entries(measured(range(30), women_moved), REAL, instruments(), LEAST)
    women, men = "subgroup/sex=female", "subgroup/sex=male"
    assert entries[f"{women}/alignment/attribute_accuracy"]["value"] == pytest.approx(0.75)
    assert entries[f"{men}/alignment/attribute_accuracy"]["value"] == 1.0
    assert entries[f"{women}/alignment/apr"]["value"] == pytest.approx(0.5)
    assert entries[f"{women}/alignment/attribute_accuracy"]["n"] == 60
    fid = entries[f"{women}/fidelity/fid"]
    assert fid["value"] == pytest.approx(27, rel=0.2)  # three features, each moved by three
    assert (fid["n"], fid["n_reference"], fid["floor_n"], fid["extractor"]) == (60, 60, 30, "bands:1")
    assert fid["at_floor_n"] > 10 * fid["floor"]
    assert f"{men}/fidelity/fid" not in entries  # forty men, and fidelity needs fifty
    assert {"subgroup/attribute:MEL=0", "subgroup/attribute:MEL=1"} < {key.rsplit("/", 2)[0] for key in entries}


def test_a_cell_is_compared_with_the_real_pictures_of_the_same_cell() -> None:
    """Real men lie elsewhere, as drawn men do; and the real pictures come in another order."""
    men_moved = torch.tensor([0.0] * 60 + [5.0] * 40)[:, None]
    real = measured(range(0), men_moved, seed=1)
    backwards = replace(real, cases=real.cases[::-1], features={"domain": real.features["domain"].flip(0)})
    entries = subgroup_entries(measured(range(0), men_moved), backwards, instruments(), Minimum(20, 30))
    for cell in ("sex=female", "sex=male"):
        assert entries[f"subgroup/{cell}/fidelity/fid"]["value"] < 1  # women against men would be 75


def test_null_two_clouds_of_one_kind_are_at_the_floor_in_every_cell() -> None:
    entries = subgroup_entries(measured(range(0), seed=2), REAL, instruments(), LEAST)
    kids = [entry for key, entry in entries.items() if key.endswith("/kid")]
    assert len(kids) == 4  # women, back, melanoma, no melanoma
    assert all(entry["ci95"][0] <= 0 for entry in kids)


def test_what_is_left_out_is_listed_with_its_number() -> None:
    facts = subgroup_facts(measured(range(0)), REAL, instruments(), LEAST)
    assert facts["minimum"] == {"alignment": 20, "fidelity": 50}
    assert facts["left_out"] == [
        {"cell": "sex=male", "n": 40, "n_real": 40, "left_out": ["fidelity"]},
        {"cell": "site=scalp", "n": 1, "n_real": 1, "left_out": ["alignment", "fidelity"]},
    ]


def test_the_change_is_paired_and_tells_who_gained() -> None:
    """Before, ten women and no man were wrong; after, no woman and ten men."""
    before, after = measured(range(10)), measured(range(60, 70))
    changes = subgroup_changes(before, after, REAL, instruments(), LEAST)
    women = changes["change/subgroup/sex=female/alignment/attribute_accuracy"]
    men = changes["change/subgroup/sex=male/alignment/attribute_accuracy"]
    assert women["value"] == pytest.approx(10 / 60 / 2)
    assert men["value"] == pytest.approx(-10 / 40 / 2)
    assert women["ci95"][0] > 0 > men["ci95"][1]
    assert women["evaluator"] == "judge:1"
    fid = changes["change/subgroup/sex=female/fidelity/fid"]  # the features stayed the same
    assert (fid["value"], fid["ci95"]) == (0.0, [0.0, 0.0])


def test_real_pictures_have_the_ceiling_of_each_cell_and_no_fidelity_against_themselves() -> None:
    entries = subgroup_entries(REAL, REAL, instruments(), LEAST, fidelity=False)
    assert entries["subgroup/sex=male/alignment/attribute_accuracy"]["value"] == 1.0
    assert not [key for key in entries if "fidelity" in key]
