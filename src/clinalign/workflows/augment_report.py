"""The report of an augmentation: one self-contained page with the arms, the cells, the filter and the pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import torch
from markupsafe import Markup

from clinalign import __version__
from clinalign.augmentation.arms import ARMS, COMPARISONS
from clinalign.augmentation.cells import members_of
from clinalign.core.files import write_text
from clinalign.core.images import resize, to_pil
from clinalign.workflows.augment_filter import CellImages
from clinalign.workflows.augment_plan import SMALL, Ground
from clinalign.workflows.augment_summary import HEADLINES, not_filled, written_points
from clinalign.workflows.report_metrics import bracket, interval, number, value
from clinalign.workflows.report_plots import INK, LINE, REAL, TUNED, Plot, _draw
from clinalign.workflows.report_tables import flatten

PAGE = Path("report") / "index.html"
SHOWN = 8  # pictures of each kind in a cell's row
THUMB = 72  # pixels
COLUMNS: Mapping[str, str] = {
    "balanced_accuracy": "Balanced accuracy",
    "even_balanced_accuracy": "… at an even prior",
    "auroc": "AUROC",
    "f1": "F1",
    "accuracy": "Accuracy",
    "ece": "ECE",
    "brier": "Brier",
}
CHANGES = (
    ("Balanced accuracy", "balanced_accuracy"),
    ("… at an even prior", "even_balanced_accuracy"),
    ("AUROC", "auroc"),
    ("AUROC, filled cells", "auroc/cell=filled"),
    ("Even balanced accuracy, filled cells", "even_balanced_accuracy/cell=filled"),
    ("AUROC, rare cells", "auroc/cell=rare"),
)


class HasCells(Protocol):
    """What the page needs of one generator's pictures."""

    @property
    def cells(self) -> list[CellImages]:
        """Its cells, judged."""
        ...


@dataclass(frozen=True)
class Figure:
    """One number of a table.

    Attributes:
        text: The value.
        around: Its interval.
        trend: ``better``, ``worse`` or empty: a difference beyond chance.
    """

    text: str = ""
    around: str = ""
    trend: str = ""


def write_report(
    out: Path,
    entries: Mapping[str, Mapping[str, Any]],
    details: Mapping[str, Any],
    ground: Ground,
    pictures: Mapping[str, HasCells],
    real_images: bool = True,
) -> Path:
    """Write ``OUT/report/index.html``.

    Args:
        out: Folder of the augmentation.
        entries: Content of ``augment.json``.
        details: Content of ``details.json``.
        ground: The real images.
        pictures: Generated ones, by generator.
        real_images: Show real images too; off for data that must not be passed on.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("clinalign.workflows"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    facts = details["dataset_facts"]
    content = {
        "name": out.resolve().name,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "version": __version__,
        "phantom": str(facts.get("source", "")).startswith("phantom"),
        "licence": facts.get("licence") or "",
        "findings": details["findings"],
        "columns": list(COLUMNS.values()),
        "arms": arm_rows(entries, details),
        "seeds": details["seeds"],
        "changes": [heading for heading, _ in CHANGES],
        "comparisons": comparison_rows(entries),
        "plots": forest_plots(entries),
        "cells": cell_rows(entries, details),
        "sides": list(details["cells"]),
        "rare_below": details["plan"]["rare_below"],
        "skill": skill_rows(details),
        "swapped": swapped_rows(entries),
        "gallery": gallery_rows(ground, pictures, real_images),
        "real_images": real_images,
        "not_filled": not_filled(details),
        "small": SMALL,
        "made": list(flatten({key: each for key, each in details.items() if key in _MADE})),
    }
    page = out / PAGE
    write_text(page, environment.get_template("augment.html.j2").render(content))
    return page


_MADE = ("model", "base", "judge", "dataset", "dataset_facts", "rules", "learn", "sampler", "seed", "pass_rate",
         "every_class", "near_duplicate_distance", "clinalign", "seconds")  # fmt: skip


def arm_rows(
    entries: Mapping[str, Mapping[str, Any]], details: Mapping[str, Any]
) -> list[tuple[str, str, list[Figure]]]:
    """Return name, label and figures of every arm."""
    return [
        (name, ARMS[name].label, [figure(entries, f"augment/{name}/{metric}") for metric in COLUMNS])
        for name in details["arms"]
    ]


def figure(entries: Mapping[str, Mapping[str, Any]], key: str) -> Figure:
    """Return a value with its interval."""
    amount = value(entries, key)
    return Figure() if amount is None else Figure(number(amount), bracket(interval(entries, key)).strip())


def comparison_rows(entries: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[Figure]]]:
    """Return label and differences, in points, of every comparison that was made."""
    rows = []
    for first, second in COMPARISONS:
        figures = [_points(entries, f"augment/change/{first}-{second}/{metric}") for _, metric in CHANGES]
        if any(each.text for each in figures):
            rows.append((f"{ARMS[first].label} − {ARMS[second].label}", figures))
    return rows


def _points(entries: Mapping[str, Mapping[str, Any]], key: str) -> Figure:
    gain, ends = value(entries, key), interval(entries, key)
    if gain is None or ends is None:
        return Figure()
    text, _, around = written_points(gain, ends).partition(" points ")
    return Figure(text, around, "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "")


def forest_plots(entries: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """Draw the change of every cell by the two strictest comparisons that were made."""
    plots = []
    for first, second in HEADLINES:
        for metric, words in (("auroc", "AUROC"), ("even_balanced_accuracy", "balanced accuracy at an even prior")):
            head = f"augment/change/{first}-{second}/{metric}/"
            rows = [(key.removeprefix(head), each) for key, each in entries.items() if key.startswith(f"{head}cell=")]
            pools = [row for row in rows if row[0] in ("cell=rare", "cell=filled")]
            rows = [row for row in rows if row not in pools] + pools
            if rows:
                plots.append(_forest(rows, f"{ARMS[first].label} − {ARMS[second].label}", words))
        if len(plots) >= 4:
            break
    return plots


def _forest(rows: Sequence[tuple[str, Mapping[str, Any]]], title: str, words: str) -> Plot:
    def draw(axes: Any) -> None:
        for place, (name, entry) in enumerate(rows):
            color = REAL if name in ("cell=rare", "cell=filled") else TUNED
            solid = entry["n"] >= SMALL
            ends = [100 * end for end in entry["ci95"]]
            axes.plot(ends, (place, place), color=color, linewidth=1.8, alpha=0.7 if solid else 0.3)
            axes.plot(
                100 * entry["value"], place, "o", color=color, markersize=6, markerfacecolor=color if solid else "white"
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.axvline(-1, color=LINE, linewidth=0.8, linestyle="--")
        labels = [f"{name.removeprefix('cell=')} (n {entry['n']})" for name, entry in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"change of {words}, points")

    height = 0.9 + 0.3 * len(rows)
    svg = _draw(draw, f"{title}: {words} by cell", (5.6, height))
    caption = f"Change of {words} by cell, 95 % intervals; hollow: fewer than {SMALL} test images; n: test images."
    return Plot(title, caption, svg)


def cell_rows(entries: Mapping[str, Mapping[str, Any]], details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a cell: counts, and of each generator what was drawn, passed, dropped and how real it looks."""
    rows = []
    for cell in details["plan"]["cells"]:
        sides = {}
        for side, listed in details["cells"].items():
            found = next((row for row in listed if row["cell"] == cell["cell"]), None)
            if found is not None:
                keys = {name: f"augment/images/{side}/{name}/cell={cell['cell']}" for name in _MEASURES}
                sides[side] = {**found, **{name: figure(entries, key) for name, key in keys.items()}}
                floor = entries.get(keys["kid"], {}).get("floor")
                sides[side]["floor"] = "" if floor is None else number(floor)
        rows.append({**cell, "sides": sides})
    return rows


_MEASURES = ("acceptance", "judge_accuracy", "kid")


def skill_rows(details: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return what the judge is worth on real training images: attribute, AUROC, interval, wrongly passed."""
    wrongly = details["real_images_passing_wrongly"]
    rows = []
    for name, row in details["judge_on_real_images"].items():
        known = row["auroc"] is not None
        text, around = (number(row["auroc"]), bracket(tuple(row["ci95"])).strip()) if known else ("unknown to it", "")
        rows.append((name, text, around, f"{100 * wrongly[name]:.0f} %" if name in wrongly else ""))
    return rows


def swapped_rows(entries: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[Figure]]]:
    """Return the classifiers trained or tested on generated images alone."""
    rows = []
    for name, label in (
        ("tstr_base", "trained on base images, tested on real ones (TSTR)"),
        ("tstr_tuned", "trained on tuned images, tested on real ones (TSTR)"),
        ("trts_base", "trained on real images, tested on base ones (TRTS)"),
        ("trts_tuned", "trained on real images, tested on tuned ones (TRTS)"),
    ):
        figures = [figure(entries, f"augment/{name}/{metric}") for metric in ("balanced_accuracy", "auroc")]
        if any(each.text for each in figures):
            rows.append((label, figures))
    return rows


def gallery_rows(
    ground: Ground, pictures: Mapping[str, HasCells], real_images: bool
) -> list[tuple[str, list[tuple[str, list[Markup]]]]]:
    """Return cell, and kind of picture to data URIs: real ones of the cell, and the first kept of each generator."""
    found: dict[str, list[tuple[str, list[Markup]]]] = {}
    members = members_of(ground.cases["train"], ground.problem)
    for side, each in pictures.items():
        for cell in each.cells:
            if not cell.kept:
                continue
            name = cell.plan.cell.name
            if name not in found:
                cases = [ground.cases["train"][row] for row in members[cell.plan.cell][:SHOWN]]
                found[name] = [("real", _uris(ground.dataset.images(cases)))] if real_images else []
            chosen = cell.kept[:SHOWN]
            found[name].append((side, _uris(cell.batch.images[chosen].float() / 255.0)))
    return list(found.items())


def _uris(images: torch.Tensor) -> list[Markup]:
    """Return pictures as data URIs without metadata."""
    small = resize(images, THUMB) if images.shape[-1] > THUMB else images
    found = []
    for picture in to_pil(small):
        stream = io.BytesIO()
        picture.save(stream, "PNG", optimize=True)
        found.append(Markup(f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"))
    return found
