"""Evaluation: one generator, a folder of images, or a generator before and after tuning."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from clinalign import __version__
from clinalign.core.config import TuneConfig
from clinalign.core.errors import UserError
from clinalign.core.files import folder_in_progress, write_json
from clinalign.core.precision import pick_device
from clinalign.core.types import Case
from clinalign.evaluation.diversity import text_ids
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.suite import compare_identity
from clinalign.generation.adapters import lora_parameters
from clinalign.generation.generator import Generator
from clinalign.workflows.drawing import Sampler, choose_sampler, run_config
from clinalign.workflows.evaluation_cases import cases_of_folder
from clinalign.workflows.evaluation_changes import change_entries
from clinalign.workflows.evaluation_drawn import Drawn, measure_generator
from clinalign.workflows.evaluation_gallery import write_gallery
from clinalign.workflows.evaluation_measure import generated_entries, measure, real_entries
from clinalign.workflows.evaluation_setup import Bench, EvaluateSettings, check_settings, need_evaluator, open_bench
from clinalign.workflows.evaluation_subgroups import Minimum, subgroup_changes, subgroup_entries, subgroup_facts
from clinalign.workflows.privacy import PrivacyBench, open_privacy
from clinalign.workflows.privacy_results import Inspected, inspect, privacy_results, redrawing

METRICS, EVALUATION, IMAGES = "metrics.json", "evaluation.json", "images"


def evaluate(
    data: str | Path,
    out: str | Path,
    evaluator: str | Path | None = None,
    *,
    model: str | Path | Generator | None = None,
    images: str | Path | None = None,
    settings: EvaluateSettings | None = None,
) -> Entries:
    """Measure a generator, or images that lie in a folder, against real images of the same cases.

    Writes ``OUT/metrics.json`` (flat: ``fidelity/...``, ``alignment/...``, ``diversity/...``, and the same of the real
    images prefixed ``real/``: the ceiling), ``OUT/evaluation.json`` (with what, from what, notes) and ``OUT/images``.

    Args:
        data: Prepared dataset.
        out: Output folder: new, or an earlier evaluation, which is replaced.
        evaluator: Folder of a classifier that never rewarded.
        model: Pipeline folder, run folder, hub id, or an open generator.
        images: Folder with ``metadata.csv`` (``file_name`` and ``case_id`` or ``text``), in place of ``model``.
        settings: See :class:`EvaluateSettings`.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: For whatever is missing or does not fit.
    """
    start = time.perf_counter()
    settings, out = settings or EvaluateSettings(), Path(out)
    if (model is None) == (images is None):
        raise UserError("evaluate needs either --model (a pipeline or run folder) or --images (a folder), one of them")
    evaluator = need_evaluator(evaluator)
    check_settings(settings)
    check_output(out)
    if images is not None and Path(images).resolve().is_relative_to(out.resolve()):
        raise UserError(f"--out {out} holds the images that are evaluated and would be replaced: choose another --out")
    device = pick_device(settings.device)
    with folder_in_progress(out) as folder:
        if model is None:
            bench, found, sampler, privacy, inspected = _read_images(
                Path(str(images)), data, evaluator, settings, device
            )
        else:
            config = None if isinstance(model, Generator) else run_config(model)
            sampler = choose_sampler(config, settings.steps, settings.guidance, settings.eta)
            generator = open_generator(model, device)
            bench = open_bench(data, evaluator, settings, config, device, generator.image_size)
            privacy, bench = _with_privacy(bench, settings, device, config, (model,))
            found = measure_generator(generator, bench, sampler, settings, folder / IMAGES)
            inspected = _inspect(privacy, found, generator, sampler, settings)
        least = _minimum(settings)
        entries = _generated(found, bench, least)
        entries |= with_prefix("real", _real(bench, least))
        if privacy is not None and inspected is not None:
            entries |= privacy_results(privacy, {"": inspected}, bench.cases, folder, IMAGES, settings.real_images)
        facts = {"model": found.facts, **_facts(bench, settings, sampler, start)}
        facts["subgroups"] = subgroup_facts(found.measured, bench.real, bench.instruments, least)
        write_json(folder / METRICS, entries)
        write_json(folder / EVALUATION, facts)
    return _finish(out, entries, settings)


def evaluate_pair(
    base: str | Path | Generator | None,
    tuned: str | Path | Generator,
    data: str | Path,
    evaluator: str | Path | None = None,
    out: str | Path | None = None,
    settings: EvaluateSettings | None = None,
) -> Entries:
    """Measure a generator before and after tuning, and real images, on the same cases and seeds.

    Args:
        base: The generator before tuning: a folder, whose adapter is left off, or an open generator; ``None``, or
            ``tuned`` itself, for the tuned one with its adapter off, or the model that its run started from.
        tuned: Run folder, pipeline folder, or an open generator.
        data: Prepared dataset.
        evaluator: Folder of a classifier that never rewarded.
        out: Where to write what :func:`evaluate` writes (images under ``images/base`` and ``images/tuned``); ``None``
            writes nothing.
        settings: See :class:`EvaluateSettings`; give ``rewards`` when ``tuned`` is not a run folder.

    Returns:
        Entries prefixed ``base/``, ``tuned/`` and ``real/``, and those of
        :func:`~clinalign.workflows.evaluation_changes.change_entries`.

    Raises:
        UserError: See :func:`evaluate`.
    """
    start = time.perf_counter()
    settings = settings or EvaluateSettings()
    evaluator = need_evaluator(evaluator)
    check_settings(settings)
    if out is not None:
        check_output(Path(out))
    device = pick_device(settings.device)
    config = None if isinstance(tuned, Generator) else run_config(tuned)
    sampler = choose_sampler(config, settings.steps, settings.guidance, settings.eta)
    after = open_generator(tuned, device)
    before = open_anchor(base, tuned, after, config, device)
    if before.image_size != after.image_size:
        raise UserError(f"base draws {before.image_size} px and the tuned model {after.image_size} px: not one pair")
    bench = open_bench(data, evaluator, settings, config, device, after.image_size)
    privacy, bench = _with_privacy(bench, settings, device, config, (base, tuned))
    with nullcontext() if out is None else folder_in_progress(Path(out)) as folder:
        places = {name: folder / IMAGES / name if folder else None for name in ("base", "tuned")}
        with before.anchor():
            old = measure_generator(before, bench, sampler, settings, places["base"], "base")
            inspected = {"base": _inspect(privacy, old, before, sampler, settings)}
        new = measure_generator(after, bench, sampler, settings, places["tuned"], "tuned")
        inspected["tuned"] = _inspect(privacy, new, after, sampler, settings)
        entries: Entries = {}
        least = _minimum(settings)
        sides = {"base": _generated(old, bench, least), "tuned": _generated(new, bench, least)}
        sides["real"] = _real(bench, least)
        differing = compare_identity(sides["base"], sides["tuned"])
        for prefix, family in sides.items():
            entries |= with_prefix(prefix, family)
        changes, notes = change_entries(old.measured, new.measured, bench.real, bench.instruments)
        entries |= changes
        entries |= subgroup_changes(old.measured, new.measured, bench.real, bench.instruments, least)
        notes = [*notes, *differing]
        if privacy is not None:
            looked = {side: found for side, found in inspected.items() if found is not None}
            entries |= privacy_results(privacy, looked, bench.cases, folder, IMAGES, settings.real_images)
        if folder is not None:
            facts = _facts(replace(bench, notes=[*bench.notes, *notes]), settings, sampler, start)
            facts["subgroups"] = subgroup_facts(new.measured, bench.real, bench.instruments, least)
            write_json(folder / METRICS, entries)
            write_json(folder / EVALUATION, {"base": old.facts, "tuned": new.facts, **facts})
            kept = settings.keep_images
            write_gallery(folder, IMAGES, bench, old.measured, new.measured, kept, settings.real_images)
    return entries if out is None else _finish(Path(out), entries, settings)


def check_output(out: Path) -> None:
    """Refuse to write over anything but an earlier evaluation.

    Raises:
        UserError: When ``out`` is a file or holds something else.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / EVALUATION).is_file()):
        raise UserError(f"{out} exists and is not an evaluation: choose another --out")


def open_generator(model: str | Path | Generator, device: torch.device, adapter: bool = True) -> Generator:
    """Return the generator, loaded where a folder or hub id is given."""
    return model if isinstance(model, Generator) else Generator.load(model, device, adapter)


def open_anchor(
    base: str | Path | Generator | None,
    tuned: str | Path | Generator,
    after: Generator,
    config: TuneConfig | None,
    device: torch.device,
) -> Generator:
    """Return the generator from before tuning; where it is ``after`` itself, its adapter must be switched off.

    Raises:
        UserError: When it is not known.
    """
    if base is not None and base != tuned and (isinstance(base, Generator) or Path(base) != Path(str(tuned))):
        return open_generator(base, device, adapter=False)
    if lora_parameters(after.unet) or after.ace is not None:
        return after
    if config is None:
        raise UserError("the tuned model has no adapter that could be switched off: give the base model too")
    return open_generator(config.generator.model, device, adapter=False)


def _with_privacy(
    bench: Bench,
    settings: EvaluateSettings,
    device: torch.device,
    config: TuneConfig | None,
    models: Sequence[str | Path | Generator | None],
) -> tuple[PrivacyBench | None, Bench]:
    """Open what privacy needs, where it is wanted, and let the bench take its features and notes."""
    if not settings.privacy:
        return None, bench
    privacy = open_privacy(bench, settings, device, config, models)
    return privacy, privacy.taken(bench)


def _inspect(
    privacy: PrivacyBench | None, found: Drawn, generator: Generator, sampler: Sampler, settings: EvaluateSettings
) -> Inspected | None:
    """Look for memorised images among those that a generator drew, where it is wanted."""
    if privacy is None:
        return None
    redraw = redrawing(generator, found.measured, settings.images_per_case, sampler, settings)
    return inspect(privacy, found.measured, redraw, found.facts["identity"], generator, settings)


def _read_images(
    folder: Path, data: str | Path, evaluator: str | Path, settings: EvaluateSettings, device: torch.device
) -> tuple[Bench, Drawn, None, PrivacyBench | None, Inspected | None]:
    """Measure images of a folder against the real images of the cases that they are meant for."""
    start = time.perf_counter()
    matched: list[tuple[Path, Case]] = []

    def choose(split: Sequence[Case]) -> list[Case]:
        matched.extend(zip(*cases_of_folder(folder, split), strict=True))
        return list({case.case_id: case for _, case in matched}.values())

    bench = open_bench(data, evaluator, settings, None, device, choose=choose)
    privacy, bench = _with_privacy(bench, settings, device, None, ())
    pictures = [replace(case, image=path) for path, case in matched]
    parts = (bench.dataset.images(pictures[row : row + 64]) for row in range(0, len(pictures), 64))
    measured = measure(parts, pictures, bench.instruments, text_ids(pictures))
    facts = {
        "identity": f"images:{folder.name}",
        "images": len(pictures),
        "seconds": round(time.perf_counter() - start, 2),
    }
    inspected = None
    if privacy is not None:

        def again(rows: Sequence[int]) -> torch.Tensor:
            return bench.dataset.images([pictures[row] for row in rows])

        inspected = inspect(privacy, measured, again, str(facts["identity"]), None, settings)
    return bench, Drawn(measured, facts), None, privacy, inspected


def _minimum(settings: EvaluateSettings) -> Minimum:
    return Minimum(settings.subgroup_minimum, settings.subgroup_minimum_fidelity)


def _generated(found: Drawn, bench: Bench, least: Minimum) -> Entries:
    """Everything that is measured of one set of generated images, as a whole and by subgroup."""
    whole = generated_entries(found.measured, bench.real, bench.instruments)
    return whole | subgroup_entries(found.measured, bench.real, bench.instruments, least)


def _real(bench: Bench, least: Minimum) -> Entries:
    """The same of the real images: the ceiling."""
    whole = real_entries(bench.real, bench.instruments)
    return whole | subgroup_entries(bench.real, bench.real, bench.instruments, least, fidelity=False)


def with_prefix(prefix: str, entries: Entries) -> Entries:
    """Put ``prefix/`` before every key."""
    return {f"{prefix}/{key}": entry for key, entry in entries.items()}


def _facts(bench: Bench, settings: EvaluateSettings, sampler: Sampler | None, start: float) -> dict[str, Any]:
    """The part of ``evaluation.json`` that does not depend on how many generators were measured."""
    return {
        **bench.facts(settings),
        "sampler": None if sampler is None else {"name": "ddim", **asdict(sampler)},
        "seconds": round(time.perf_counter() - start, 2),
        "clinalign": __version__,
    }


def _finish(out: Path, entries: Entries, settings: EvaluateSettings) -> Entries:
    """Build the report page where it is wanted."""
    if settings.report:
        from clinalign.workflows.report import report_evaluation

        report_evaluation(out, settings.real_images)
    return entries
