"""Judging generated pictures: which are kept, why others are dropped, and how real those of a cell look."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from clinalign.augmentation.cells import Cell, members_of
from clinalign.augmentation.filters import copies_of, duplicate_distance, pass_threshold, repeats
from clinalign.augmentation.plan import CellPlan
from clinalign.core.types import Case
from clinalign.evaluation.fidelity import kid, kid_interval
from clinalign.evaluation.floor import group_halves
from clinalign.evaluation.intervals import mean_interval
from clinalign.networks.classifier import AttributeClassifier
from clinalign.workflows.augment_images import Batch
from clinalign.workflows.augment_plan import Ground, Seen, look
from clinalign.workflows.augment_settings import AugmentSettings

MOST_REFERENCES = 5000  # real images whose distances set what a near duplicate is
KEPT, SPARE = "kept", "not needed"
WRONG, COPY, REPEAT = "not as asked", "near a training image", "near another picture"


@dataclass(frozen=True)
class Filter:
    """A judge, calibrated on real training images.

    Attributes:
        judge: The judge.
        thresholds: Attribute and value (1 or 0) to the probability of that value from which a picture passes.
        real: What the judge makes of all real training images.
        distance: Below it, two images are near duplicates.
        false_pass: Attribute to the share of real images without it that would pass as having it.
    """

    judge: AttributeClassifier
    thresholds: Mapping[tuple[str, int], float]
    real: Seen
    distance: float
    false_pass: Mapping[str, float]


@dataclass(frozen=True)
class CellImages:
    """The pictures of a cell by one generator, judged.

    Attributes:
        plan: Of the cell.
        batch: The pictures.
        verdicts: What became of each.
        kept: Rows of the pictures that are used, in order.
        facts: Counts of verdicts.
        entries: Metrics by name: ``acceptance``, ``judge_accuracy``, ``kid``, each with interval and n.
        refused: Why the cell is not filled after all; empty where it is.
    """

    plan: CellPlan
    batch: Batch
    verdicts: list[str]
    kept: list[int]
    facts: dict[str, int]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: str = ""


def calibrate_filter(
    judge: AttributeClassifier, seen: Seen, ground: Ground, names: Sequence[str], settings: AugmentSettings
) -> Filter:
    """Set thresholds so that ``pass_rate`` of the real training images of each attribute pass.

    Args:
        judge: The judge.
        seen: What it makes of the real training images.
        ground: The cases.
        names: Attributes that pictures are asked for; those that the judge does not know are left out.
        settings: ``pass_rate``.
    """
    cases = ground.cases["train"]
    thresholds: dict[tuple[str, int], float] = {}
    false_pass: dict[str, float] = {}
    for name in (name for name in names if name in judge.attribute_names):
        chance = seen.probabilities[:, judge.attribute_names.index(name)]
        for value in (1, 0):
            rows = [row for row, case in enumerate(cases) if case.attributes.get(name) == value]
            if rows:
                of_value = chance[rows] if value else 1.0 - chance[rows]
                thresholds[name, value] = pass_threshold(of_value, settings.pass_rate)
        absent = [row for row, case in enumerate(cases) if case.attributes.get(name) == 0]
        if absent and (name, 1) in thresholds:
            false_pass[name] = float((chance[absent] >= thresholds[name, 1]).double().mean())
    groups = [case.group_id or case.case_id for case in cases]
    chosen = torch.randperm(len(cases), generator=torch.Generator().manual_seed(settings.seed))[:MOST_REFERENCES]
    distance = duplicate_distance(seen.features[chosen], [groups[row] for row in chosen.tolist()])
    return Filter(judge, thresholds, seen, distance, false_pass)


def promises(cell: Cell, cases: Sequence[Case]) -> list[tuple[str, int]]:
    """Return what a cell's pictures have to show: its class, and its subgroup where that is an attribute."""
    attributes = cases[0].attributes
    return [(cell.class_name, 1), *((name, int(value)) for name, value in cell.values if name in attributes)]


def judge_cell(
    plan: CellPlan, batch: Batch, sieve: Filter, ground: Ground, settings: AugmentSettings
) -> tuple[CellImages, Seen]:
    """Judge the pictures of a cell, keep what passes up to the number wanted, and measure how real they look."""
    cases = ground.cases["train"]
    seen = look(sieve.judge, batch.images)
    asked = [promise for promise in promises(plan.cell, cases) if promise in sieve.thresholds]
    passed, found = (torch.ones(len(batch.requests), dtype=torch.bool) for _ in range(2))
    for name, value in asked:
        chance = seen.probabilities[:, sieve.judge.attribute_names.index(name)]
        chance = chance if value else 1.0 - chance
        passed &= chance >= sieve.thresholds[name, value]
        found &= chance > 0.5
    copied = copies_of(seen.features, sieve.real.features, sieve.distance) & passed
    again = repeats(seen.features, passed & ~copied, sieve.distance)
    good = (passed & ~copied & ~again).nonzero().flatten().tolist()
    kept = good[: plan.wanted]
    verdicts = [WRONG] * len(batch.requests)
    for rows, verdict in ((good, SPARE), (kept, KEPT)):
        for row in rows:
            verdicts[row] = verdict
    for flags, verdict in ((copied, COPY), (again, REPEAT)):
        for row in flags.nonzero().flatten().tolist():
            verdicts[row] = verdict
    members = members_of(cases, ground.problem)[plan.cell]
    entries = _measure(seen, passed, found, kept, members, batch, sieve, ground, settings, bool(asked))
    reason = "" if kept else "no picture passed the filter"
    if kept and "kid" not in entries and not settings.fill_unmeasured:
        reason = f"{len(kept)} pictures passed the filter, too few to measure their fidelity"
    facts = dict.fromkeys((KEPT, SPARE, WRONG, COPY, REPEAT), 0) | dict(Counter(verdicts))
    return CellImages(plan, batch, verdicts, [] if reason else kept, facts, entries, reason), seen


def _measure(
    seen: Seen,
    passed: torch.Tensor,
    found: torch.Tensor,
    kept: Sequence[int],
    members: Sequence[int],
    batch: Batch,
    sieve: Filter,
    ground: Ground,
    settings: AugmentSettings,
    judged: bool,
) -> dict[str, dict[str, Any]]:
    """Return the metrics of a cell's pictures; what cannot be measured is left out."""
    prompts = [request.case.case_id for request in batch.requests]
    shared: dict[str, Any] = {"replicates": settings.resamples, "seed": settings.seed}
    entries: dict[str, dict[str, Any]] = {}
    several = len(set(prompts)) > 1
    if judged and several:
        by = {"evaluator": sieve.judge.identity}
        entries["acceptance"] = mean_interval(passed.double(), groups=prompts, **shared).to_json() | by
        entries["judge_accuracy"] = mean_interval(found.double(), groups=prompts, **shared).to_json() | by
    cases = ground.cases["train"]
    groups = [cases[row].group_id or cases[row].case_id for row in members]
    mine = [prompts[row] for row in kept]
    if len(members) < settings.rules.measurable or len(set(groups)) < 2:
        return entries
    real = sieve.real.features[list(members)]
    mark: dict[str, Any] = {"extractor": f"domain:{sieve.judge.identity}", "n_reference": len(real)}
    for name, rows, names in (("kid_drawn", list(range(len(prompts))), prompts), ("kid", list(kept), mine)):
        if len(set(names)) > 1:
            value = kid_interval(real, seen.features[rows], groups, names, **shared).to_json()
            entries[name] = value | mark | _floor(real, groups, settings.seed)
    return {name: entry for name, entry in entries.items() if all(map(math.isfinite, (entry["value"], *entry["ci95"])))}


def _floor(real: torch.Tensor, groups: Sequence[str], seed: int, draws: int = 4) -> dict[str, float]:
    """Return the KID of real images of the cell against others of it; empty where halves are too small."""
    values = []
    for draw in range(draws):
        first, second = group_halves(groups, seed + draw)
        if min(len(first), len(second)) < 2:
            return {}
        values.append(float(kid(real[first], real[second])))
    return {"floor": sum(values) / len(values)}
