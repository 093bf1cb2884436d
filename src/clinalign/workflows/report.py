"""The report: one self-contained HTML page about a run, an evaluation or a demo, for a reader who was not there.

The page fetches nothing, runs nothing, fits a phone and prints. It says what improved and what got worse in the same
size of letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.core.files import write_text
from clinalign.workflows.report_evidence import Goals
from clinalign.workflows.report_findings import Finding, describe, summarise
from clinalign.workflows.report_forest import SUBGROUPS, attribute_forest, left_out, subgroup_forests
from clinalign.workflows.report_guard import guard_record
from clinalign.workflows.report_pictures import EACH, build_gallery
from clinalign.workflows.report_plots import stage_seconds, training_plots
from clinalign.workflows.report_privacy import privacy_section
from clinalign.workflows.report_seeds import other_instruments, read_also, seed_finding, seed_lines
from clinalign.workflows.report_sources import Material, read, read_demo, read_evaluation, read_run
from clinalign.workflows.report_summary import headline, lines
from clinalign.workflows.report_tables import build_tables, flatten
from clinalign.workflows.report_verdicts import Verdict, verdicts

PAGE = Path("report") / "index.html"
# The gap that a tuning is expected to close: photographs are harder than drawings, for generator and evaluator alike.
PHANTOM_GOALS, PHOTOGRAPH_GOALS = Goals(gap_closed=0.6), Goals(gap_closed=0.4)


def report(
    path: Path | str,
    real_images: bool = True,
    also: Sequence[Path | str] = (),
    evaluation: Path | str | None = None,
) -> Path:
    """Write the report of whatever ``path`` is: a run, a demo or an evaluation.

    Args:
        path: Output folder of ``tune``, ``demo`` or ``evaluate``.
        real_images: Show real examples too; off for data whose licence forbids to pass them on.
        also: Runs of the same config with other seeds: curves and changes are then told over all of them.
        evaluation: Evaluation of the run, where it does not lie in ``PATH/evaluation``.

    Returns:
        The page, ``PATH/report/index.html``; an earlier one is replaced.

    Raises:
        UserError: When it is none of them, a file in it cannot be read, or ``also`` holds another experiment.
    """
    return export_report(path, real_images, also, evaluation)["report"]


def export_report(
    path: Path | str,
    real_images: bool = True,
    also: Sequence[Path | str] = (),
    evaluation: Path | str | None = None,
    csv: Path | str | None = None,
    card: bool = False,
) -> dict[str, Path]:
    """Write the report and, where wanted, its numbers as a table and the card of the tuned model.

    Args:
        path: See :func:`report`.
        real_images: See :func:`report`.
        also: See :func:`report`; their numbers stand in the table too.
        evaluation: See :func:`report`.
        csv: File for the numbers, see :func:`~clinalign.workflows.report_csv.write_csv`.
        card: Write ``RUN/model/README.md``, see :func:`~clinalign.workflows.model_card.write_card`.

    Returns:
        What was written: ``report`` and, where wanted, ``csv`` and ``card``.

    Raises:
        UserError: As :func:`report`; when there is nothing to export; when a card was changed by hand.
    """
    from clinalign.workflows.model_card import write_card
    from clinalign.workflows.report_csv import write_csv

    folder = Path(path)
    material, title = read(folder, None if evaluation is None else Path(evaluation))
    others = read_also(material, [Path(other) for other in also])
    files = {}
    if csv is not None:
        write_csv((material, *others), Path(csv))
        files["csv"] = Path(csv)
    if card:
        files["card"] = write_card(material, *findings_and_verdicts(material))
    return {"report": _write(folder, material, title, real_images, others), **files}


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


def _write(folder: Path, material: Material, title: str, real_images: bool, also: Sequence[Material] = ()) -> Path:
    """Render the page and put it in place at once."""
    page = folder / PAGE
    write_text(page, render(material, title, real_images, also))
    return page


def render(material: Material, title: str, real_images: bool = True, also: Sequence[Material] = ()) -> str:
    """Return the page as HTML.

    Args:
        material: What to show.
        title: Heading.
        real_images: See :func:`report`.
        also: Runs of the same config with other seeds.
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
    return environment.get_template("report.html.j2").render(_content(material, title, real_images, also))


def _content(material: Material, title: str, real_images: bool, also: Sequence[Material]) -> dict[str, Any]:
    """Return what the template shows."""
    import yaml

    tables = build_tables(material.metrics, material.compared)
    evaluated = bool(material.metrics)
    details = {key: entry for key, entry in material.details.items() if key not in ("notes", "dataset", SUBGROUPS)}
    findings, judged = findings_and_verdicts(material)
    runs = (material, *also)
    over_seeds = seed_lines(runs) if also else []
    sure = seed_finding(material, runs, over_seeds)
    return {
        "title": title,
        "name": material.name,
        "compared": material.compared,
        "evaluated": evaluated,
        "phantom": is_phantom(material),
        "headline": headline(material.metrics, judged),
        "findings": [*findings, *([sure] if sure else [])],
        "lines": lines(material.metrics),
        "verdicts": judged,
        "gallery": build_gallery(material, real_images),
        "each": EACH,
        "attributes": attribute_forest(material.metrics),
        "subgroups": subgroup_forests(material.metrics),
        "subgroups_left_out": left_out(material.details),
        "privacy": privacy_section(material, real_images),
        "plots": training_plots(material.curve, [other.curve for other in also]),
        "runs": [run.name for run in runs],
        "seed_lines": over_seeds,
        "apart": other_instruments(runs),
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


def is_phantom(material: Material) -> bool:
    """Tell whether the data were drawn by a program."""
    return str(material.dataset.get("source", "")).startswith("phantom")


def findings_and_verdicts(material: Material) -> tuple[list[Finding], list[Verdict]]:
    """Return what the page says in sentences, and its verdicts; none where nothing was compared."""
    if not material.compared:
        return describe(material.metrics, notes=material.notes), []
    goals = PHANTOM_GOALS if is_phantom(material) else PHOTOGRAPH_GOALS
    guard = guard_record(material.curve, material.config)
    told: dict[str, Any] = {"curve": material.curve, "notes": material.notes, "goals": goals, "guard": guard}
    judged = verdicts(material.metrics, **told) if material.metrics else []
    missed = [f"{verdict.criterion} ({verdict.detail})" for verdict in judged if verdict.state == "missed"]
    short = [Finding("bad", f"Goals missed: {'; '.join(missed)}.")] if missed else []
    return [*summarise(material.metrics, **told), *short], judged


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
