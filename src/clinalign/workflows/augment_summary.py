"""What an augmentation found, in sentences for a reader: gains and failures in the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clinalign.augmentation.arms import ARMS
from clinalign.workflows.report_metrics import interval, value

POINT = 0.01
NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "even_balanced_accuracy": "balanced accuracy at an even prior",
    "auroc": "AUROC",
}
# From the strictest comparison to the loosest; the first that was made decides whether a cell was harmed.
HEADLINES = (
    ("tuned_balanced", "balanced"),
    ("tuned_balanced", "base_balanced"),
    ("tuned", "classical"),
    ("tuned", "base"),
    ("tuned_first_balanced", "balanced"),
    ("tuned_first", "classical"),
)


@dataclass(frozen=True)
class Statement:
    """One sentence.

    Attributes:
        kind: ``good``, ``bad`` or ``neutral``: how the report marks it.
        text: The sentence.
    """

    kind: Literal["good", "bad", "neutral"]
    text: str


def summarise(entries: Mapping[str, Mapping[str, Any]], details: Mapping[str, Any]) -> list[Statement]:
    """Return the sentences, the most important first.

    Args:
        entries: Content of ``augment.json``.
        details: Content of ``details.json``.
    """
    found = [statement for first, second in HEADLINES if (statement := _comparison(entries, first, second)) is not None]
    found += _cells(entries)
    found += _pictures(details)
    refused = not_filled(details)
    if refused:
        listed = "; ".join(f"{name} ({reason})" for name, reason in refused.items())
        found.append(Statement("neutral", f"Not filled: {listed}."))
    if details["fill_unmeasured"]:
        found.append(Statement("bad", "Cells whose fidelity could not be measured were filled, as asked."))
    if details["seeds"] < 5:
        found.append(Statement("neutral", f"{details['seeds']} training seeds: five are the least for a claim."))
    return found + [Statement("neutral", f"{note[0].upper()}{note[1:]}.") for note in details["notes"]]


def not_filled(details: Mapping[str, Any]) -> dict[str, str]:
    """Return every rare cell that got no tuned picture, with the reason."""
    found = {row["cell"]: row["refused"] for row in details["plan"]["cells"] if row["refused"]}
    for side, cells in details["cells"].items():
        found |= {
            (row["cell"] if side == "tuned" else f"{row['cell']} by {side}"): row["not_filled"]
            for row in cells
            if row["not_filled"]
        }
    return found


def _comparison(entries: Mapping[str, Mapping[str, Any]], first: str, second: str) -> Statement | None:
    """Say what an arm gained over another: overall and in the rare cells."""
    parts, kinds = [], []
    for region, where in (("", "overall"), ("/cell=filled", "in the filled cells")):
        for metric in ("even_balanced_accuracy", "auroc"):
            key = f"augment/change/{first}-{second}/{metric}{region}"
            gain, ends = value(entries, key), interval(entries, key)
            if gain is not None and ends is not None:
                parts.append(f"{where} {NAMES[metric]} {written_points(gain, ends)}")
                kinds.append("good" if ends[0] > 0 else "bad" if ends[1] < 0 else "neutral")
    if not parts:
        return None
    kind: Literal["good", "bad", "neutral"] = "neutral"
    if "bad" in kinds:
        kind = "bad"
    elif "good" in kinds:
        kind = "good"
    verdict = {"good": "better", "bad": "worse", "neutral": "no sure difference"}[kind]
    if "bad" in kinds and "good" in kinds:
        verdict = "better in one way and worse in another"
    return Statement(kind, f"“{ARMS[first].label}” against “{ARMS[second].label}”: {verdict}. {_sentence(parts)}")


def _cells(entries: Mapping[str, Mapping[str, Any]]) -> list[Statement]:
    """Say which cells fall by more than a point, by the strictest comparison that was made."""
    for first, second in HEADLINES:
        if second in ("base", "base_balanced"):
            continue
        found = []
        for metric in ("even_balanced_accuracy", "auroc"):
            head = f"augment/change/{first}-{second}/{metric}/"
            cells = {key.removeprefix(head): entry for key, entry in entries.items() if key.startswith(f"{head}cell=")}
            cells = {name: entry for name, entry in cells.items() if name not in ("cell=rare", "cell=filled")}
            if not cells:
                continue
            fallen = {name: entry for name, entry in cells.items() if entry["value"] < -POINT}
            sure = [name.removeprefix("cell=") for name, entry in fallen.items() if entry["ci95"][1] < 0]
            what = f"With “{ARMS[first].label}” against “{ARMS[second].label}”"
            if not fallen:
                found.append(Statement("good", f"{what}, no cell falls by more than one point of {NAMES[metric]}."))
            else:
                listed = ", ".join(
                    f"{name.removeprefix('cell=')} {written_points(entry['value'], entry['ci95'])} (n {entry['n']})"
                    for name, entry in sorted(fallen.items(), key=lambda item: float(item[1]["value"]))
                )
                told = f"beyond chance: {', '.join(sure)}" if sure else "none of them beyond chance"
                found.append(
                    Statement(
                        "bad",
                        f"{what}, {len(fallen)} of {len(cells)} cells {_verb(fallen)} by more than one point of "
                        f"{NAMES[metric]}: {listed}; {told}.",
                    )
                )
        return found
    return []


def _verb(fallen: Mapping[str, Any]) -> str:
    return "falls" if len(fallen) == 1 else "fall"


def _pictures(details: Mapping[str, Any]) -> list[Statement]:
    """Say how many pictures of each generator passed the filter."""
    parts = []
    for side, cells in details["cells"].items():
        drawn = sum(row["drawn"] for row in cells)
        wrong = sum(row["verdicts"]["not as asked"] for row in cells)
        copies = sum(
            row["verdicts"]["near a training image"] + row["verdicts"]["near another picture"] for row in cells
        )
        used = sum(row["used"] for row in cells)
        if drawn:
            parts.append(
                f"of {drawn} {side} pictures the judge passed {100 * (1 - wrong / drawn):.0f} %, {copies} of these "
                f"were near copies, and {used} were used"
            )
    return [Statement("neutral", f"{_sentence(parts)}")] if parts else []


def written_points(gain: float, ends: Sequence[float]) -> str:
    """Write a difference in points, such as ``+5.2 points [2.1, 8.3]``."""
    return f"{100 * gain:+.1f} points [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
