"""What a report is made from: the files of a run, an evaluation or a demo, read into one record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clinalign.core.errors import UserError
from clinalign.core.runs import RunFolder
from clinalign.workflows.report_metrics import Metrics

RUN, EVALUATION, METRICS, DETAILS, PAIRS = "run", "evaluation", "metrics.json", "evaluation.json", "pairs.json"
DEMO = "demo.json"
# What a run records of its data, so that report and card can name them when the data lie elsewhere.
DATASET_FACTS = ("source", "modality", "licence", "citation", "image_size", "counts", "groups", "seed", "manifest_hash")


@dataclass(frozen=True)
class Material:
    """Everything a page may show; what is missing is empty.

    Attributes:
        name: Of the folder that the page is about.
        metrics: Entries of ``metrics.json``; where they are of one set of images, with ``images/`` before those keys
            that ``evaluate`` leaves without a prefix.
        compared: Whether the page is about a generator before and after tuning, or about one set of images.
        curve: Rows of ``metrics.jsonl``.
        config: Content of ``config.yaml``, absolute paths shortened.
        manifest: Content of ``manifest.json``, absolute paths shortened.
        details: Content of ``evaluation.json``, absolute paths shortened.
        dataset: Source, licence, citation and counts of the data.
        pairs: Entries of ``pairs.json``.
        pictures: Folder that their file names start from.
        samples: ``samples/`` of the run, ``None`` where there is none.
        stages: Seconds of each stage of the demo.
        run: The run folder, ``None`` for an evaluation alone.
    """

    name: str
    metrics: Metrics = field(default_factory=dict)
    compared: bool = True
    curve: tuple[Mapping[str, Any], ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    pairs: tuple[Mapping[str, Any], ...] = ()
    pictures: Path = Path()
    samples: Path | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    run: Path | None = None

    @property
    def notes(self) -> list[str]:
        """Remarks of the evaluation."""
        notes = self.details.get("notes", [])
        return [str(note) for note in notes] if isinstance(notes, list) else [str(notes)]


def read(folder: Path, evaluation: Path | None = None) -> tuple[Material, str]:
    """Read whatever ``folder`` is: a run, a demo or an evaluation.

    Args:
        folder: Output folder of ``tune``, ``demo`` or ``evaluate``.
        evaluation: Evaluation of the run, where it does not lie in ``RUN/evaluation``.

    Returns:
        What a page about it may show, and the page's title.

    Raises:
        UserError: When it is none of them, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the output folder of `clinalign tune`, `evaluate` or `demo`")
    demo = (folder / RUN / "config.yaml").is_file()
    if demo or (not (folder / "config.yaml").is_file() and (folder / METRICS).is_file()):
        if evaluation is not None:
            raise UserError(f"--evaluation {evaluation}: {folder} has its own evaluation; give the folder of a run")
        return (read_demo(folder), "Demo report") if demo else (read_evaluation(folder), "Evaluation report")
    return read_run(folder, evaluation), "Tuning report"


def read_run(run: Path, evaluation: Path | None = None) -> Material:
    """Read a run folder, with the evaluation that may lie in ``RUN/evaluation``.

    Args:
        run: Output folder of ``tune``.
        evaluation: Its evaluation, where it lies elsewhere.

    Raises:
        UserError: When it is no run, nothing was trained yet, or ``evaluation`` is none of this run.
    """
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise UserError(f"{run} is not a run: it has no config.yaml; give the output folder of `clinalign tune`")
    curve = folder.read_metrics()
    if not any(row["epoch"] for row in curve):
        raise UserError(f"{run} has no epoch yet: metrics.jsonl holds none; wait for the first epoch")
    if evaluation is not None:
        _check_evaluation(evaluation)
    place = evaluation or run / EVALUATION
    return _material(run, run, place, place / METRICS)


def _check_evaluation(evaluation: Path) -> None:
    """Refuse what does not compare a generator before and after tuning."""
    if not (evaluation / METRICS).is_file():
        raise UserError(f"--evaluation {evaluation} has no {METRICS}: give the output folder of `clinalign evaluate`")
    if not any(key.startswith("tuned/") for key in _entries(evaluation / METRICS)):
        raise UserError(
            f"--evaluation {evaluation} measures one set of images: evaluate with --base to compare before and after"
        )


def read_evaluation(out: Path) -> Material:
    """Read the output folder of ``evaluate``: one set of images, nothing to compare with.

    Raises:
        UserError: When it is no evaluation.
    """
    if not (out / METRICS).is_file():
        raise UserError(
            f"{out} is not an evaluation: it has no {METRICS}; give the output folder of `clinalign evaluate`"
        )
    return _material(out, None, out, out / METRICS)


def read_demo(out: Path) -> Material:
    """Read the output folder of ``demo``: a run, and its evaluation before and after.

    Raises:
        UserError: When it is no demo.
    """
    if not (out / RUN / "config.yaml").is_file() or not (out / METRICS).is_file():
        raise UserError(
            f"{out} is not a finished demo: it needs run/config.yaml and {METRICS}; run `clinalign demo` again"
        )
    return _material(out, out / RUN, out / EVALUATION, out / METRICS)


def _material(name: Path, run: Path | None, evaluation: Path, metrics: Path) -> Material:
    entries = _entries(metrics)
    compared = not entries or any(key.startswith(("base/", "tuned/")) for key in entries)
    if not compared:
        entries = {key if key.startswith("real/") else f"images/{key}": entry for key, entry in entries.items()}
    folder = None if run is None else RunFolder(run)
    config = _yaml(folder.config) if folder else {}
    manifest = _table(folder.manifest) if folder else {}
    details = _table(evaluation / DETAILS)
    return Material(
        name=name.resolve().name,
        metrics=entries,
        compared=compared and (bool(entries) or run is not None),
        curve=tuple(folder.read_metrics()) if folder else (),
        config=short_paths(config),
        manifest=short_paths(manifest),
        details=short_paths(details),
        dataset=_dataset(config, manifest, details),
        pairs=_pairs(evaluation / PAIRS),
        pictures=evaluation,
        samples=folder.samples if folder and folder.samples.is_dir() else None,
        stages=_table(name / DEMO).get("seconds", {}) if name != run else {},
        run=run,
    )


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, ``None`` where there is none.

    Raises:
        UserError: When it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable as JSON: {error}; make it again with `clinalign evaluate`") from error


def _table(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} is not a table of keys: make it again with the command that wrote it")
    return content or {}


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    entries = _table(path)
    for key, entry in entries.items():
        if not isinstance(entry, dict):
            raise UserError(f"{path}: '{key}' is not an entry with value, ci95 and n: evaluate again")
    return entries


def _pairs(path: Path) -> tuple[dict[str, Any], ...]:
    pairs = read_json(path)
    if pairs is None:
        return ()
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) and "text" in pair for pair in pairs):
        raise UserError(f"{path} is not a list of cases with a text: evaluate again")
    return tuple(pairs)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config {path} is not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"config {path} is not a table of keys: give the output folder of `clinalign tune`")
    return tree


def _dataset(config: Mapping[str, Any], manifest: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about the data: what run and evaluation state, and the counts where the dataset still lies."""
    recorded, stated = manifest.get("dataset"), details.get("dataset")
    section = config.get("data")
    place = section.get("path") if isinstance(section, dict) else None
    info = _table(Path(place) / "dataset.json") if isinstance(place, str) else {}
    known = (dict(recorded) if isinstance(recorded, dict) else {}) | info
    facts = {key: known[key] for key in DATASET_FACTS if key in known}
    return facts | (dict(stated) if isinstance(stated, dict) else {})


def short_paths(tree: Any) -> Any:
    """Shorten absolute paths to their last two parts: a page that is sent on need not tell whose machine it was."""
    if isinstance(tree, Mapping):
        return {key: short_paths(branch) for key, branch in tree.items()}
    if isinstance(tree, list):
        return [short_paths(branch) for branch in tree]
    if isinstance(tree, str) and Path(tree).is_absolute() and len(Path(tree).parts) > 3:
        return "/".join(("…", *Path(tree).parts[-2:]))
    return tree
