"""The report: one self-contained HTML page about a run, an evaluation or a demo, for a reader who was not there.

The page fetches nothing, runs nothing, fits a phone and prints. It says what improved and what got worse in the same
size of letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.core.errors import UserError
from clinalign.core.files import write_text
from clinalign.workflows.report_evidence import Goals
from clinalign.workflows.report_findings import describe, summarise
from clinalign.workflows.report_pictures import build_gallery
from clinalign.workflows.report_plots import attribute_plot, stage_seconds, training_plots
from clinalign.workflows.report_privacy import privacy_section
from clinalign.workflows.report_sources import METRICS, RUN, Material, read_demo, read_evaluation, read_run
from clinalign.workflows.report_tables import build_tables, flatten
from clinalign.workflows.report_verdicts import verdicts

PAGE = Path("report") / "index.html"
# The gap that a tuning is expected to close: photographs are harder than drawings, for generator and evaluator alike.
PHANTOM_GOALS, PHOTOGRAPH_GOALS = Goals(gap_closed=0.6), Goals(gap_closed=0.4)


def report(path: Path | str, real_images: bool = True) -> Path:
    """Write the report of whatever ``path`` is: a run, a demo or an evaluation.

    Args:
        path: Output folder of ``tune``, ``demo`` or ``evaluate``.
        real_images: Show real examples too; off for data whose licence forbids to pass them on.

    Returns:
        The page, ``PATH/report/index.html``; an earlier one is replaced.

    Raises:
        UserError: When it is none of them, or a file in it cannot be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the output folder of `clinalign tune`, `evaluate` or `demo`")
    if (folder / RUN / "config.yaml").is_file():
        return report_demo(folder, real_images)
    if not (folder / "config.yaml").is_file() and (folder / METRICS).is_file():
        return report_evaluation(folder, real_images)
    return report_run(folder, real_images)


def report_run(run: Path | str, real_images: bool = True) -> Path:
    """Write the report of a run folder, with its evaluation where ``RUN/evaluation`` holds one.

    Args:
        run: Output folder of ``tune``.
        real_images: See :func:`report`.

    Returns:
        ``RUN/report/index.html``.

    Raises:
        UserError: When ``run`` is no run, has no epoch, or a file in it cannot be read.
    """
    return _write(Path(run), read_run(Path(run)), "Tuning report", real_images)


def report_evaluation(out: Path | str, real_images: bool = True) -> Path:
    """Write the report of an ``evaluate`` output: one set of images.

    Args:
        out: Folder with ``metrics.json`` (and ``evaluation.json``, ``images/``).
        real_images: See :func:`report`.

    Returns:
        ``OUT/report/index.html``.

    Raises:
        UserError: When ``out`` is no evaluation, or a file in it cannot be read.
    """
    return _write(Path(out), read_evaluation(Path(out)), "Evaluation report", real_images)


def report_demo(out: Path | str, real_images: bool = True) -> Path:
    """Write the report of a ``demo`` output: ``OUT/run``, ``OUT/metrics.json``, ``OUT/evaluation``.

    Args:
        out: Folder of the demo.
        real_images: See :func:`report`.

    Returns:
        ``OUT/report/index.html``.

    Raises:
        UserError: When ``out`` is no finished demo, or a file in it cannot be read.
    """
    return _write(Path(out), read_demo(Path(out)), "Demo report", real_images)


def _write(folder: Path, material: Material, title: str, real_images: bool) -> Path:
    """Render the page and put it in place at once."""
    page = folder / PAGE
    write_text(page, render(material, title, real_images))
    return page


def render(material: Material, title: str, real_images: bool = True) -> str:
    """Return the page as HTML.

    Args:
        material: What to show.
        title: Heading.
        real_images: See :func:`report`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clinalign.workflows"),
        autoescape=True,  # prompts are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tight"] = _tight
    return environment.get_template("report.html.j2").render(_content(material, title, real_images))


def _content(material: Material, title: str, real_images: bool) -> dict[str, Any]:
    """Return what the template shows."""
    import yaml

    phantom = str(material.dataset.get("source", "")).startswith("phantom")
    goals = PHANTOM_GOALS if phantom else PHOTOGRAPH_GOALS
    told: dict[str, Any] = {"curve": material.curve, "notes": material.notes, "goals": goals}
    tables = build_tables(material.metrics, material.compared)
    evaluated = bool(material.metrics)
    details = {key: entry for key, entry in material.details.items() if key not in ("notes", "dataset")}
    return {
        "title": title,
        "name": material.name,
        "compared": material.compared,
        "evaluated": evaluated,
        "phantom": phantom,
        "findings": summarise(material.metrics, **told) if material.compared
        else describe(material.metrics, notes=material.notes),
        "verdicts": verdicts(material.metrics, **told) if material.compared and evaluated else [],
        "gallery": build_gallery(material, real_images),
        "privacy": privacy_section(material, real_images),
        "plots": training_plots(material.curve),
        "attribute_plot": attribute_plot(material.metrics, material.compared),
        "cost": _cost(material),
        "stages": list(material.stages.items()),
        "tables": tables,
        "made": [
            ("Data", list(flatten(material.dataset))),
            ("Models, seeds and versions", list(flatten(material.manifest))),
            ("Evaluation", list(flatten(details))),
        ],
        "config": yaml.safe_dump(dict(material.config), sort_keys=False, allow_unicode=True) if material.config else "",
        "licence": str(material.dataset.get("licence", "")),
        "version": __version__,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }  # fmt: skip


def _cost(material: Material) -> dict[str, Any]:
    """Return network evaluations and seconds of the run; empty without a run."""
    if not material.curve:
        return {}
    last: Mapping[str, Any] = material.curve[-1]
    stages = stage_seconds(material.curve)
    total = sum(seconds for _, seconds in stages)
    return {
        "epochs": last["epoch"],
        "evaluations": last.get("network_evaluations"),
        "seconds": total,
        "stages": [(name, seconds, seconds / total if total else 0.0) for name, seconds in stages],
    }


def _tight(text: str) -> str:
    """Keep number and sign on one line."""
    return text.replace(" %", "\u00a0%")
