"""Which way metrics moved: for the better, for the worse, or not surely."""

from __future__ import annotations

from typing import Literal

from clinalign.workflows.report_metrics import Metrics, Move, attributes, bracket, meaning, move, number

Trend = Literal["better", "worse", ""]
MINUS = "\u2212"


def trend(change: Move, better: str) -> Trend:
    """Tell whether a change is one for the better, one for the worse, or not sure."""
    if not change.sure:
        return ""
    return "better" if change.rose == (better == "higher") else "worse"


def trends(metrics: Metrics) -> list[tuple[str, Trend]]:
    """Return every metric that was measured before and after, with its trend; attributes one by one come last."""
    keys = [
        key.removeprefix("tuned/")
        for key in metrics
        if key.startswith("tuned/") and meaning(key.removeprefix("tuned/")) is not None
    ]
    found = [(key, trend(change, _better(key))) for key in keys if (change := move(metrics, key)) is not None]
    single = [f"alignment/accuracy/{name}" for name in attributes(metrics)]
    return found + [(key, trend(change, "higher")) for key in single if (change := move(metrics, key)) is not None]


def difference(change: Move, unit: str) -> str:
    """Write ``after - before`` with its sign, and its paired interval where there is one; shares in points."""
    ends = None if change.low is None or change.high is None else (change.low, change.high)
    return f"{signed(change.difference, unit)}{around(ends, unit)}"


def signed(amount: float, unit: str) -> str:
    """Write a difference with its sign, of shares in points."""
    text = f"{100 * amount:+.1f} points" if unit == "percent" else f"{'+' if amount > 0 else ''}{number(amount)}"
    return text.replace("-", MINUS)


def around(ends: tuple[float, float] | None, unit: str) -> str:
    """Write the interval of a difference, with a space before it, or nothing where there is none."""
    if ends is None:
        return ""
    text = f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if unit == "percent" else bracket(ends)
    return text.replace("-", MINUS)


def _better(key: str) -> str:
    known = meaning(key)
    return known.better if known else "higher"
