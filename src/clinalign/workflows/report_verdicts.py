"""Whether a tuning reached what was asked of it, criterion by criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clinalign.workflows.report_evidence import (
    ACCURACY,
    FID,
    Goals,
    diversity_losses,
    gap_closed,
    reward_rise,
    rose_beyond,
    written_share,
)
from clinalign.workflows.report_guard import GuardRecord, guard_criterion
from clinalign.workflows.report_metrics import Metrics, move, number, value


@dataclass(frozen=True)
class Verdict:
    """One criterion of success.

    Attributes:
        criterion: What was asked for.
        state: ``met``; ``open`` when the interval reaches to the other side of the goal; ``missed``; ``unknown`` when
            it was not measured.
        detail: The numbers.
    """

    criterion: str
    state: Literal["met", "open", "missed", "unknown"]
    detail: str


def verdicts(
    metrics: Metrics,
    *,
    curve: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    goals: Goals | None = None,
    guard: GuardRecord | None = None,
) -> list[Verdict]:
    """Judge every criterion of success; arguments as for :func:`~clinalign.workflows.report_findings.summarise`."""
    goals = goals or Goals()
    return [
        _gap_verdict(metrics, goals),
        _diversity_verdict(metrics, goals),
        _fid_verdict(metrics),
        _reward_verdict(metrics, curve),
        *([] if guard is None else [_guard_verdict(guard)]),
        _independence_verdict(metrics, notes),
    ]


def _gap_verdict(metrics: Metrics, goals: Goals) -> Verdict:
    criterion = f"At least {100 * goals.gap_closed:.0f} % of the gap to real images closed (attributes kept)"
    closed = gap_closed(metrics)
    if closed is None:
        change, real = move(metrics, ACCURACY), value(metrics, f"real/{ACCURACY}")
        no_gap = change is not None and real is not None
        return Verdict(criterion, "unknown", "there was no gap before tuning" if no_gap else "not measured")
    share, ends = closed
    if share < goals.gap_closed:
        return Verdict(
            criterion, "open" if ends and ends[1] >= goals.gap_closed else "missed", written_share(share, ends)
        )
    return Verdict(
        criterion, "open" if ends is None or ends[0] < goals.gap_closed else "met", written_share(share, ends)
    )


def _diversity_verdict(metrics: Metrics, goals: Goals) -> Verdict:
    criterion = f"Diversity within a prompt falls by less than {100 * goals.diversity_loss:.0f} %"
    losses = diversity_losses(metrics)
    if not losses:
        return Verdict(criterion, "unknown", "not measured")
    detail = "; ".join(f"{name}: {100 * -loss:+.1f} %" for name, (loss, _) in losses.items())
    if any(loss >= goals.diversity_loss for loss, _ in losses.values()):
        return Verdict(criterion, "missed", detail)
    reaches = any(ends is not None and ends[1] >= goals.diversity_loss for _, ends in losses.values())
    return Verdict(criterion, "open" if reaches else "met", detail)


def _fid_verdict(metrics: Metrics) -> Verdict:
    criterion = "FID does not rise"
    change = move(metrics, FID)
    if change is None:
        return Verdict(criterion, "unknown", "not measured")
    detail = f"{number(change.before)} to {number(change.after)}"
    if change.difference <= 0:
        return Verdict(criterion, "met", detail)
    return Verdict(criterion, "missed" if rose_beyond(metrics, change) else "open", detail)


def _reward_verdict(metrics: Metrics, curve: Sequence[Mapping[str, Any]]) -> Verdict:
    criterion = "The independent evaluator confirms the reward"
    change, rise = move(metrics, ACCURACY), reward_rise(curve)
    if change is None or not curve:
        return Verdict(criterion, "unknown", "not measured")
    if rise is None:
        return Verdict(criterion, "missed", "the reward did not rise")
    detail = f"reward {number(rise[0])} to {number(rise[1])}; attributes kept {100 * change.difference:+.1f} points"
    return Verdict(criterion, "met" if change.rose else "missed", detail)


def _guard_verdict(guard: GuardRecord) -> Verdict:
    criterion, state, detail = guard_criterion(guard)
    return Verdict(criterion, state, detail)


def _independence_verdict(metrics: Metrics, notes: Sequence[str]) -> Verdict:
    criterion = "The evaluator gave no reward and learned from other cases"
    if value(metrics, f"tuned/{ACCURACY}") is None:
        return Verdict(criterion, "unknown", "not measured")
    if any(note.startswith("no reward is known") for note in notes):
        return Verdict(criterion, "unknown", "no reward is known to compare it with")
    reasons = [note for note in notes if note.startswith("not independent")]
    return Verdict(criterion, "missed" if reasons else "met", "; ".join(reasons) or "checked by weights and split")
