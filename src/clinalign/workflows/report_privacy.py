"""The privacy section of a report: sentences, and each suspicious picture beside the patient it resembles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from clinalign.core.errors import UserError
from clinalign.workflows.privacy_results import PRIVACY
from clinalign.workflows.report_findings import Finding
from clinalign.workflows.report_metrics import Metrics, bracket, interval, move, number, percents, value
from clinalign.workflows.report_pictures import inline
from clinalign.workflows.report_sources import Material, read_json

SHARE, COPIES, MATCHED = "privacy/nearest_train_share", "privacy/near_duplicates", "privacy/reidentified"
RATIO = "privacy/distance_ratio"
ATTACKS = {
    "privacy/membership_auc": "from the pictures alone",
    "privacy/membership_auc_loss": "from the model",
}
HEADINGS = {"base": "Before tuning", "tuned": "After tuning", "images": "These pictures"}
LABELS = {"generated": "Generated", "train": "Nearest trained on", "held_out": "Nearest held out"}
EXCLUDED = 0.05  # a rise of the share that must be excluded before tuning is called harmless (R)


@dataclass(frozen=True)
class Neighbour:
    """One generated picture with the real cases nearest to it.

    Attributes:
        text: Its prompt.
        pictures: Label and data URI, side by side.
        caption: How near, and whether that is nearer than strangers come.
    """

    text: str
    pictures: tuple[tuple[str, Markup], ...]
    caption: str


@dataclass(frozen=True)
class PrivacySection:
    """What the page shows.

    Attributes:
        findings: Sentences.
        rows: Heading and pictures of each generator, nearest first.
        held_out: Splits that the strangers come from.
        extractor: What pictures were compared by.
    """

    findings: tuple[Finding, ...]
    rows: tuple[tuple[str, tuple[Neighbour, ...]], ...]
    held_out: str
    extractor: str


def privacy_section(material: Material, real_images: bool = True) -> PrivacySection | None:
    """Build the section; ``None`` where privacy was not measured.

    Args:
        material: With an evaluation whose folder may hold ``privacy.json``.
        real_images: Show pictures. Without, there is none: a copy of a patient shows the patient.

    Raises:
        UserError: When the file cannot be used.
    """
    findings = tuple(privacy_findings(material.metrics, material.compared))
    content = read_json(material.pictures / PRIVACY)
    if not findings:
        return None
    if content is not None and (not isinstance(content, dict) or not isinstance(content.get("sides"), dict)):
        raise UserError(f"{material.pictures / PRIVACY} is not what `evaluate --privacy` writes: evaluate again")
    content = content or {}
    rows = []
    for side, found in content.get("sides", {}).items():
        shown = tuple(_neighbours(material.pictures, found.get("pairs", []))) if real_images else ()
        if shown:
            rows.append((HEADINGS.get(side, side), shown))
    splits = ", ".join(str(split) for split in content.get("held_out_splits", []))
    return PrivacySection(findings, tuple(rows), splits, str(content.get("extractor", "")))


def privacy_findings(metrics: Metrics, compared: bool) -> Iterator[Finding]:
    """Say in plain sentences what pictures give away, and whether tuning made that worse."""
    if compared:
        yield from _changes(metrics)
    generated = "tuned" if compared else "images"
    for key, how in ATTACKS.items():
        area, around = value(metrics, f"{generated}/{key}"), interval(metrics, f"{generated}/{key}")
        if area is None or around is None:
            continue
        told = f"{number(area)}{bracket(around)}, guessing 0.5"
        if around[0] > 0.5:
            yield Finding("bad", f"Training images can be told from unseen ones {how} (AUC {told}).")
        else:
            yield Finding("neutral", f"Training images are not told from unseen ones {how} (AUC {told}).")
    if not compared:
        share, around = value(metrics, f"images/{SHARE}"), interval(metrics, f"images/{SHARE}")
        if share is not None and around is not None:
            worse = around[0] > 0.5
            more = "more often than" if worse else "no more often than"
            text = f"Pictures are nearer to a training case than to a held-out one {more} by chance: in "
            yield Finding("bad" if worse else "neutral", text + f"{percents(share)[0]} %{bracket(around, 'percent')}.")
    for key, what in ((COPIES, "near duplicates of a training image"), (MATCHED, "matched to a training patient")):
        share, stranger = value(metrics, f"{generated}/{key}"), value(metrics, f"real/{key}")
        around, beside = interval(metrics, f"{generated}/{key}"), interval(metrics, f"real/{key}")
        if share is None or stranger is None or around is None or beside is None:
            continue
        shown = percents(share, stranger)
        text = (
            f"{shown[0]} %{bracket(around, 'percent')} of pictures are {what}; of unseen real images {shown[1]} % are."
        )
        yield Finding("bad" if around[0] > beside[1] else "neutral", text)


def _changes(metrics: Metrics) -> Iterator[Finding]:
    """Say whether tuning made memorisation worse."""
    change = move(metrics, SHARE)
    if change is None:
        return
    strangers = value(metrics, f"real/{SHARE}")
    shown = percents(change.after, change.before, *([] if strangers is None else [strangers]))
    beside = "" if strangers is None else f"; of unseen real images {shown[2]} %"
    compared = f"{shown[0]} % of them are nearer to a training case, before {shown[1]} %{beside}; chance is 50 %"
    within = (
        ""
        if change.low is None or change.high is None
        else (f" (change {100 * change.difference:+.1f} points [{100 * change.low:.1f}, {100 * change.high:.1f}])")
    )
    if change.rose:
        text = "Tuning moved pictures towards training cases, a sign of memorisation"
        yield Finding("bad", f"{text}: {compared}{within}.")
    elif change.high is None or change.high > EXCLUDED:
        yield Finding(
            "neutral", f"Whether tuning moved pictures towards training cases is not sure: {compared}{within}."
        )
    else:
        text = "Tuning did not make pictures closer to training cases than to held-out ones"
        yield Finding("good", f"{text}: {compared}{within}.")
    ratio = interval(metrics, f"change/{RATIO}")
    old, new = value(metrics, f"base/{RATIO}"), value(metrics, f"tuned/{RATIO}")
    if ratio is not None and old is not None and new is not None and ratio[1] < 0:
        told = f"the ratio of the two distances fell from {number(old)} to {number(new)}; 1 is without memorisation"
        yield Finding("bad", f"Pictures came nearer to training cases than to held-out ones: {told}.")
    for key, what in ((COPIES, "near duplicates of training images"), (MATCHED, "matches to training patients")):
        moved = move(metrics, key)
        if moved is not None and moved.rose:
            after, before = percents(moved.after, moved.before)
            yield Finding("bad", f"Tuning made {what} more frequent: {after} % instead of {before} %.")


def _neighbours(folder: Path, pairs: list[Mapping[str, Any]]) -> Iterator[Neighbour]:
    """Inline the pictures of each pair that has them."""
    for pair in pairs:
        names = pair.get("pictures") or {}
        pictures = []
        for name, label in LABELS.items():
            path = folder / str(names.get(name, "none"))
            if path.resolve().is_relative_to(folder.resolve()) and (uri := inline(path)) is not None:
                pictures.append((label, uri))
        if pictures:
            found = "Near duplicate" if pair.get("near_duplicate") else "No near duplicate"
            told = f"{found}: {number(pair['nearness'])} of the distance to unseen cases"
            yield Neighbour(str(pair.get("text", "")), tuple(pictures), told)
