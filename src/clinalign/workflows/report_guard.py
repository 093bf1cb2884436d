"""What a report says of the guard: whether reward and pictures parted while training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clinalign.core.config import EvaluateConfig
from clinalign.tuning.guards import LEVEL, Verdict, review


@dataclass(frozen=True)
class GuardRecord:
    """What the guard saw of a run.

    Attributes:
        verdict: What it said in the end.
        stopped: Whether it ended the run.
        looks: Looks at which watch metrics were measured.
    """

    verdict: Verdict
    stopped: bool
    looks: int


def guard_record(curve: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> GuardRecord | None:
    """Read what the guard saw from a run's rows and config; ``None`` where nothing was watched.

    Args:
        curve: Rows of ``metrics.jsonl``.
        config: Content of ``config.yaml``.
    """
    looks = sum(any(key.startswith(LEVEL) for key in row) for row in curve)
    section = config.get("evaluate")
    if not looks or not isinstance(section, Mapping):
        return None
    settings = EvaluateConfig.model_validate(dict(section))
    verdict = review(curve, settings)
    planned = config.get("train", {}).get("epochs", 0)
    unfinished = int(curve[-1]["epoch"]) < int(planned)
    return GuardRecord(verdict, settings.guard == "stop" and verdict.state == "stop" and unfinished, looks)


def guard_sentences(record: GuardRecord | None) -> Iterator[tuple[bool, str]]:
    """Yield whether it is bad news, and the sentence."""
    if record is None:
        return
    verdict = record.verdict
    if verdict.state == "ok":
        if record.looks > 1:
            yield False, f"While training, no watch metric parted from the reward ({record.looks} looks)."
        return
    reasons = "; ".join(f"{parting.reason} (from epoch {parting.epoch})" for parting in verdict.partings)
    if verdict.state == "stop":
        end = " The guard ended the run." if record.stopped else " The run went on."
        yield True, f"The reward was hacked: {reasons}.{end}"
    else:
        yield True, f"The reward may have been hacked: {reasons}, though not at several looks in a row."


def guard_criterion(record: GuardRecord) -> tuple[str, Literal["met", "open", "missed", "unknown"], str]:
    """Return criterion, state and detail for the table of verdicts."""
    criterion = "Pictures did not part from real ones while the reward rose"
    names = ", ".join(parting.metric.replace("_", " ") for parting in record.verdict.partings)
    if record.looks < 2:
        return criterion, "unknown", "only one look"
    detail = names or f"watched at {record.looks} looks"
    if record.verdict.state == "ok":
        return criterion, "met", detail
    return criterion, "missed" if record.verdict.state == "stop" else "open", detail
