"""The minute's worth of a report: a tally of what moved, and the few numbers that matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from clinalign.workflows.report_metrics import (
    Metrics,
    meaning,
    move,
    value,
    written,
)
from clinalign.workflows.report_trends import Trend, difference, trend, trends
from clinalign.workflows.report_verdicts import Verdict

# What a reader looks for first; of these, those that were measured.
KEYS = (
    "alignment/attribute_accuracy", "alignment/apr", "alignment/recall_at_1", "alignment/posture", "fidelity/fid",
    "fidelity/frd", "fidelity/precision", "fidelity/recall", "diversity/feature_distance", "diversity/lpips",
    "diversity/vendi",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One number before and after.

    Attributes:
        label: Its name.
        better: Which way is better.
        before: Of the anchor, in its unit.
        after: Of the tuned generator.
        change: The difference, with its interval where the evaluation paired the pictures.
        real: Of real images, with their n where it is another one and counts.
        size: Number of images of the tuned generator.
        trend: Better or worse beyond chance; empty where neither is sure.
    """

    label: str
    better: str
    before: str
    after: str
    change: str
    real: str
    size: str
    trend: Trend


def headline(metrics: Metrics, verdicts: Sequence[Verdict]) -> str:
    """Count what moved and which goals were met, in two sentences; empty where nothing was measured twice."""
    counted = Counter(which for _, which in trends(metrics))
    total = counted.total()
    if not total:
        return ""
    tally = (
        f"Of {total} numbers measured before and after tuning, {counted['better']} got better, {counted['worse']} got "
        f"worse and {counted['']} did not change beyond chance."
    )
    states = Counter[str](verdict.state for verdict in verdicts)
    words = {"met": "met", "open": "open", "missed": "missed", "unknown": "not measured"}
    told = [f"{states[state]} {word}" for state, word in words.items() if states[state]]
    return f"{tally} Of {len(verdicts)} goals: {', '.join(told)}." if told else tally


def lines(metrics: Metrics) -> list[Line]:
    """Return the numbers that matter, before and after, in the order of :data:`KEYS`."""
    found = []
    for key in KEYS:
        change, known = move(metrics, key), meaning(key)
        if change is None or known is None:
            continue
        unit = known.unit
        found.append(
            Line(
                label=known.label,
                better=known.better,
                before=written(change.before, unit)[0],
                after=written(change.after, unit)[0],
                change=difference(change, unit),
                real=_real(metrics, key, unit),
                size=str(metrics[f"tuned/{key}"].get("n", "")),
                trend=trend(change, known.better),
            )
        )
    return found


def _real(metrics: Metrics, key: str, unit: str) -> str:
    """Write the value of real images, with their n where another number of images moves the metric."""
    amount = value(metrics, f"real/{key}")
    if amount is None:
        return ""
    real, tuned = metrics[f"real/{key}"].get("n"), metrics[f"tuned/{key}"].get("n")
    if key.startswith("fidelity/") and real != tuned:
        return f"{written(amount, unit)[0]} (n {real})"
    return written(amount, unit)[0]
