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
from clinalign.generation.adapters import lora_parameters
from clinalign.generation.generator import Generator
from clinalign.workflows.drawing import Sampler, choose_sampler, run_config
from clinalign.workflows.evaluation_cases import cases_of_folder
from clinalign.workflows.evaluation_changes import change_entries
from clinalign.workflows.evaluation_drawn import Drawn, measure_generator
from clinalign.workflows.evaluation_gallery import write_gallery
from clinalign.workflows.evaluation_measure import generated_entries, measure, real_entries
from clinalign.workflows.evaluation_setup import Bench, EvaluateSettings, check_settings, need_evaluator, open_bench

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
            bench, found, sampler = _read_images(Path(str(images)), data, evaluator, settings, device)
        else:
            config = None if isinstance(model, Generator) else run_config(model)
            sampler = choose_sampler(config, settings.steps, settings.guidance, settings.eta)
            generator = open_generator(model, device)
            bench = open_bench(data, evaluator, settings, config, device, generator.image_size)
            found = measure_generator(generator, bench, sampler, settings, folder / IMAGES)
        entries = generated_entries(found.measured, bench.real, bench.instruments)
        entries |= with_prefix("real", real_entries(bench.real, bench.instruments))
        facts = {"model": found.facts, **_facts(bench, settings, sampler, start)}
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
    with nullcontext() if out is None else folder_in_progress(Path(out)) as folder:
        places = {name: folder / IMAGES / name if folder else None for name in ("base", "tuned")}
        with before.anchor():
            old = measure_generator(before, bench, sampler, settings, places["base"], "base")
        new = measure_generator(after, bench, sampler, settings, places["tuned"], "tuned")
        entries: Entries = {}
        for prefix, found in (("base", old), ("tuned", new)):
            entries |= with_prefix(prefix, generated_entries(found.measured, bench.real, bench.instruments))
        entries |= with_prefix("real", real_entries(bench.real, bench.instruments))
        changes, notes = change_entries(old.measured, new.measured, bench.real, bench.instruments)
        entries |= changes
        if folder is not None:
            facts = _facts(replace(bench, notes=[*bench.notes, *notes]), settings, sampler, start)
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


def _read_images(
    folder: Path, data: str | Path, evaluator: str | Path, settings: EvaluateSettings, device: torch.device
) -> tuple[Bench, Drawn, None]:
    """Measure images of a folder against the real images of the cases that they are meant for."""
    start = time.perf_counter()
    matched: list[tuple[Path, Case]] = []

    def choose(split: Sequence[Case]) -> list[Case]:
        matched.extend(zip(*cases_of_folder(folder, split), strict=True))
        return list({case.case_id: case for _, case in matched}.values())

    bench = open_bench(data, evaluator, settings, None, device, choose=choose)
    pictures = [replace(case, image=path) for path, case in matched]
    parts = (bench.dataset.images(pictures[row : row + 64]) for row in range(0, len(pictures), 64))
    measured = measure(parts, pictures, bench.instruments, text_ids(pictures))
    facts = {
        "identity": f"images:{folder.name}",
        "images": len(pictures),
        "seconds": round(time.perf_counter() - start, 2),
    }
    return bench, Drawn(measured, facts), None


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
