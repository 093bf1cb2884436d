"""From the answers of all classifiers to numbers with intervals, over seeds of training and test patients at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.stats import t as student  # type: ignore[import-untyped]

from clinalign.augmentation.arms import COMPARISONS
from clinalign.augmentation.cells import Problem, class_labels, members_of, subgroup_values
from clinalign.augmentation.learn import Learned
from clinalign.augmentation.plan import CellPlan
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.evaluation.intervals import percentile_interval, resampling_weights
from clinalign.workflows.augment_plan import SMALL
from clinalign.workflows.augment_scores import Exam, Region, exam_values

Entries = dict[str, dict[str, Any]]
RARE, FILLED = "cell=rare", "cell=filled"


def make_exam(cases: Sequence[Case], problem: Problem, plans: Sequence[CellPlan], filled: Sequence[str]) -> Exam:
    """Prepare the test images: classes, cells that have any, and the pools of rare and of filled cells.

    Args:
        cases: The N test cases.
        problem: Classes and subgroups.
        plans: Of all cells. Rare are those of the plan, and those with fewer than ten test images.
        filled: Names of the cells that got generated images.
    """
    labels, known = class_labels(cases, problem)
    everything = torch.ones(len(cases), dtype=torch.bool)
    values = [subgroup_values(case, problem) for case in cases]
    members = members_of(cases, problem)
    regions = [
        Region(f"class={name}", k, everything, int(labels[:, k].sum())) for k, name in enumerate(problem.classes)
    ]
    rare, full = [], []
    for plan in plans:
        if plan.cell not in members:
            continue
        rows = torch.tensor([value == plan.cell.values for value in values])
        count = len(members[plan.cell])
        region = Region(f"cell={plan.cell.name}", problem.classes.index(plan.cell.class_name), rows, count)
        regions.append(region)
        if plan.rare or count < SMALL:
            rare.append(region)
        if plan.cell.name in filled:
            full.append(region)
    pools = {name: pool for name, pool in ((RARE, rare), (FILLED, full)) if pool}
    return Exam(labels.bool(), known, problem.exclusive, regions, pools)


def arm_values(
    answers: Mapping[str, Sequence[Learned]], test: str, exam: Exam, groups: Sequence[str], resamples: int, seed: int
) -> dict[str, dict[str, torch.Tensor]]:
    """Return arm to metric to ``(S, 1 + B)``: each seed's value on all test images, and on each resample of groups.

    Args:
        answers: Arm to what its classifiers said, one a seed, in the same order for all arms.
        test: Name of the test set in the answers.
        exam: The test images.
        groups: Patient or lesion of each.
        resamples: B.
        seed: Same seed, same resamples, for all arms: differences are paired.
    """
    found: dict[str, dict[str, list[torch.Tensor]]] = {}
    whole = torch.ones(1, len(groups), dtype=torch.float64)
    for weights in (whole, *resampling_weights(len(groups), groups, resamples, seed)):
        for arm, learned in answers.items():
            rows = [exam_values(each.logits[test], each.shares, exam, weights) for each in learned]
            for metric in rows[0]:
                stacked = torch.stack([row[metric] for row in rows])
                found.setdefault(arm, {}).setdefault(metric, []).append(stacked)
    return {arm: {metric: torch.cat(parts, 1) for metric, parts in each.items()} for arm, each in found.items()}


def seed_choices(seeds: int, resamples: int, seed: int) -> torch.Tensor:
    """Return ``(B, S)``: which seeds each resample draws, with replacement; the same for all arms."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "training seeds"))
    return torch.randint(seeds, (resamples, seeds), generator=generator)


def hierarchical(values: torch.Tensor, chosen: torch.Tensor) -> tuple[float, tuple[float, float]]:
    """Return the mean over seeds and its 95 % interval over seeds of training and test patients at once.

    Each resample draws patients (or lesions) and seeds. A bootstrap of a few seeds is too narrow: it loses the factor
    ``sqrt(S / (S - 1))`` and the tails of Student's t. Both are put back (R), so that with endless test images the
    interval is that of Student's t over seeds. With one seed there is no spread of seeds, and the interval holds the
    choice of patients alone.

    Args:
        values: ``(S, 1 + B)`` of :func:`arm_values`, or a difference of two.
        chosen: ``(B, S)`` of :func:`seed_choices`.

    Returns:
        The value, NaN where undefined, and the ends.
    """
    value = float(values[:, 0].mean())
    seeds, drawn = len(values), values[:, 1:]
    middle = drawn.mean(0)
    if seeds > 1:
        picked = drawn.T.gather(1, chosen).mean(1)
        wide = math.sqrt(seeds / (seeds - 1)) * float(student.ppf(0.975, seeds - 1)) / 1.959964
        middle = middle + wide * (picked - middle)
    if math.isnan(value):
        return value, (math.nan, math.nan)
    return value, percentile_interval(middle)


def result_entries(
    values: Mapping[str, Mapping[str, torch.Tensor]], exam: Exam, resamples: int, seed: int, mark: Mapping[str, Any]
) -> Entries:
    """Return the entries of all arms and of their differences.

    Args:
        values: Of :func:`arm_values`.
        exam: The test images.
        resamples: As in :func:`arm_values`.
        seed: As in :func:`arm_values`.
        mark: Identity of the classifier; goes into every entry.

    Returns:
        ``ARM/METRIC[/REGION]`` and ``change/ARM-ARM/METRIC[/REGION]`` to ``value``, ``ci95``, ``n``, ``seeds`` (each
        seed's value) and the mark. What is undefined is left out.
    """
    counts = {region.name: region.count for region in exam.regions}
    counts |= {name: sum(region.count for region in pool) for name, pool in exam.pools.items()}
    chosen = seed_choices(len(next(iter(next(iter(values.values())).values()))), resamples, seed)
    sets = {arm: dict(each) for arm, each in values.items()}
    for first, second in COMPARISONS:
        if first in values and second in values:
            both = values[first], values[second]
            sets[f"change/{first}-{second}"] = {metric: both[0][metric] - both[1][metric] for metric in both[0]}
    entries: Entries = {}
    for name, metrics in sets.items():
        for metric, each in metrics.items():
            value, ends = hierarchical(each, chosen)
            if not all(map(math.isfinite, (value, *ends))):
                continue
            ends = _within(ends, 2.0 if metric == "brier" and exam.exclusive else 1.0, name.startswith("change/"))
            region = metric.partition("/")[2]
            entries[f"{name}/{metric}"] = {
                "value": value,
                "ci95": list(ends),
                "n": counts.get(region, len(exam.labels)),
                "seeds": [float(number) for number in each[:, 0]],
                **mark,
            }
    return entries


def _within(ends: tuple[float, float], highest: float, signed: bool) -> tuple[float, float]:
    """Cut an interval that was widened off at what the metric can be."""
    lowest = -highest if signed else 0.0
    return max(lowest, ends[0]), min(highest, ends[1])
