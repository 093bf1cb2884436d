"""What a report says in plain sentences: what improved, what got worse, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clinalign.workflows.report_evidence import (
    ACCURACY,
    DIVERSITY,
    FID,
    Goals,
    diversity_losses,
    gap_closed,
    may_depend,
    reward_rise,
    rose_beyond,
    written_share,
)
from clinalign.workflows.report_forest import subgroup_forests
from clinalign.workflows.report_guard import GuardRecord, guard_sentences
from clinalign.workflows.report_metrics import (
    Metrics,
    Move,
    attributes,
    bracket,
    interval,
    meaning,
    move,
    number,
    percents,
    value,
    words,
    written,
)
from clinalign.workflows.report_trends import trends

# Metrics that have a sentence of their own, always or when they fell.
_TOLD = (ACCURACY, "alignment/apr", FID, *DIVERSITY)
_TOLD_WHEN_LOST = ("fidelity/recall", "fidelity/coverage")


@dataclass(frozen=True)
class Finding:
    """One sentence of the summary.

    Attributes:
        kind: ``good``, ``bad`` (set apart on the page) or ``neutral``.
        text: Plain text.
    """

    kind: Literal["good", "bad", "neutral"]
    text: str


def summarise(
    metrics: Metrics,
    *,
    curve: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    goals: Goals | None = None,
    guard: GuardRecord | None = None,
) -> list[Finding]:
    """Say in plain sentences what an evaluation before and after tuning shows.

    Args:
        metrics: Entries with prefixes ``base/``, ``tuned/``, ``real/``, ``change/`` (intervals of differences) and
            ``gap/``; whatever is missing is not spoken of.
        curve: Rows of ``metrics.jsonl``, to tell a rising reward from rising alignment.
        notes: Remarks of the evaluation; those that begin with ``not independent`` become marked sentences.
        goals: See :class:`Goals`.
        guard: What the guard saw while training, if it looked.

    Returns:
        Findings in reading order: the prompt first, then what it cost, then how it was measured.
    """
    if value(metrics, f"tuned/{ACCURACY}") is None and value(metrics, f"tuned/{FID}") is None:
        return [*_unmeasured(curve), *_guard(guard), *_remarks(notes)]
    return [
        *_alignment(metrics),
        *_hacking(metrics, curve),
        *_guard(guard),
        *_bought(metrics, curve, goals or Goals()),
        *_diversity(metrics, goals or Goals()),
        *_fidelity(metrics),
        *_others(metrics),
        *_single_attributes(metrics),
        *_subgroups(metrics),
        *_measure(metrics, notes),
        *_remarks(notes),
    ]


def describe(metrics: Metrics, *, notes: Sequence[str] = ()) -> list[Finding]:
    """Say what an evaluation of one set of images shows; nothing to compare with but real images against themselves.

    Args:
        metrics: Entries with prefixes ``images/`` and ``real/``.
        notes: Remarks of the evaluation.
    """
    findings = []
    accuracy, distance = f"images/{ACCURACY}", f"images/{FID}"
    kept, real, fid = value(metrics, accuracy), value(metrics, f"real/{ACCURACY}"), value(metrics, distance)
    if kept is not None:
        shown = percents(kept, *([] if real is None else [real]))
        beside = "" if real is None else f" (real images: {shown[1]} %)"
        around = bracket(interval(metrics, accuracy), "percent")
        findings.append(Finding("neutral", f"Prompts are kept in {shown[0]} %{around} of attributes{beside}."))
    if fid is not None:
        around, beside = bracket(interval(metrics, distance)), _beside_floor(metrics[distance])
        findings.append(Finding("neutral", f"FID is {number(fid)}{around}; lower is better{beside}."))
    size = metrics.get(accuracy, metrics.get(distance, {})).get("n")
    if size is not None:
        findings.append(Finding("neutral", f"Measured on {size} pictures."))
    return [*findings, *_remarks(notes)]


def _unmeasured(curve: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    rise = reward_rise(curve)
    if rise is not None:
        yield Finding("neutral", f"The reward rose from {number(rise[0])} to {number(rise[1])} while training.")
    elif curve:
        yield Finding("bad", "The reward did not rise while training.")
    yield Finding(
        "bad",
        "This run was not evaluated: whether prompts are kept better, and at what cost, is not known. The reward is "
        "what training pushed up, so it proves nothing by itself.",
    )


def _alignment(metrics: Metrics) -> Iterator[Finding]:
    change = move(metrics, ACCURACY)
    if change is None:
        return
    real = value(metrics, f"real/{ACCURACY}")
    shown = percents(change.after, change.before, *([] if real is None else [real]))
    ceiling = "" if real is None else f" (real images: {shown[2]} %)"
    compared = f"in {shown[0]} % of attributes instead of {shown[1]} %{ceiling}"
    if change.rose:
        closed = gap_closed(metrics)
        part = f": {written_share(*closed)} of the gap closed" if closed else ""
        yield Finding("good", f"Prompts are kept {compared}{part}.")
    elif change.fell:
        yield Finding("bad", f"Prompts are kept less well than before tuning: {compared}.")
    else:
        yield Finding("bad", f"Prompts are not kept better beyond chance: {compared}{_within(change)}.")
    complete = move(metrics, "alignment/apr")
    if complete is not None and complete.sure:
        after, before = percents(complete.after, complete.before)
        text = f"Every artifact is as asked in {after} % of pictures instead of {before} %."
        yield Finding("good" if complete.rose else "bad", text)


def _hacking(metrics: Metrics, curve: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    rise, change = reward_rise(curve), move(metrics, ACCURACY)
    if rise is not None and change is not None and not change.rose:
        yield Finding(
            "bad",
            f"Possible reward hacking: the reward rose from {number(rise[0])} to {number(rise[1])}, but the "
            "independent evaluator does not see prompts kept better.",
        )
    if rise is None and curve and change is not None:
        yield Finding("bad", "The reward did not rise while training.")


def _guard(guard: GuardRecord | None) -> Iterator[Finding]:
    for bad, text in guard_sentences(guard):
        yield Finding("bad" if bad else "neutral", text)


def _bought(metrics: Metrics, curve: Sequence[Mapping[str, Any]], goals: Goals) -> Iterator[Finding]:
    rise, losses = reward_rise(curve), diversity_losses(metrics)
    if rise is not None and any(loss > goals.diversity_loss for loss, _ in losses.values()):
        yield Finding(
            "bad",
            f"The reward was paid for with variety, which counts as a failure: it rose from {number(rise[0])} to "
            f"{number(rise[1])} while pictures of one prompt became more alike.",
        )


def _diversity(metrics: Metrics, goals: Goals) -> Iterator[Finding]:
    losses = diversity_losses(metrics)
    if not losses:
        return
    name, (worst, ends) = max(losses.items(), key=lambda item: item[1][0])
    if worst > goals.diversity_loss:
        yield Finding(
            "bad",
            f"Pictures of one prompt became more alike: diversity within a prompt fell by {written_share(worst, ends)} "
            f"({name}), more than the {100 * goals.diversity_loss:.0f} % allowed.",
        )
    elif worst > 0 and ends is not None and ends[1] >= goals.diversity_loss:
        yield Finding(
            "neutral",
            "Pictures of one prompt may have become more alike: diversity fell by "
            f"{written_share(worst, ends)} ({name}), and up to {100 * goals.diversity_loss:.0f} % is allowed.",
        )
    elif worst <= 0:
        yield Finding("good", f"Pictures of one prompt are as varied as before ({name}: {100 * -worst:+.1f} %).")
    else:
        yield Finding(
            "good", f"Pictures of one prompt stayed varied: diversity fell by {written_share(worst, ends)} ({name})."
        )


def _fidelity(metrics: Metrics) -> Iterator[Finding]:
    change = move(metrics, FID)
    if change is not None:
        around = bracket(interval(metrics, f"tuned/{FID}"))
        numbers = f"FID {number(change.after)}{around} instead of {number(change.before)}; lower is better"
        numbers += _beside_floor(metrics[f"tuned/{FID}"])
        if rose_beyond(metrics, change):
            yield Finding("bad", f"Pictures look less real than before tuning: {numbers}.")
        elif change.fell:
            yield Finding("good", f"Pictures look more real than before tuning: {numbers}.")
        else:
            yield Finding("neutral", f"Pictures look about as real as before tuning: {numbers}.")
    for key, what in (("recall", "recall"), ("coverage", "coverage")):
        spread = move(metrics, f"fidelity/{key}")
        if spread is not None and spread.fell:
            after, before = percents(spread.after, spread.before)
            text = f"Less of the variety of real images is reached: {what} {after} % instead of {before} %."
            yield Finding("bad", text)


def _beside_floor(entry: Mapping[str, Any]) -> str:
    """Say what real images give among themselves, at the number of pictures at which that can be asked."""
    floor, here, size = entry.get("floor"), entry.get("at_floor_n"), entry.get("floor_n")
    if not isinstance(floor, int | float) or not isinstance(here, int | float):
        return ""
    return f" (at {size} pictures a side {number(here)}, where real images among themselves have {number(floor)})"


def _others(metrics: Metrics) -> Iterator[Finding]:
    """Name every other metric that moved beyond chance: nothing that got worse stays unsaid."""
    better: list[str] = []
    worse: list[str] = []
    for key, which in trends(metrics):
        known, change = meaning(key), move(metrics, key)
        told = key in _TOLD or (which == "worse" and key in _TOLD_WHEN_LOST)
        if told or known is None or change is None or not which:
            continue
        shown = [written(amount, known.unit)[0] for amount in (change.before, change.after)]
        (better if which == "better" else worse).append(f"{known.label} ({shown[0]} to {shown[1]})")
    if better:
        yield Finding("good", f"Also better: {', '.join(better)}.")
    if worse:
        yield Finding("bad", f"Worse: {', '.join(worse)}.")


def _single_attributes(metrics: Metrics) -> Iterator[Finding]:
    gained: list[str] = []
    lost: list[str] = []
    for name in attributes(metrics):
        change = move(metrics, f"alignment/accuracy/{name}")
        if change is not None and change.sure:
            after, before = percents(change.after, change.before)
            (gained if change.rose else lost).append(f"{words(name)} ({before} to {after} %)")
    if gained:
        yield Finding("good", f"Kept better, one by one: {', '.join(gained)}.")
    if lost:
        yield Finding("bad", f"Kept less well, one by one: {', '.join(lost)}.")


def _subgroups(metrics: Metrics) -> Iterator[Finding]:
    """Say for whom prompts are kept better, and name every subgroup for whom something got worse."""
    worse: dict[str, list[str]] = {}
    for forest in subgroup_forests(metrics):
        rows = [(heading, row) for heading, rows in forest.groups for row in rows if row.moved is not None]
        lost = [f"{heading} {row.label} ({row.change})" for heading, row in rows if row.trend == "worse"]
        gained = sum(row.trend == "better" for _, row in rows)
        if rows and forest.metric == ACCURACY:
            text = f"Prompts are kept better beyond chance in {gained} of {len(rows)} subgroups."
            yield Finding("good" if gained else "neutral", text)
        if lost:
            worse[forest.title] = lost
    for title, lost in worse.items():
        where = "1 subgroup" if len(lost) == 1 else f"{len(lost)} subgroups"
        yield Finding("bad", f"{title}: worse in {where}: {', '.join(lost)}.")


def _measure(metrics: Metrics, notes: Sequence[str]) -> Iterator[Finding]:
    key = ACCURACY if f"tuned/{ACCURACY}" in metrics else FID
    pictures, real = metrics.get(f"tuned/{key}", {}).get("n"), metrics.get(f"real/{key}", {}).get("n")
    beside = f" and {real} real ones" if real else ""
    judge = ", by an evaluator that gave no reward" if key == ACCURACY and not may_depend(notes) else ""
    if pictures:
        size = f"Measured on {pictures} pictures of each generator{beside}{judge}."
        yield Finding("neutral", f"{size} Square brackets: 95 % intervals.")


def _remarks(notes: Sequence[str]) -> Iterator[Finding]:
    for note in notes:
        text = note[:1].upper() + note[1:].rstrip(".") + "."
        yield Finding("bad" if note.startswith("not independent") else "neutral", text)


def _within(change: Move) -> str:
    if change.low is None or change.high is None:
        return ""
    return f", a difference of {100 * change.difference:+.1f} points [{100 * change.low:.1f}, {100 * change.high:.1f}]"
