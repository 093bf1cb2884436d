"""What a privacy evaluation writes: entries, the closest pairs with their pictures, the members most exposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clinalign.core.files import write_json
from clinalign.core.images import to_pil
from clinalign.core.neighbours import nearest_neighbours
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.privacy.duplicates import closest_pairs
from clinalign.evaluation.privacy.entries import Looked, privacy_changes, privacy_entries
from clinalign.evaluation.suite import case_groups
from clinalign.generation.generator import Generator
from clinalign.workflows.drawing import Sampler, draw
from clinalign.workflows.evaluation_measure import Measured
from clinalign.workflows.evaluation_setup import EvaluateSettings
from clinalign.workflows.privacy import PrivacyBench
from clinalign.workflows.synthetic_images import save_synthetic

PRIVACY, PICTURES = "privacy.json", "privacy"
CLOSEST = 12  # pairs that are listed and shown
EXPOSED = 12
Redraw = Callable[[Sequence[int]], torch.Tensor]  # rows of the generated images to (N, 3, H, W) in [0, 1]


@dataclass(frozen=True)
class Inspected:
    """One set of generated images.

    Attributes:
        looked: What they gave away.
        measured: What they are.
        closest: Rows of those nearest to a training image, nearest first.
        pictures: ``(len(closest), 3, H, W)`` those images.
        model: What drew them.
    """

    looked: Looked
    measured: Measured
    closest: list[int]
    pictures: torch.Tensor
    model: str


def inspect(
    privacy: PrivacyBench,
    measured: Measured,
    redraw: Redraw,
    model: str,
    generator: Generator | None,
    settings: EvaluateSettings,
) -> Inspected:
    """Look at generated images.

    Args:
        privacy: What they are compared with.
        measured: What they gave.
        redraw: Returns the images of given rows once more: only the few that are shown are needed.
        model: What drew them, for the pictures' own text.
        generator: In the state that drew them; ``None`` for images of a folder.
        settings: Of the evaluation.
    """
    looked = privacy.look(measured, generator, settings.seed)
    closest = closest_pairs(looked.near, CLOSEST)
    pictures = redraw(closest) if settings.real_images else torch.empty(0)
    return Inspected(looked, measured, closest, pictures, model)


def redrawing(
    generator: Generator, measured: Measured, members: int, sampler: Sampler, settings: EvaluateSettings
) -> Redraw:
    """Draw images of the evaluation again, by the seeds of their cases."""

    def again(rows: Sequence[int]) -> torch.Tensor:
        cases = [measured.cases[row] for row in rows]
        seeds = [
            derive_seed(settings.seed, "evaluate", case.case_id, row % members)
            for row, case in zip(rows, cases, strict=True)
        ]
        texts = [case.text for case in cases]
        return torch.cat(list(draw(generator, texts, seeds, sampler, settings.batch_size, "drawing again")))

    return again


def privacy_results(
    privacy: PrivacyBench,
    sides: dict[str, Inspected],
    real: Sequence[Case],
    folder: Path | None,
    images: str,
    with_real: bool,
) -> Entries:
    """Return the entries, and write ``privacy.json`` with its pictures.

    Args:
        privacy: What was compared with.
        sides: ``{"": images}`` of one generator, or ``base`` and ``tuned``.
        real: The cases of the evaluation, whose real images are the null.
        folder: Output of the evaluation; ``None`` writes nothing.
        images: Name of its folder of pictures.
        with_real: Write pictures; a near duplicate and the patient beside it are never for passing on without leave.
    """
    entries: Entries = {}
    for side, inspected in sides.items():
        found = privacy_entries(inspected.looked, privacy.reference)
        entries |= {f"{side}/{key}" if side else key: entry for key, entry in found.items()}
    null = privacy_entries(privacy.strangers(real), privacy.reference)
    entries |= {f"real/{key}": entry for key, entry in null.items()}
    if "base" in sides and "tuned" in sides:
        entries |= privacy_changes(sides["base"].looked, sides["tuned"].looked, privacy.reference)
    if folder is not None:
        content = {
            side or "images": _side(privacy, inspected, folder, f"{images}/{PICTURES}/{side or 'images'}", with_real)
            for side, inspected in sides.items()
        }
        write_json(folder / PRIVACY, {**privacy.facts, "sides": content})
    return entries


def _side(privacy: PrivacyBench, inspected: Inspected, folder: Path, place: str, with_real: bool) -> dict[str, Any]:
    """List the closest pairs and the members most exposed, and write the pictures of the former."""
    looked, measured, rows = inspected.looked, inspected.measured, inspected.closest
    features = measured.features[privacy.space][rows]
    groups = [case_groups(measured.cases)[row] for row in rows]
    unseen = nearest_neighbours(
        features, privacy.reference.held_out.features, query_groups=groups,
        reference_groups=privacy.reference.held_out.groups,
    )  # fmt: skip
    pairs = []
    for number, row in enumerate(rows):
        trained = int(looked.near.row[row])
        member, stranger = privacy.train[trained], privacy.held_out[int(unseen.row[number, 0])]
        pair: dict[str, Any] = {
            "prompt_case_id": measured.cases[row].case_id,
            "text": measured.cases[row].text,
            "image": row,
            "train_case_id": member.case_id,
            "held_out_case_id": stranger.case_id,
            "nearness": round(float(looked.near.value[row]), 5),
            "near_duplicate": bool(looked.duplicates[row]),
            "copies": int(((looked.near.row == trained) & looked.duplicates.bool()).sum()),
        }
        if with_real:
            pictures = privacy.dataset.images([member, stranger])
            pair["pictures"] = {name: f"{place}/{number:02d}_{name}.png" for name in ("generated", "train", "held_out")}
            (folder / place).mkdir(parents=True, exist_ok=True)
            facts = {"model": inspected.model, "case_id": measured.cases[row].case_id}
            save_synthetic(inspected.pictures[number], folder / pair["pictures"]["generated"], facts)
            for name, picture in zip(("train", "held_out"), to_pil(pictures), strict=True):
                picture.save(folder / pair["pictures"][name])
        pairs.append(pair)
    return {
        "pairs": pairs,
        "exposed_by_pictures": _exposed(privacy.train, looked.scores[: len(privacy.train)]),
        "exposed_by_loss": []
        if looked.loss is None
        else _exposed(privacy.asked[: privacy.asked_members], looked.loss.scores[: privacy.asked_members]),
    }


def _exposed(members: Sequence[Case], scores: torch.Tensor) -> list[dict[str, Any]]:
    """List the members with the highest scores, highest first."""
    order = scores.argsort(descending=True, stable=True)[:EXPOSED]
    return [{"case_id": members[row].case_id, "score": round(float(scores[row]), 5)} for row in order.tolist()]
