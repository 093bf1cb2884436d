"""How well a segmenter finds regions and reads their places, on images that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from clinalign.core.types import Case
from clinalign.data.places import KINDS, Place
from clinalign.evaluation.intervals import mean_interval
from clinalign.evaluation.regions import clause_agreement, share_fulfilled
from clinalign.networks.fit import Labelled
from clinalign.networks.segmenter import Segmenter

CHUNK = 256


def dice(found: torch.Tensor, masks: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the Dice coefficient of each image and region, ``(N, R)``.

    Args:
        found: ``(N, R, H, W)`` bool.
        masks: ``(N, R, H, W)`` bool truth.
        known: ``(N, R)`` bool.

    Returns:
        2 |found and mask| / (|found| + |mask|), NaN where the mask is unknown or empty (an empty one has no Dice).
    """
    shared = (found & masks).sum((2, 3)).double()
    truth = masks.sum((2, 3))
    value = 2 * shared / (found.sum((2, 3)) + truth).clamp_min(1)
    return torch.where(known & (truth > 0), value, torch.nan)


def soft_dice(logits: torch.Tensor, masks: torch.Tensor, known: torch.Tensor) -> float:
    """Return the mean over regions of Dice over all known images: what early stopping follows; NaN without any."""
    weight = known[:, :, None, None]
    chance = torch.sigmoid(logits) * weight
    truth = masks * weight
    shared, total = (chance * truth).sum((0, 2, 3)), chance.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    each = (2 * shared / total)[truth.any(3).any(2).any(0)]
    return float(each.mean()) if len(each) else float("nan")


def measure(
    model: Segmenter, data: Labelled, cases: Sequence[Case], places: Sequence[Sequence[Place]]
) -> dict[str, Any]:
    """Measure ``model``.

    Args:
        model: A trained segmenter with its rules.
        data: Images and masks of the model's regions.
        cases: The cases of ``data``; intervals are drawn over their groups (patients or lesions).
        places: Where the findings of each truly lie.

    Returns:
        ``mean_dice``; ``regions``: name to ``dice`` (where there is one), ``found`` (share of images with the region in
        which its map reaches half of its floor) and ``false_alarms`` (the same where it is absent); ``agreement``:
        side, zone and size to the share of right readings, and under ``by_region`` the same for each finding. Each
        estimate is ``{"value", "ci95", "n"}``, ``None`` where it cannot be had.
    """
    groups = [case.group_id or case.case_id for case in cases]
    scores, there = [], []
    floors = torch.tensor([model.rules.floors.get(name, model.rules.default_floor) for name in model.regions])
    for start in range(0, len(data), CHUNK):
        rows = slice(start, start + CHUNK)
        with torch.no_grad():
            maps = model.maps(data.images[rows].float() / 255.0).cpu()
        scores.append(dice(maps > 0.5, data.labels[rows], data.known[rows]))
        there.append(maps.mean((2, 3)) >= floors / 2)
    table, seen = torch.cat(scores), torch.cat(there).double()
    present = data.labels.any(3).any(2)

    def estimate(values: torch.Tensor) -> dict[str, Any] | None:
        if values.isnan().all() or len(set(groups)) < 2:
            return None
        return mean_interval(values, groups=groups).to_json()

    regions = {}
    for k, name in enumerate(model.regions):
        known = data.known[:, k]
        regions[name] = {
            "dice": estimate(table[:, k]),
            "found": estimate(torch.where(known & present[:, k], seen[:, k], torch.nan)),
            "false_alarms": estimate(torch.where(known & ~present[:, k], seen[:, k], torch.nan)),
        }
    clauses, decided = clause_agreement(model, data.images.float() / 255.0, places)

    def agreement(kind: str, region: str | None = None) -> dict[str, Any] | None:
        chosen = [i for i, (_, k, r) in enumerate(clauses) if k == kind and region in (None, r)]
        return estimate(share_fulfilled([clauses[i][0] for i in chosen], decided[chosen], len(data)))

    defined = [row["dice"]["value"] for row in regions.values() if row["dice"]]
    overall = {kind: entry for kind in KINDS if (entry := agreement(kind)) is not None}
    by_region = {
        name: {kind: entry for kind in KINDS if (entry := agreement(kind, name)) is not None} for name in model.regions
    }
    return {
        "mean_dice": sum(defined) / len(defined) if defined else None,
        "regions": regions,
        "agreement": overall,
        "by_region": {name: row for name, row in by_region.items() if row},
    }
