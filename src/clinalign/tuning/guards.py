"""Do the reward and the pictures part? The guard against over-optimisation.

Every look at the fixed prompts gives the reward and some watch metrics that no reward sees, each with a standard error
from resampling the prompts. Through the last looks of a series goes a robust line (Theil 1950, Sen 1968); its end,
against the value before tuning, is the *rise*. A look has *parted* when

- the reward's rise is above 2 standard errors, and
- a watch metric's rise is above 3, is larger than what is tolerated, and is not shrinking.

One such look is a warning; ``guard_patience`` of them in a row, for one metric, is a reason to stop. Everything is
computed from the rows of ``metrics.jsonl``, so that a resumed run knows what the interrupted one knew.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from clinalign.core.config import EvaluateConfig

REWARD, LEVEL, NOISE = "evaluate/reward", "watch/", "watch_noise/"
WINDOW = 5  # looks that a line is laid through
SURE_REWARD, SURE_METRIC = 2.0, 3.0  # standard errors
WORSE = 0.5  # of the level before tuning: what was far from real may vary more
# Watch metrics told in real ranges, and what they are called in a sentence.
REAL_RANGES = {
    "intensity": "the intensity histogram",
    "edges": "edge density",
    "fine_detail": "fine detail (grids, blur)",
    "layout": "the layout (corners, borders, brightness by place)",
    "features": "the evaluator's features",
}
# Watch metrics told as what was lost since before tuning.
LOSSES = {
    "diversity": "diversity within a prompt (1\u2212MS\u2011SSIM)",
    "feature_diversity": "diversity within a prompt (feature distance)",
    "judge": "the independent evaluator's accuracy",
}


@dataclass(frozen=True)
class Trend:
    """A series of looks, with the line through the last of them.

    Attributes:
        before: Value before tuning.
        now: Value of the line at the last look.
        slope: Of the line, an epoch.
        growth: What the line gains over the looks that it goes through.
        noise: Standard error of the last look's change since before tuning.
    """

    before: float
    now: float
    slope: float
    growth: float
    noise: float

    @property
    def rise(self) -> float:
        """Change since before tuning."""
        return self.now - self.before

    def beyond(self, errors: float) -> bool:
        """Tell whether it rose by more than so many standard errors, and is not on its way back."""
        return self.rise > errors * self.noise and self.growth >= -self.noise


@dataclass(frozen=True)
class Parting:
    """One watch metric that got worse while the reward rose.

    Attributes:
        metric: Its name, without ``watch/``.
        epoch: Of the first look at which they had parted.
        metric_trend: Of the metric, as it was at the last such look.
        reward_trend: Of the reward, then.
        reward: Which reward: ``reward`` or ``reward NAME``.
    """

    metric: str
    epoch: int
    metric_trend: Trend
    reward_trend: Trend
    reward: str = "reward"

    @property
    def reason(self) -> str:
        """Say it in a sentence without a full stop."""
        one, other = self.reward_trend, self.metric_trend
        return f"{self.reward} rises ({one.before:.3g} to {one.now:.3g}) while {self._what(other)}"

    def _what(self, trend: Trend) -> str:
        if self.metric == "judge":
            return f"{LOSSES['judge']} falls by {100 * trend.now:.1f} points"
        if self.metric in LOSSES:
            return f"{LOSSES[self.metric]} falls by {100 * trend.now:.0f} %"
        words = REAL_RANGES[self.metric]
        return f"{words} leaves the real range ({trend.before:.1f} to {trend.now:.1f}, 1 is its edge)"


@dataclass(frozen=True)
class Verdict:
    """What the guard says of a run.

    Attributes:
        state: ``ok``; ``warn`` when reward and pictures parted at a look; ``stop`` when they stayed apart.
        partings: The metrics that parted, in the order in which they did.
        epoch: Of the look at which ``state`` was reached; ``None`` for ``ok``.
    """

    state: Literal["ok", "warn", "stop"] = "ok"
    partings: tuple[Parting, ...] = ()
    epoch: int | None = None

    @property
    def reasons(self) -> list[str]:
        """The reason of each parting."""
        return [parting.reason for parting in self.partings]


def theil_sen(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Return slope and intercept of a robust line: the median slope of all pairs of points, and the median of the rest.

    One outlier among four points or more does not move it far.

    Args:
        x: Distinct places.
        y: Values.

    Raises:
        ValueError: With fewer than two points, or two at one place.
    """
    if len(x) < 2 or len(set(x)) != len(x) or len(x) != len(y):
        raise ValueError("a line needs two points or more, at different places")
    points = list(zip(x, y, strict=True))
    slope = statistics.median((b - a) / (v - u) for (u, a), (v, b) in combinations(points, 2))
    return slope, statistics.median(value - slope * place for place, value in points)


def trend(epochs: Sequence[int], values: Sequence[float], noise: float) -> Trend:
    """Lay a line through the last :data:`WINDOW` looks of a series whose first is from before tuning."""
    x, y = list(epochs[-WINDOW:]), list(values[-WINDOW:])
    slope, intercept = theil_sen(x, y)
    now = min(max(intercept + slope * x[-1], min(y)), max(y))  # the line may lead past all that was seen
    return Trend(values[0], now, slope, slope * (x[-1] - x[0]), noise)


def review(rows: Sequence[Mapping[str, Any]], settings: EvaluateConfig) -> Verdict:
    """Judge a run by the rows of its ``metrics.jsonl``.

    Args:
        rows: In the order of epochs; those without a look are passed over.
        settings: ``guard_tolerance``, ``guard_diversity``, ``guard_judge`` and ``guard_patience`` are read.

    Returns:
        The verdict; ``ok`` where nothing was watched.
    """
    looks = [row for row in rows if any(key.startswith(LEVEL) for key in row)]
    state: Literal["ok", "warn", "stop"] = "ok"
    reached: int | None = None
    found: dict[str, Parting] = {}
    in_a_row: dict[str, int] = {}
    for count in range(2, len(looks) + 1):
        epoch = int(looks[count - 1]["epoch"])
        parted = _parted(looks[:count], settings)
        in_a_row = {name: in_a_row.get(name, 0) + 1 for name in parted}
        for name, parting in parted.items():
            first = found[name].epoch if name in found else epoch
            found[name] = Parting(name, first, parting.metric_trend, parting.reward_trend, parting.reward)
        worst = max(in_a_row.values(), default=0)
        if worst >= settings.guard_patience and state != "stop":
            state, reached = "stop", epoch
        elif worst and state == "ok":
            state, reached = "warn", epoch
    return Verdict(state, tuple(found.values()), reached)


def _parted(looks: Sequence[Mapping[str, Any]], settings: EvaluateConfig) -> dict[str, Parting]:
    """Return the metrics that have parted from a rising reward at the last of ``looks``."""
    names = [REWARD, *(key for key in looks[-1] if key.startswith(f"{REWARD}/"))]
    rising = {name: rise for name in names if (rise := _trend_of(looks, name, f"{NOISE}{name[len('evaluate/') :]}"))}
    rising = {name: rise for name, rise in rising.items() if rise.beyond(SURE_REWARD)}
    if not rising:
        return {}
    reward = next(iter(rising))
    words = "reward" if reward == REWARD else f"reward {reward[len(REWARD) + 1 :]}"
    epoch = int(looks[-1]["epoch"])
    found = {}
    for name in (*REAL_RANGES, *LOSSES):
        worse = _trend_of(looks, f"{LEVEL}{name}", f"{NOISE}{name}")
        if worse is not None and worse.beyond(SURE_METRIC) and worse.rise > _tolerated(name, worse, settings):
            found[name] = Parting(name, epoch, worse, rising[reward], words)
    return found


def _tolerated(name: str, worse: Trend, settings: EvaluateConfig) -> float:
    if name == "judge":
        return settings.guard_judge
    if name in LOSSES:
        return settings.guard_diversity
    # Within the real range nothing is worse, and a generator that never was in it is allowed half of what it lacked.
    return max(settings.guard_tolerance, WORSE * worse.before, 1.0 - worse.before)


def _trend_of(looks: Sequence[Mapping[str, Any]], key: str, noise_key: str) -> Trend | None:
    """Return the trend of one key; ``None`` without a value before tuning, a value now, or a noise."""
    known = [(int(row["epoch"]), float(row[key])) for row in looks if isinstance(row.get(key), int | float)]
    noise = looks[-1].get(noise_key)
    if len(known) < 2 or key not in looks[-1] or known[0][0] != 0 or not isinstance(noise, int | float):
        return None
    if not math.isfinite(noise):
        return None
    epochs, values = zip(*known, strict=True)
    return trend(epochs, values, float(noise))
