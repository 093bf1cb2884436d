"""The augmentation experiment: do generated images make a classifier better where real ones are few?"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clinalign import __version__
from clinalign.augmentation.arms import SIDES, Arm, choose_arms
from clinalign.augmentation.cells import class_labels, strata
from clinalign.augmentation.learn import Learned, Material, learn
from clinalign.augmentation.plan import CellPlan
from clinalign.core.errors import UserError
from clinalign.core.files import write_atomic, write_json, write_text
from clinalign.core.precision import pick_device
from clinalign.core.progress import say
from clinalign.evaluation.suite import case_groups
from clinalign.generation.generator import Generator
from clinalign.networks.fit import Labelled
from clinalign.networks.labelled_data import read_labelled
from clinalign.workflows.augment_filter import CellImages, Filter, calibrate_filter, judge_cell
from clinalign.workflows.augment_images import (
    EVERY,
    IMAGES,
    Batch,
    cell_folder,
    cell_requests,
    draw_batch,
    every_requests,
)
from clinalign.workflows.augment_plan import (
    Ground,
    blind_spots,
    judge_skill,
    look,
    make_plan,
    open_ground,
    open_judge,
    plan_card,
    promised_attributes,
    silent_subgroups,
)
from clinalign.workflows.augment_result import Entries, arm_values, make_exam, result_entries
from clinalign.workflows.augment_settings import AugmentSettings, take_folder
from clinalign.workflows.augment_summary import summarise
from clinalign.workflows.drawing import Sampler, choose_sampler, run_config
from clinalign.workflows.evaluate import open_anchor, open_generator
from clinalign.workflows.reward_folder import augmentation_of

RESULT, PLAN, DETAILS, TABLE, ARM_FOLDER = "augment.json", "plan.json", "details.json", "images.csv", "arms"
TEST = "test"


@dataclass(frozen=True)
class Pictures:
    """What one generator drew.

    Attributes:
        cells: Its cells, judged.
        every: Its pictures of every class; ``None`` without.
        identity: Of the generator.
    """

    cells: list[CellImages]
    every: Batch | None
    identity: str


def augment(
    model: str | Path | Generator,
    data: str | Path,
    out: str | Path,
    evaluator: str | Path | None = None,
    base: str | Path | Generator | None = None,
    settings: AugmentSettings | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run the experiment, or go on with one that was interrupted.

    Finds the rare cells, draws pictures of them with the tuned generator and with its anchor, filters both by an
    independent judge, trains the same classifier on every arm with several seeds, and measures all of them on the real
    test split.

    Args:
        model: Run folder, pipeline folder, hub id, or an open generator: the tuned one.
        data: Prepared dataset.
        out: Folder: ``augment.json``, ``plan.json``, ``details.json``, ``images.csv``, ``images/``, ``arms/``,
            ``report/index.html``.
        evaluator: Folder of the judge: a classifier of split ``judge`` that never rewarded.
        base: The generator before tuning; ``None`` for the tuned one with its adapter off.
        settings: See :class:`~clinalign.workflows.augment_settings.AugmentSettings`.
        dry_run: Return the plan alone; nothing is drawn or written.

    Returns:
        The content of ``augment.json``; of ``plan.json`` in a dry run.

    Raises:
        UserError: For whatever is missing or does not fit.
    """
    start = time.perf_counter()
    out, settings = Path(out), settings or AugmentSettings()
    arms = choose_arms(settings.arms)
    if evaluator is None:
        raise UserError(
            "augment needs --evaluator DIR, a classifier that filters the pictures and never rewarded: train one with "
            "`clinalign train reward attributes --split judge --data DIR --out DIR`"
        )
    device = pick_device(settings.device)
    config = run_config(model) if isinstance(model, str | Path) else None
    sampler = choose_sampler(config, settings.steps, settings.guidance, settings.eta)
    ground = open_ground(data, settings)
    settings = replace(settings, learn=replace(settings.learn, augmentation=augmentation_of(ground.dataset)))
    judge, notes = open_judge(evaluator, model, ground, settings, device)
    train = _read(ground, "train")
    seen = look(judge, train.images)
    names = promised_attributes(ground)
    skill = judge_skill(judge, seen, ground.cases["train"], names, settings.seed)
    unmeasured = blind_spots(skill)
    plans = make_plan(ground, settings, unmeasured)
    notes += _notes(ground, plans, settings, unmeasured)
    card = plan_card(plans, ground, settings, sampler, notes)
    if dry_run:
        return card
    tuned = open_generator(model, device)
    anchor = open_anchor(base, model, tuned, config, device)
    for generator in (tuned, anchor):
        if generator.image_size != ground.dataset.image_size:
            raise UserError(
                f"{generator.identity} draws {generator.image_size} px and {data} has {ground.dataset.image_size} px: "
                f"prepare the data with --image-size {generator.image_size}"
            )
    identities = {"tuned": tuned.identity, "base": f"{anchor.identity}:base"}
    told = _told(settings, ground, sampler, identities, judge.identity)
    take_folder(out, told)
    write_json(out / PLAN, card)
    sieve = calibrate_filter(judge, seen, ground, names, settings)
    pictures: dict[str, Pictures] = {}
    for side in SIDES:
        if any(arm.side == side for arm in arms):
            generator = tuned if side == "tuned" else anchor
            pictures[side] = _draw_side(generator, identities[side], out, side, plans, ground, sieve, sampler, settings)
    _write_table(out / TABLE, pictures)
    answers, told_arms = _train_arms(arms, pictures, train, ground, out, settings, device)
    entries = _measure(answers, pictures, ground, plans, settings)
    notes += told_arms
    details = {
        **told,
        "notes": notes,
        "arms": {name: _arm_facts(learned) for name, learned in answers.items()},
        "seeds": settings.seeds,
        "plan": card,
        "judge_on_real_images": skill,
        "real_images_passing_wrongly": dict(sieve.false_pass),
        "near_duplicate_distance": sieve.distance,
        "cells": {side: [_cell_facts(cell) for cell in each.cells] for side, each in pictures.items()},
        "dataset_facts": {key: ground.dataset.info.get(key) for key in ("source", "modality", "licence", "citation")},
        "seconds": round(time.perf_counter() - start, 1),
    }
    details["findings"] = [asdict(finding) for finding in summarise(entries, details)]
    write_json(out / RESULT, entries)
    write_json(out / DETAILS, details)
    if settings.report:
        from clinalign.workflows.augment_report import write_report

        write_report(out, entries, details, ground, pictures, settings.real_images)
    return entries


def _told(
    settings: AugmentSettings, ground: Ground, sampler: Sampler, identities: Mapping[str, str], judge: str
) -> dict[str, Any]:
    """Return everything that decides pictures and trainings; arms and the number of seeds may grow."""
    return {
        "model": identities["tuned"],
        "base": identities["base"],
        "judge": judge,
        "dataset": ground.dataset.fingerprint,
        "classes": list(ground.problem.classes),
        "subgroups": list(ground.problem.subgroups),
        "rules": asdict(settings.rules),
        "learn": asdict(settings.learn),
        "sampler": {"name": "ddim", **asdict(sampler)},
        "seed": settings.seed,
        "pass_rate": settings.pass_rate,
        "every_class": settings.every_class,
        "fill_unmeasured": settings.fill_unmeasured,
        "clinalign": __version__,
    }


def _notes(
    ground: Ground, plans: Sequence[CellPlan], settings: AugmentSettings, unmeasured: Mapping[str, str]
) -> list[str]:
    """Return what a reader of the plan must know."""
    notes = [
        f"{count} cases of split '{split}' show no class, or several, and are left out"
        for split, count in ground.left_out.items()
        if count
    ]
    notes += [
        f"the prompts do not speak of {column}: a generated picture of a cell shows its class, not its {column}"
        for column in silent_subgroups(ground, plans)
    ]
    if settings.fill_unmeasured:
        reasons = [plan.cell.name for plan in plans if plan.wanted and _unmeasured(plan, settings, unmeasured)]
        if reasons:
            notes.append(f"filled without a measure of fidelity, as asked: {', '.join(reasons)}")
    return notes


def _unmeasured(plan: CellPlan, settings: AugmentSettings, unmeasured: Mapping[str, str]) -> bool:
    columns = [column for column, _ in plan.cell.values]
    return plan.real < settings.rules.measurable or any(name in unmeasured for name in (plan.cell.class_name, *columns))


def _read(ground: Ground, split: str) -> Labelled:
    """Read the real images of a split with their classes."""
    labels, known = class_labels(ground.cases[split], ground.problem)
    images = read_labelled(ground.dataset, ground.cases[split], ground.problem.classes).images
    return Labelled(images, labels, known)


def _labelled(batch: Batch, rows: Sequence[int], ground: Ground) -> Labelled:
    """Return generated images with the labels of the cases that they were drawn for."""
    labels, known = class_labels([batch.requests[row].case for row in rows], ground.problem)
    return Labelled(batch.images[list(rows)], labels, known)


def _draw_side(
    generator: Generator,
    identity: str,
    out: Path,
    side: Any,
    plans: Sequence[CellPlan],
    ground: Ground,
    sieve: Filter,
    sampler: Sampler,
    settings: AugmentSettings,
) -> Pictures:
    """Draw and judge all pictures of one generator."""
    cells = []
    for number, plan in enumerate(plans):
        if plan.wanted:
            requests = cell_requests(ground, plan, settings.seed)
            folder, words = cell_folder(out, side, number, plan), f"drawing {side} {plan.cell.name}"
            batch = draw_batch(generator, side == "base", requests, folder, sampler, settings, identity, words)
            judged, _ = judge_cell(plan, batch, sieve, ground, settings)
            say(f"{side} {plan.cell.name}: {len(judged.kept)} of {plan.wanted} wanted, {len(requests)} drawn")
            cells.append(judged)
    every = None
    if settings.every_class:
        requests = every_requests(ground, settings.every_class, settings.seed)
        folder = out / IMAGES / side / EVERY
        words = f"drawing {side} images of every class"
        every = draw_batch(generator, side == "base", requests, folder, sampler, settings, identity, words)
    return Pictures(cells, every, identity)


def _write_table(path: Path, pictures: Mapping[str, Pictures]) -> None:
    """Write one line for each picture of a cell: what it was asked for and what became of it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["generator", "cell", "folder", "number", "case_id", "member", "verdict"])
    for side, each in pictures.items():
        for cell in each.cells:
            for number, (request, verdict) in enumerate(zip(cell.batch.requests, cell.verdicts, strict=True)):
                place = [side, cell.plan.cell.name, cell.batch.folder.name, number]
                writer.writerow([*place, request.case.case_id, request.member, verdict])
    write_text(path, stream.getvalue())


def _train_arms(
    arms: Sequence[Arm],
    pictures: Mapping[str, Pictures],
    train: Labelled,
    ground: Ground,
    out: Path,
    settings: AugmentSettings,
    device: torch.device,
) -> tuple[dict[str, list[Learned]], list[str]]:
    """Train every arm with every seed, or read what it said where it was trained before."""
    material = _material(train, pictures, ground)
    validation, test = _read(ground, "validation"), _read(ground, "test")
    generated = {
        f"trts_{side}": _labelled(each.every, range(len(each.every.requests)), ground)
        for side, each in pictures.items()
        if each.every is not None
    }
    notes: list[str] = []
    answers: dict[str, list[Learned]] = {}
    for arm in arms:
        missing = arm.side is not None and not (
            material.every.get(arm.side) if arm.only else material.added.get(arm.side)
        )
        if missing:
            notes.append(f"arm {arm.name} is left out: there is no {arm.side} picture for it")
            say(notes[-1])
    missed = {note.split()[1] for note in notes}
    for seed in range(settings.seeds):
        for arm in arms:
            if arm.name in missed:
                continue
            tests = {TEST: test} | (generated if arm.side is None else {})
            path = out / ARM_FOLDER / arm.name / f"seed_{seed}.safetensors"
            learned = _recall(path, tests)
            if learned is None:
                begun = time.perf_counter()
                learned = learn(arm, material, validation, tests, ground.problem, settings.learn, seed, device)
                _remember(path, learned)
                say(f"{arm.label}, seed {seed}: {time.perf_counter() - begun:.0f} s")
            answers.setdefault(arm.name, []).append(learned)
    return {arm.name: answers[arm.name] for arm in arms if arm.name in answers}, notes


def _material(train: Labelled, pictures: Mapping[str, Pictures], ground: Ground) -> Material:
    """Put real and generated images into one set, and say which rows are what."""
    parts, row = [train], len(train)
    real = strata(ground.cases["train"], ground.problem)
    # a picture joins the stratum of the case that it was drawn for
    joined = {case.case_id: name for case, (_, name) in zip(ground.cases["train"], real, strict=True)}
    added: dict[str, list[tuple[int, str]]] = {}
    every: dict[str, list[int]] = {}
    for side, each in pictures.items():
        added[side], every[side] = [], []
        for cell in each.cells:
            if cell.kept:
                parts.append(_labelled(cell.batch, cell.kept, ground))
                cases = [cell.batch.requests[number].case for number in cell.kept]
                added[side] += [(row + number, joined[case.case_id]) for number, case in enumerate(cases)]
                row += len(cell.kept)
        if each.every is not None:
            count = len(each.every.requests)
            parts.append(_labelled(each.every, range(count), ground))
            every[side] = list(range(row, row + count))
            row += count
    images = Labelled(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.known for part in parts]),
    )
    return Material(images, real, added, every)


def _remember(path: Path, learned: Learned) -> None:
    """Write what a classifier said, whole or not at all."""
    tensors = {f"logits/{name}": logits.contiguous() for name, logits in learned.logits.items()}
    facts = {"best_step": str(learned.best_step), "score": json.dumps(learned.score)}
    write_atomic(path, lambda place: save_file({**tensors, "shares": learned.shares}, str(place), facts))


def _recall(path: Path, tests: Mapping[str, Labelled]) -> Learned | None:
    """Read what a classifier said, ``None`` where it was not trained or did not see one of the test sets."""
    if not path.is_file():
        return None
    tensors = load_file(str(path))
    with safe_open(str(path), "pt") as stored:
        facts = stored.metadata()
    logits = {name: tensors.get(f"logits/{name}") for name in tests}
    found = {name: each for name, each in logits.items() if each is not None}
    if len(found) < len(tests):
        return None
    return Learned(found, tensors["shares"], int(facts["best_step"]), float(json.loads(facts["score"])))


def _measure(
    answers: Mapping[str, Sequence[Learned]],
    pictures: Mapping[str, Pictures],
    ground: Ground,
    plans: Sequence[CellPlan],
    settings: AugmentSettings,
) -> Entries:
    """Return the entries of ``augment.json``."""
    filled = sorted({cell.plan.cell.name for each in pictures.values() for cell in each.cells if cell.kept})
    shared = (settings.resamples, settings.seed)
    learn_settings = settings.learn
    size = learn_settings.image_size or ground.dataset.image_size
    mark = {"classifier": f"{learn_settings.backbone}:{size}px:{learn_settings.used_steps}steps"}
    entries: Entries = {}
    if answers:
        cases = ground.cases["test"]
        exam = make_exam(cases, ground.problem, plans, filled)
        values = arm_values(answers, TEST, exam, case_groups(cases), *shared)
        entries |= result_entries(values, exam, *shared, mark)
    reader = next((name for name in ("balanced", "classical", "real") if name in answers), None)
    for side, each in pictures.items():
        if reader is not None and each.every is not None:
            asked = [request.case for request in each.every.requests]
            exam = make_exam(asked, ground.problem, [], [])
            groups = [case.case_id for case in asked]
            values = arm_values({f"trts_{side}": answers[reader]}, f"trts_{side}", exam, groups, *shared)
            entries |= result_entries(values, exam, *shared, {**mark, "arm": reader})
        for cell in each.cells:
            for name, entry in cell.entries.items():
                entries[f"images/{side}/{name}/cell={cell.plan.cell.name}"] = entry
    return {f"augment/{key}": entry for key, entry in entries.items()}


def _arm_facts(learned: Sequence[Learned]) -> dict[str, Any]:
    return {
        "best_step": [each.best_step for each in learned],
        "validation_auroc": [None if each.score != each.score else round(each.score, 4) for each in learned],
        "class_shares": [round(float(share), 4) for share in learned[0].shares],
    }


def _cell_facts(cell: CellImages) -> dict[str, Any]:
    plan = cell.plan
    return {
        "cell": plan.cell.name,
        "real": plan.real,
        "wanted": plan.wanted,
        "drawn": len(cell.batch.requests),
        "verdicts": cell.facts,
        "used": len(cell.kept),
        "not_filled": cell.refused,
    }
