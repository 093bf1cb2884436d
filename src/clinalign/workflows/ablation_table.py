"""The table of an ablation, with the paper's own beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import t as student  # type: ignore[import-untyped]

# Metric of `metrics.json`: heading, decimals, whether more is better.
COLUMNS: Mapping[str, tuple[str, int, bool]] = {
    "alignment/posture": ("posture", 3, True),
    "alignment/auroc": ("AUROC", 3, True),
    "alignment/attribute_accuracy": ("accuracy", 3, True),
    "alignment/clip_score": ("image-text", 3, True),
    "alignment/region": ("place", 3, True),
    "fidelity/fid": ("FID", 2, False),
    "diversity/ms_ssim": ("MS-SSIM", 3, False),
    "diversity/feature_distance": ("feature distance", 2, True),
}

# Han et al., MICCAI 2024, as published; other data, models and metric networks, so no number compares with ours.
PAPER = """\
| CXRL as published | r_align | AUROC | CXR-CLIP | FID | MS-SSIM |
|---|---|---|---|---|---|
| RoentGen (anchor) | -0.363 | 0.65 | 0.285 | 2.58 | 0.197 |
| CXRL | -0.246 | 0.81 | 0.343 | 1.51 | 0.147 |
| without ACE | -0.354 | 0.66 | 0.321 | 1.79 | 0.192 |
| without RLCF | -0.319 | 0.71 | 0.301 | 1.58 | 0.188 |
| only r_align | | | | 1.89 | |
| only r_diag | | | | 1.64 | |
| only r_consist | | | | 1.92 | |
"""


def interval_over_seeds(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of a few seeds by Student's t; ``None`` for one seed."""
    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(student.ppf(0.975, count - 1)) * spread / math.sqrt(count)
    return mean - half, mean + half


def build_rows(labels: Mapping[str, str], found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row an arm, and one for the real images.

    Args:
        labels: Arm to its label, in the order of the rows.
        found: Arm to the entries of ``metrics.json`` of each seed.

    Returns:
        Rows with ``arm``, ``label`` and ``metrics``: key to ``mean``, ``ci95`` (of the mean over seeds; with one seed
        that of the images) and ``seeds``, each seed's value.
    """
    rows = []
    for arm, label in labels.items():
        metrics = {key: _entry([each[key] for each in found[arm]]) for key in COLUMNS if key in found[arm][0]}
        rows.append({"arm": arm, "label": label, "metrics": metrics})
    first = next(iter(found.values()))[0]
    real = {key: _entry([first[f"real/{key}"]]) for key in COLUMNS if f"real/{key}" in first}
    return [*rows, {"arm": "real", "label": "real images", "metrics": real}]


def _entry(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [float(entry["value"]) for entry in entries]
    around = interval_over_seeds(values) or tuple(entries[0]["ci95"])
    return {"mean": sum(values) / len(values), "ci95": list(around), "seeds": values}


def to_markdown(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """Return the table as Markdown: ours, what its intervals are, and the paper's."""
    keys = [key for key in COLUMNS if any(key in row["metrics"] for row in rows)]
    heading = " | ".join(f"{COLUMNS[key][0]} {'↑' if COLUMNS[key][2] else '↓'}" for key in keys)
    lines = [f"| arm | {heading} |", "|---|" + "---|" * len(keys)]
    for row in rows:
        cells = [_cell(row["metrics"].get(key), COLUMNS[key][1]) for key in keys]
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    note = (
        f"Means over {seeds} seeds of tuning with the 95 % interval of the mean (Student's t)"
        if seeds > 1
        else "One seed of tuning, with the bootstrap interval over its pictures"
    )
    return (
        "\n".join(lines) + f"\n\n{note}; anchor and real images: the bootstrap interval over pictures.\n\n"
        "The paper's own table, on other data with other models and metric networks; absolute numbers do not "
        "compare:\n\n" + PAPER
    )


def _cell(entry: Mapping[str, Any] | None, decimals: int) -> str:
    if entry is None:
        return ""
    low, high = entry["ci95"]
    return f"{entry['mean']:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
