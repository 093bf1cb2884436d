"""The evaluation split by subgroup and attribute: for whom is it better, and for whom is it not?

Keys are ``subgroup/CELL/KEY``. Of each cell only what is cheap is measured: attribute accuracy, AUROC and APR, and FID
and KID of the headline features against the real images of the same cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from clinalign.evaluation.entries import Entries
from clinalign.evaluation.feature_entries import distance_entries
from clinalign.evaluation.fidelity import fid_influences, influence_interval, paired_influences
from clinalign.evaluation.intervals import mean_interval
from clinalign.evaluation.subgroups import Cell, cells_of, left_out
from clinalign.evaluation.suite import case_groups
from clinalign.workflows.evaluation_measure import Instruments, Measured, alignment_of, right_decisions

FLOOR = 500  # images on each side of a cell's floor at most: there are many cells


@dataclass(frozen=True)
class Minimum:
    """Images that a cell needs on each side.

    Attributes:
        alignment: For attribute accuracy, AUROC and APR.
        fidelity: For FID and KID.
    """

    alignment: int
    fidelity: int


def subgroup_entries(
    measured: Measured, real: Measured, instruments: Instruments, minimum: Minimum, fidelity: bool = True
) -> Entries:
    """Measure each cell that has enough images on both sides.

    Args:
        measured: Generated images; or the real ones, against which ``fidelity`` is then off.
        real: Real images.
        instruments: What measured both.
        minimum: Images that a cell needs.
        fidelity: Compare with the real images of the cell.
    """
    found: Entries = {}
    for cell in cells_of(measured.cases, real.cases, instruments.judged):
        if not _large(cell, measured, real, minimum.alignment):
            continue
        family = alignment_of(_part(measured, cell.rows), instruments, each_attribute=False)
        if fidelity and _large(cell, measured, real, minimum.fidelity):
            name = instruments.headline
            family |= distance_entries(
                real.features[name][cell.real],
                measured.features[name][cell.rows],
                instruments.extractors[name].identity,
                groups_x=case_groups([real.cases[row] for row in cell.real]),
                groups_y=case_groups([measured.cases[row] for row in cell.rows]),
                most=FLOOR,
                replicates=instruments.resamples,
                seed=instruments.seed,
            )
        found |= {f"subgroup/{cell.name}/{key}": entry for key, entry in family.items()}
    return found


def subgroup_changes(
    base: Measured, tuned: Measured, real: Measured, instruments: Instruments, minimum: Minimum
) -> Entries:
    """Measure what tuning changed in each cell: paired, as in :mod:`clinalign.workflows.evaluation_changes`.

    Returns:
        ``change/subgroup/CELL/alignment/attribute_accuracy`` and ``.../fidelity/fid``.
    """
    found: Entries = {}
    name = instruments.headline
    keyword: dict[str, Any] = {"replicates": instruments.resamples, "seed": instruments.seed}
    right = [right_decisions(each, instruments, len(each.cases)).nanmean(1) for each in (base, tuned)]
    for cell in cells_of(tuned.cases, real.cases, instruments.judged):
        if not _large(cell, tuned, real, minimum.alignment):
            continue
        groups = case_groups([tuned.cases[row] for row in cell.rows])
        change = mean_interval((right[1] - right[0])[cell.rows], groups=groups, **keyword)
        evaluator = {"evaluator": instruments.evaluator.identity}
        found[f"change/subgroup/{cell.name}/alignment/attribute_accuracy"] = change.to_json() | evaluator
        if _large(cell, tuned, real, minimum.fidelity):
            x = real.features[name][cell.real]
            before, after = (fid_influences(x, each.features[name][cell.rows]) for each in (base, tuned))
            groups_x = case_groups([real.cases[row] for row in cell.real])
            estimate = influence_interval(paired_influences(before, after), groups_x, groups, **keyword)
            extractor = {"extractor": instruments.extractors[name].identity}
            found[f"change/subgroup/{cell.name}/fidelity/fid"] = estimate.to_json() | extractor
    return found


def subgroup_facts(measured: Measured, real: Measured, instruments: Instruments, minimum: Minimum) -> dict[str, Any]:
    """Return what ``evaluation.json`` says: the least n, and each cell that is too small with its n on both sides."""
    cells = cells_of(measured.cases, real.cases, instruments.judged)
    return {
        "minimum": {"alignment": minimum.alignment, "fidelity": minimum.fidelity},
        "left_out": left_out(cells, minimum.alignment, minimum.fidelity),
    }


def _large(cell: Cell, measured: Measured, real: Measured, least: int) -> bool:
    """Tell whether both sides have enough images, of two patients or lesions at least."""
    sides = ((measured, cell.rows), (real, cell.real))
    return cell.smaller >= least and all(len(set(_groups(side, rows))) > 1 for side, rows in sides)


def _groups(measured: Measured, rows: Sequence[int]) -> list[str]:
    return case_groups([measured.cases[row] for row in rows])


def _part(measured: Measured, rows: Sequence[int]) -> Measured:
    """Return cases and probabilities of some rows alone."""
    return replace(
        measured,
        cases=[measured.cases[row] for row in rows],
        probabilities=measured.probabilities[torch.tensor(rows)],
    )
