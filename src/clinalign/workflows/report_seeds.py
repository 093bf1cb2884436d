"""Several runs of one config in one report: what holds over the seeds of tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clinalign.core.errors import UserError
from clinalign.workflows.ablation_table import interval_over_seeds
from clinalign.workflows.report_findings import Finding
from clinalign.workflows.report_metrics import instrument, meaning, move
from clinalign.workflows.report_sources import Material, read
from clinalign.workflows.report_summary import KEYS
from clinalign.workflows.report_tables import flatten
from clinalign.workflows.report_trends import Trend, around, signed, trend

# What may differ between the seeds of one experiment: where it ran and how often it looked.
_MAY_DIFFER = ("seed", "train: device", "train: micro batch", "train: checkpoint every", "rollout: batch size",
               "feedback: cache", "evaluate: ")  # fmt: skip
_SAME = ("generator", "reward")


@dataclass(frozen=True)
class SeedLine:
    """The change of one metric over the runs.

    Attributes:
        key: ``family/name``.
        label: Its name.
        better: Which way is better.
        each: Change of each run, in the order of the runs; empty where one was not measured.
        mean: Their mean, with the 95 % interval of the mean (Student's t).
        range: Smallest and largest.
        trend: Better or worse where that interval excludes 0.
    """

    key: str
    label: str
    better: str
    each: tuple[str, ...]
    mean: str
    range: str
    trend: Trend


def read_also(first: Material, others: Sequence[Path]) -> tuple[Material, ...]:
    """Read further runs of the config of ``first``.

    Raises:
        UserError: When one is no run, differs in more than its seed, or repeats a seed.
    """
    if others and first.run is None:
        raise UserError(f"--also {others[0]}: {first.name} is an evaluation without a run; give the folder of a run")
    found: list[Material] = []
    for folder in others:
        material = read(folder)[0]
        _check_same_experiment(first, material, folder)
        seeds = {run.config.get("seed"): run.name for run in (first, *found)}
        if material.config.get("seed") in seeds:
            raise UserError(
                f"--also {folder} has seed {material.config.get('seed')}, as {seeds[material.config.get('seed')]} has: "
                "one seed twice says nothing about the spread; give runs of other seeds"
            )
        found.append(material)
    return tuple(found)


def _check_same_experiment(first: Material, other: Material, folder: Path) -> None:
    if other.run is None:
        raise UserError(f"--also {folder} is an evaluation without a run: give the folder of a run")
    ours, theirs = dict(flatten(first.config)), dict(flatten(other.config))
    differ = [
        name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name) and not name.startswith(_MAY_DIFFER)
    ]
    differ += [name for name in _SAME if first.manifest.get(name) != other.manifest.get(name)]
    data = [material.manifest.get("dataset", {}).get("fingerprint") for material in (first, other)]
    differ += ["the data"] if data[0] != data[1] else []
    if differ:
        raise UserError(
            f"--also {folder} is another experiment: {', '.join(differ)} differ; give runs of one config that differ "
            "in their seed"
        )


def seed_lines(materials: Sequence[Material]) -> list[SeedLine]:
    """Return the changes of the metrics that every run measured, with the same instrument."""
    found = []
    for key in KEYS:
        known = meaning(key)
        moves = [move(material.metrics, key) for material in materials]
        changes = [change.difference for change in moves if change is not None]
        instruments = {instrument(material.metrics.get(f"tuned/{key}", {})) for material in materials}
        if known is None or len(changes) < len(materials) or len(instruments) > 1:
            continue
        ends = interval_over_seeds(changes)
        over_seeds: Trend = ""
        if ends is not None and not ends[0] <= 0 <= ends[1]:
            over_seeds = "better" if (ends[0] > 0) == (known.better == "higher") else "worse"
        found.append(
            SeedLine(
                key=key,
                label=known.label,
                better=known.better,
                each=tuple(signed(change, known.unit) for change in changes),
                mean=signed(sum(changes) / len(changes), known.unit) + around(ends, known.unit),
                range=f"{signed(min(changes), known.unit)} to {signed(max(changes), known.unit)}",
                trend=over_seeds,
            )
        )
    return found


def other_instruments(materials: Sequence[Material]) -> list[str]:
    """Name the metrics that the runs measured with different instruments, which are not put together."""
    return [
        known.label
        for key in KEYS
        if (known := meaning(key)) is not None
        and all(f"tuned/{key}" in material.metrics for material in materials)
        and len({instrument(material.metrics[f"tuned/{key}"]) for material in materials}) > 1
    ]


def seed_finding(first: Material, materials: Sequence[Material], lines: Sequence[SeedLine]) -> Finding | None:
    """Say how sure a result is over the seeds of tuning; ``None`` where nothing was compared."""
    if not first.compared or not first.metrics or first.run is None:
        return None
    count = len(materials)
    if count == 1:
        return Finding(
            "neutral",
            "This is one run: the intervals are about its pictures and say nothing about the spread between seeds of "
            "tuning; tune at least three and name the others with --also.",
        )
    told = "; ".join(f"{line.label} {line.mean} (from {line.range})" for line in lines[:3])
    if not told:
        return Finding("neutral", f"{count} seeds of tuning, not all of them evaluated with the same instruments.")
    alone = [line.label for line in lines if not line.trend and _moved(first, line)]
    text = f"Over {count} seeds of tuning, mean change: {told}."
    text += f" Beyond chance in {first.name}, but not over the seeds: {', '.join(alone)}." if alone else ""
    return Finding("neutral", f"{text} The rest of the page is about {first.name} alone.")


def _moved(material: Material, line: SeedLine) -> bool:
    change = move(material.metrics, line.key)
    return change is not None and bool(trend(change, line.better))
