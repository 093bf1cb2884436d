"""The evidence behind a report's sentences: what the reward did, and what the tuning gained and cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinalign.workflows.report_metrics import Metrics, Move, bracket, interval, move, value

ACCURACY = "alignment/attribute_accuracy"
GAP = "gap/attribute_accuracy_closed"
FID = "fidelity/fid"
# Which way a diversity metric counts: distances directly, likenesses as what is missing to 1.
DIVERSITY = {"diversity/feature_distance": "feature distance", "diversity/ms_ssim": "1\u2212MS\u2011SSIM"}
_ENDS = 3  # epochs at either end of the training whose mean reward is told


@dataclass(frozen=True)
class Goals:
    """What a tuning has to reach.

    Attributes:
        gap_closed: Share of the gap between anchor and real images that the tuned generator closes.
        diversity_loss: Largest share of the diversity within a prompt that may be lost.
    """

    gap_closed: float = 0.6
    diversity_loss: float = 0.1


def reward_rise(curve: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Return the mean reward at either end of the training when it rose beyond chance, else ``None``.

    It rose when the mean of the last third of the epochs lies two standard errors above that of the first third. Epochs
    scatter, and a trend within a third counts as scatter, so the test errs towards no rise. With fewer than six epochs
    the rise must be a quarter of the spread of single pictures instead.
    """
    rewards = [float(row["reward/mean"]) for row in curve if isinstance(row.get("reward/mean"), int | float)]
    if len(rewards) < 2:
        return None
    third = max(1, len(rewards) // 3)
    early, late = rewards[:third], rewards[-third:]
    if third > 1:
        noise = 2 * math.sqrt((statistics.variance(early) + statistics.variance(late)) / third)
    else:
        noise = 0.25 * next((float(row["reward/std"]) for row in curve if row.get("reward/std")), 0.0)
    if statistics.fmean(late) - statistics.fmean(early) <= noise:
        return None
    ends = min(_ENDS, third)
    return statistics.fmean(rewards[:ends]), statistics.fmean(rewards[-ends:])


def gap_closed(metrics: Metrics) -> tuple[float, tuple[float, float] | None] | None:
    """Return which share of the gap to real images was closed, and its interval where the evaluation gives one."""
    closed = value(metrics, GAP)
    if closed is not None:
        return closed, interval(metrics, GAP)
    change, real = move(metrics, ACCURACY), value(metrics, f"real/{ACCURACY}")
    if change is None or real is None or real <= change.before:
        return None
    return change.difference / (real - change.before), None


def diversity_losses(metrics: Metrics) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """Return :func:`diversity_loss` of every diversity metric that was measured, by its name for a reader."""
    return {name: loss for key, name in DIVERSITY.items() if (loss := diversity_loss(metrics, key)) is not None}


def diversity_loss(metrics: Metrics, key: str) -> tuple[float, tuple[float, float] | None] | None:
    """Return which share of a diversity metric was lost (negative: gained), and its interval where there is one.

    The interval is that of the relative change where the evaluation gives one (``change/diversity``, of the feature
    distance), else that of the difference, divided by the anchor's value.
    """
    change = move(metrics, key)
    if change is None:
        return None
    likeness = key.endswith("ms_ssim")
    whole = 1.0 - change.before if likeness else change.before
    if whole <= 0:
        return None
    sign = 1.0 if likeness else -1.0
    relative = interval(metrics, "change/diversity") if key == "diversity/feature_distance" else None
    ends = (-relative[1], -relative[0]) if relative else None
    if relative is None and change.low is not None and change.high is not None:
        low, high = sorted((sign * change.low / whole, sign * change.high / whole))
        ends = (low, high)
    return sign * change.difference / whole, ends


def rose_beyond(metrics: Metrics, change: Move) -> bool:
    """Tell whether FID rose beyond its interval: the paired one, or the anchor's own where there is none."""
    if change.low is not None:
        return change.rose
    around = interval(metrics, f"base/{FID}")
    return change.difference > 0 and (around is None or change.after > around[1])


def may_depend(notes: Sequence[str]) -> bool:
    """Tell whether the evaluation could not exclude that the evaluator learned with the reward."""
    return any(note.startswith(("not independent", "no reward is known")) for note in notes)


def written_share(share: float, ends: tuple[float, float] | None) -> str:
    """Write a share with its interval, such as ``76 % [68, 83]``."""
    return f"{100 * share:.0f} %{bracket(ends, 'percent')}"
