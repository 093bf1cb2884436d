"""The plots of a report, as small SVG drawings that are part of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from clinalign.tuning.guards import LEVEL, LOSSES, REAL_RANGES
from clinalign.workflows.report_metrics import number, words

Curve = Sequence[Mapping[str, Any]]  # rows of metrics.jsonl

BASE, TUNED, REAL, INK, LINE = "#8792a2", "#0b6b6b", "#b4762a", "#2b3440", "#d9dee5"
FIFTH = "#8b3a62"
_SIZE = (4.6, 2.75)  # inches; small, so that letters stay readable when a phone shows one plot a row
_WINS, _LIKENESS = "evaluate/win_rate", "evaluate/ms_ssim"
_REWARD_BAND = ", band of one standard deviation of its pictures."
_EDGES = {"Watch metrics": 1.0, "Lost since before tuning": 0.0}  # dashed lines: where a metric begins to be worse
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


@dataclass(frozen=True)
class Series:
    """One line of a drawing, with a point and a band an epoch.

    Attributes:
        epochs: Where the points lie.
        means: The line.
        lows: Lower edge of the band.
        highs: Upper edge.
        band: Whether the band is drawn.
    """

    epochs: list[float]
    means: list[float]
    lows: list[float]
    highs: list[float]
    band: bool


def training_plots(curve: Curve, also: Sequence[Curve] = ()) -> list[Plot]:
    """Draw what the training logged: reward, held-out evaluator, KL, diversity, watch metrics; those that are there.

    Args:
        curve: Rows of ``metrics.jsonl``.
        also: The same of runs that differ in their seed. The line is then the mean of all, over the epochs that all
            have, and the band goes from the lowest run to the highest; else the reward's band is the spread of single
            pictures.
    """
    curves, plots = (curve, *also), []
    spread = f" Line: mean of {len(curves)} seeds; band: lowest to highest." if also else ""
    rewards = _over_runs(curves, "reward/mean")
    if rewards.epochs:
        caption = "What training pushes up: mean of an epoch" + (f".{spread}" if also else _REWARD_BAND)
        reward = rewards if also else _with_spread(rewards, curve)
        plots.append(Plot("Reward", caption, _draw_lines({"reward": reward}, "Reward")))
    for keys, title, caption in _chosen(_keys(curve)):
        lines = {_label(key): found for key in keys if (found := _over_runs(curves, key)).epochs}
        if lines:
            plots.append(Plot(title, caption + spread, _draw_lines(lines, title, _EDGES.get(title))))
    return plots


def _chosen(keys: Sequence[str]) -> list[tuple[list[str], str, str]]:
    """Return which keys share a drawing, its title and what it says."""
    looks = [key for key in keys if key.startswith("evaluate/") and key not in ("evaluate/reward", _WINS, _LIKENESS)]
    varied = [key for key in looks if "diversity" in key or "distance" in key]
    judged = [key for key in looks if key not in varied]
    ranges, losses = ([f"{LEVEL}{name}" for name in names] for names in (REAL_RANGES, LOSSES))
    return [
        (judged, "Held-out evaluator", "What training does not see: if it stays flat while the reward rises, beware."),
        ([_WINS], "Wins against the model before tuning",
         "Share of pictures with more reward than before tuning; 0.5 is no difference. The reward's own word."),
        ([_LIKENESS], "Likeness within a prompt",
         "MS-SSIM between pictures of one prompt: rising means that they become alike."),
        (varied, "Diversity", "How different the pictures of one prompt are: falling means that they become alike."),
        (["kl"], "Distance to the model before tuning", "KL divergence of a denoising step: how far tuning has moved."),
        (ranges, "Watch metrics",
         "How far fixed prompts lie from real images, in ways that no reward sees; the dashed line is the edge of "
         "what real images among themselves reach. They may fall while the reward rises, and should not rise."),
        (losses, "Lost since before tuning", "Shares lost of diversity and of the evaluator's accuracy; 0: none."),
    ]  # fmt: skip


def _over_runs(curves: Sequence[Curve], key: str) -> Series:
    """Return mean, lowest and highest over the runs at the epochs that all have; of one run, no band."""
    runs = [dict(zip(*_series(curve, key), strict=True)) for curve in curves]
    epochs = sorted(set.intersection(*(set(run) for run in runs)))
    values = [[run[epoch] for run in runs] for epoch in epochs]
    means = [sum(at) / len(at) for at in values]
    return Series(epochs, means, [min(at) for at in values], [max(at) for at in values], band=len(runs) > 1)


def _with_spread(rewards: Series, curve: Curve) -> Series:
    """Put the band of one standard deviation of single pictures around the mean of each epoch."""
    spreads = [float(row.get("reward/std") or 0.0) for row in curve if isinstance(row.get("reward/mean"), int | float)]
    pairs = list(zip(rewards.means, spreads, strict=True))
    return Series(
        rewards.epochs, rewards.means, [mean - std for mean, std in pairs], [mean + std for mean, std in pairs], True
    )


def _draw_lines(lines: Mapping[str, Series], title: str, edge: float | None = None) -> Markup:
    def draw(axes: Any) -> None:
        if edge is not None:
            axes.axhline(edge, color=INK, linewidth=1.0, linestyle="--")
        for (name, line), color in zip(lines.items(), (TUNED, REAL, BASE, INK, FIFTH), strict=False):
            if line.band:
                axes.fill_between(line.epochs, line.lows, line.highs, color=color, alpha=0.15, linewidth=0)
            dotted = "o" if len(line.epochs) < 20 else ""
            axes.plot(line.epochs, line.means, color=color, linewidth=1.8, marker=dotted, markersize=4, label=name)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=9)

    told = "; ".join(f"{name} {_ends(line)}" for name, line in lines.items())
    return _draw(draw, f"{title} by epoch: {told}")


def _ends(line: Series) -> str:
    """Say where a line begins and ends, for those who do not see it."""
    band = f" (band {number(line.lows[-1])} to {number(line.highs[-1])})" if line.band else ""
    return f"{number(line.means[0])} at epoch {line.epochs[0]:g}, {number(line.means[-1])} at {line.epochs[-1]:g}{band}"


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
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1))


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
