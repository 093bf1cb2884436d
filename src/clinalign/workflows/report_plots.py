"""The plots of a report, as small SVG drawings that are part of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from clinalign.tuning.guards import LOSSES, REAL_RANGES
from clinalign.workflows.report_metrics import COMPARED, SINGLE, Metrics, attributes, interval, value, words

BASE, TUNED, REAL, INK, LINE = "#8792a2", "#0b6b6b", "#b4762a", "#2b3440", "#d9dee5"
FIFTH = "#8b3a62"
_SIZE = (4.6, 2.75)  # inches; small, so that letters stay readable when a phone shows one plot a row
_STAGES = {"rollout": "drawing", "reward": "scoring", "update": "learning"}
_STYLE = {
    "svg.fonttype": "none",  # letters stay text: sharp, searchable, and a tenth of the size
    "svg.hashsalt": "clinalign",  # the same data give the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True)
class Plot:
    """One drawing.

    Attributes:
        title: Heading.
        caption: What it shows, in a sentence.
        svg: ``<svg>`` element.
    """

    title: str
    caption: str
    svg: Markup


def training_plots(curve: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Draw what the training logged: reward, held-out evaluator, KL, diversity; those that are there."""
    plots = []
    if _series(curve, "reward/mean")[0]:
        plots.append(
            Plot(
                "Reward",
                "What training pushes up: mean of an epoch, band of one standard deviation.",
                _draw(lambda axes: _reward(axes, curve), "Reward by epoch"),
            )
        )
    held_out = [key for key in _keys(curve) if key.startswith("evaluate/") and not key.startswith("evaluate/reward")]
    varied = [key for key in held_out if "diversity" in key or "ms_ssim" in key or "distance" in key]
    judged = [key for key in held_out if key not in varied]
    for keys, title, caption in (
        (judged, "Held-out evaluator", "What training does not see: if it stays flat while the reward rises, beware."),
        (varied, "Diversity", "How different the pictures of one prompt are."),
        (["kl"], "Distance to the model before tuning", "KL divergence of a denoising step: how far tuning has moved."),
    ):
        if any(_series(curve, key)[0] for key in keys):
            plots.append(Plot(title, caption, _draw(_lines(curve, keys), f"{title} by epoch")))
    return [*plots, *_watch_plots(curve)]


def _watch_plots(curve: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """Draw the watch metrics: distances to real images in real ranges, and what was lost since before tuning."""
    plots = []
    for names, edge, title, caption in (
        (
            REAL_RANGES, 1.0, "Watch metrics",
            "How far fixed prompts lie from real images, in ways that no reward sees; the dashed line is the edge of "
            "what real images among themselves reach. They may fall while the reward rises, and should not rise.",
        ),
        (LOSSES, 0.0, "Lost since before tuning", "Shares lost of diversity and of the evaluator's accuracy; 0: none."),
    ):  # fmt: skip
        keys = [f"watch/{name}" for name in names if _series(curve, f"watch/{name}")[0]]
        if keys:
            plots.append(Plot(title, caption, _draw(_lines(curve, keys, edge), f"{title} by epoch")))
    return plots


def attribute_plot(metrics: Metrics, compared: bool = True) -> Plot | None:
    """Draw how often each attribute is kept, with 95 % intervals: before and after, or one set, beside real images."""
    names = attributes(metrics)
    if not names:
        return None
    height = 0.8 + 0.42 * len(names)
    svg = _draw(lambda axes: _dots(axes, metrics, names, compared), "Attributes kept, one by one", (5.2, height))
    return Plot("Attribute by attribute", "Share of pictures in which it is as asked, with 95 % intervals.", svg)


def _reward(axes: Any, curve: Sequence[Mapping[str, Any]]) -> None:
    epochs, means = _series(curve, "reward/mean")
    spreads = [float(row.get("reward/std") or 0.0) for row in curve if isinstance(row.get("reward/mean"), int | float)]
    lows = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    highs = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    axes.fill_between(epochs, lows, highs, color=TUNED, alpha=0.12, linewidth=0)
    axes.plot(epochs, means, color=TUNED, linewidth=1.8)


def _lines(curve: Sequence[Mapping[str, Any]], keys: Sequence[str], edge: float | None = None) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        if edge is not None:
            axes.axhline(edge, color=INK, linewidth=1.0, linestyle="--")
        for key, color in zip(keys, (TUNED, REAL, BASE, INK, FIFTH), strict=False):
            epochs, values = _series(curve, key)
            dotted = "o" if len(epochs) < 20 else ""
            axes.plot(epochs, values, color=color, linewidth=1.8, marker=dotted, markersize=4, label=_label(key))
        if len(keys) > 1:
            axes.legend(frameon=False, fontsize=9)

    return draw


def _dots(axes: Any, metrics: Metrics, names: Sequence[str], compared: bool) -> None:
    from matplotlib.ticker import PercentFormatter

    colors = {"base/": BASE, "real/": REAL}
    columns = COMPARED if compared else SINGLE
    for column, (prefix, label) in enumerate(columns):
        offset = 0.2 * (column - (len(columns) - 1) / 2)
        color, filled = colors.get(prefix, TUNED), prefix not in colors
        for row, name in enumerate(names):
            key = f"{prefix}alignment/accuracy/{name}"
            center, ends = value(metrics, key), interval(metrics, key)
            if center is None:
                continue
            if ends:
                axes.plot(ends, (row + offset, row + offset), color=color, linewidth=1.6, alpha=0.6)
            face = color if filled else "white"
            first = label.lower() if row == 0 else None
            axes.plot(center, row + offset, "o", color=color, markerfacecolor=face, markersize=6, label=first)
    axes.set_yticks(range(len(names)), [words(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("")
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)


def _draw(draw: Callable[[Any], None], label: str, size: tuple[float, float] = _SIZE) -> Markup:
    """Return the drawing as one ``<svg>`` element that scales with the page and fetches nothing."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel("epoch")
        draw(axes)
        axes.tick_params(length=0)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend|FillBetween)[^"]*"', "", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg)  # the page decides how wide it is
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))


def _series(curve: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    rows = [row for row in curve if isinstance(row.get(key), int | float)]
    return [float(row["epoch"]) for row in rows], [float(row[key]) for row in rows]


def _keys(curve: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in curve for key in row))


def _label(key: str) -> str:
    return words(key.rpartition("/")[2])


def stage_seconds(curve: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return the seconds of each stage, summed over the run, longest first."""
    sums = {
        key.removeprefix("seconds/"): sum(_series(curve, key)[1]) for key in _keys(curve) if key.startswith("seconds/")
    }
    named = [
        (f"{_STAGES[stage]} ({stage})" if stage in _STAGES else words(stage), spent) for stage, spent in sums.items()
    ]
    return sorted(named, key=lambda item: -item[1])
