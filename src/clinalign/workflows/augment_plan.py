"""The plan of an augmentation: which cells are rare, which can be measured, how much has to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clinalign.augmentation.arms import SIDES, choose_arms
from clinalign.augmentation.cells import (
    Problem,
    choose_problem,
    class_labels,
    count_cells,
    members_of,
    strata,
    usable_cases,
)
from clinalign.augmentation.plan import CellPlan, plan_cells
from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.independence import check_independence
from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.scores import auroc, auroc_interval
from clinalign.workflows.augment_settings import AugmentSettings
from clinalign.workflows.drawing import Sampler, run_config
from clinalign.workflows.evaluation_setup import reward_card

SMALL = 10  # test images below which a cell's own numbers say little
READ_AT_ONCE = 256


@dataclass(frozen=True)
class Ground:
    """The real images of an experiment.

    Attributes:
        dataset: The prepared dataset.
        problem: Classes and subgroups.
        cases: Split (``train``, ``validation``, ``test``) to its usable cases.
        left_out: Split to the number of cases without a class.
    """

    dataset: PreparedDataset
    problem: Problem
    cases: dict[str, list[Case]]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Seen:
    """What the judge makes of images.

    Attributes:
        features: ``(N, D)``.
        probabilities: ``(N, A)`` of the judge's attributes, at an even prior.
    """

    features: torch.Tensor
    probabilities: torch.Tensor


def open_ground(data: str | Path, settings: AugmentSettings) -> Ground:
    """Open the dataset and find the cases of the problem.

    Raises:
        UserError: For wrong names, or a split in which a class has no case.
    """
    dataset = PreparedDataset.open(data)
    problem = choose_problem(dataset, settings.classes, settings.subgroups)
    cases, left_out = {}, {}
    for split in ("train", "validation", "test"):
        found = dataset.cases(split)
        cases[split] = usable_cases(found, problem)
        left_out[split] = len(found) - len(cases[split])
        labels, _ = class_labels(cases[split], problem)
        for k, name in enumerate(problem.classes):
            if split != "validation" and not labels[:, k].any():
                raise UserError(
                    f"class '{name}' has no case in split '{split}' of {data}: name the classes with --class"
                )
        if not cases[split]:
            raise UserError(f"no case in split '{split}' of {data} has a class: name other classes with --class")
    return Ground(dataset, problem, cases, left_out)


def open_judge(
    evaluator: str | Path, model: Any, ground: Ground, settings: AugmentSettings, device: torch.device
) -> tuple[AttributeClassifier, list[str]]:
    """Open the judge and check that it neither rewarded nor learned from the images that it is calibrated on.

    Returns:
        The judge, and notes for the result.

    Raises:
        UserError: When it is not independent.
    """
    judge = AttributeClassifier.load(evaluator, device)
    config = run_config(model) if isinstance(model, str | Path) else None
    folders = [*settings.rewards, *(reward.path for reward in (config.rewards if config else ()) if reward.path)]
    cards = [reward_card(folder, settings.allow_reward_evaluator) for folder in dict.fromkeys(folders)]
    notes = check_independence(judge.card, cards, settings.allow_reward_evaluator)
    if judge.card.get("dataset") != ground.dataset.fingerprint:
        notes.append("the judge was trained on another dataset")
    elif judge.card.get("split") in ("train", "test"):
        wrong = f"the judge was trained on split '{judge.card['split']}', whose images it would know"
        if not settings.allow_reward_evaluator:
            raise UserError(f"{wrong}: give --evaluator a classifier trained with --split judge")
        notes.append(f"not independent: {wrong}")
    if not folders and config is None:
        notes.append("no reward is known, so the judge could not be compared with one")
    return judge, notes


def look(judge: AttributeClassifier, images: torch.Tensor) -> Seen:
    """Let the judge look at ``(N, 3, H, W)`` uint8 images."""
    features, probabilities = [], []
    for part in torch.split(images, READ_AT_ONCE):
        pixels = part.float() / 255.0
        with torch.no_grad():
            features.append(judge.features(pixels.to(judge.device)).cpu())
        probabilities.append(judge.probabilities(pixels))
    empty = torch.empty(0, len(judge.attribute_names))
    return Seen(torch.cat(features), torch.cat(probabilities)) if features else Seen(torch.empty(0, 1), empty)


def judge_skill(
    judge: AttributeClassifier, seen: Seen, cases: Sequence[Case], names: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Measure on real training images, which the judge never saw, how well it tells each attribute.

    Returns:
        Attribute to ``auroc``, ``ci95`` and ``n``; ``auroc`` is ``None`` where the judge does not know the attribute or
        one answer is missing.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = [row for row, case in enumerate(cases) if case.attributes.get(name) is not None]
        labels = torch.tensor([float(cases[row].attributes[name] or 0) for row in rows])
        found[name] = {"auroc": None, "ci95": None, "n": len(rows)}
        if name not in judge.attribute_names or not rows or labels.min() == labels.max():
            continue
        scores = seen.probabilities[rows, judge.attribute_names.index(name)]
        groups = [cases[row].group_id or cases[row].case_id for row in rows]
        found[name] |= {"auroc": auroc(scores, labels), "ci95": auroc_interval(scores, labels, groups, seed)}
    return found


def blind_spots(skill: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return attribute to the reason why the judge cannot measure it: it does not know it, or it guesses."""
    reasons = {}
    for name, row in skill.items():
        if row["auroc"] is None:
            reasons[name] = f"the judge does not know {name}"
        elif row["ci95"] is None or row["ci95"][0] <= 0.5:
            reasons[name] = f"the judge tells {name} no better than chance (AUROC {row['auroc']:.2f})"
    return reasons


def promised_attributes(ground: Ground) -> list[str]:
    """Return the attributes that a cell's pictures have to show or not to show: classes and subgroup attributes."""
    problem = ground.problem
    columns = [name for name in problem.subgroups if name not in ground.dataset.subgroup_names]
    return [*problem.classes, *columns]


def make_plan(ground: Ground, settings: AugmentSettings, unmeasured: dict[str, str]) -> list[CellPlan]:
    """Plan all cells that training or test cases are in."""
    problem = ground.problem
    tested = list(members_of(ground.cases["test"], problem))
    counts = count_cells(ground.cases["train"], problem, tested)
    return plan_cells(counts, settings.rules, unmeasured, settings.fill_unmeasured)


def plan_card(
    plans: Sequence[CellPlan], ground: Ground, settings: AugmentSettings, sampler: Sampler, notes: Sequence[str]
) -> dict[str, Any]:
    """Return the content of ``plan.json``."""
    counts = count_cells(ground.cases["train"], ground.problem)
    tested = {count.cell: count for count in count_cells(ground.cases["test"], ground.problem, [p.cell for p in plans])}
    sides = [side for side in SIDES if any(arm.side == side for arm in choose_arms(settings.arms))]
    every = every_class_images(ground, settings)
    pictures = sum(plan.candidates for plan in plans) + every
    return {
        "classes": list(ground.problem.classes),
        "exclusive": ground.problem.exclusive,
        "subgroups": list(ground.problem.subgroups),
        "rare_below": settings.rules.threshold(counts),
        "cells": [
            {**plan.to_json(), "test": tested[plan.cell].images, "test_groups": tested[plan.cell].groups}
            for plan in plans
        ],
        "generators": sides,
        "pictures_of_each_generator": pictures,
        "of_them_for_every_class": every,
        "network_evaluations": sampler.evaluations(pictures * len(sides)),
        "cases": {split: len(found) for split, found in ground.cases.items()},
        "cases_without_a_class": ground.left_out,
        "notes": list(notes),
    }


def every_class_images(ground: Ground, settings: AugmentSettings) -> int:
    """Return how many pictures one generator draws for training and testing on generated images alone."""
    return settings.every_class * len({name for name, _ in strata(ground.cases["train"], ground.problem)})


def silent_subgroups(ground: Ground, plans: Sequence[CellPlan]) -> list[str]:
    """Return subgroup columns of which the prompts do not speak: most cases share their text with another value of it.

    A picture of such a cell is drawn from its cases' texts but cannot know the subgroup.
    """
    if not any(plan.wanted for plan in plans):
        return []
    found = []
    members = members_of(ground.cases["train"], ground.problem)
    for number, column in enumerate(ground.problem.subgroups):
        values: dict[tuple[Any, ...], list[str]] = {}
        for cell, rows in members.items():
            rest = (cell.class_name, *(pair for place, pair in enumerate(cell.values) if place != number))
            for row in rows:
                values.setdefault((rest, ground.cases["train"][row].text), []).append(cell.values[number][1])
        shared = sum(len(each) for each in values.values() if len(set(each)) > 1)
        if shared > sum(map(len, values.values())) / 2:
            found.append(column)
    return found
