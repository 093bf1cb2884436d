"""Drawing the pictures of an augmentation, and reading them back: an interrupted drawing goes on cell by cell."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clinalign.augmentation.arms import Side
from clinalign.augmentation.cells import members_of, strata
from clinalign.augmentation.plan import CellPlan
from clinalign.core.errors import UserError
from clinalign.core.files import folder_in_progress
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import read_pixels
from clinalign.generation.generator import Generator
from clinalign.workflows.augment_plan import Ground
from clinalign.workflows.augment_settings import AugmentSettings
from clinalign.workflows.drawing import Sampler, draw
from clinalign.workflows.synthetic_images import METADATA, image_name, saving

IMAGES = "images"
EVERY = "every_class"


@dataclass(frozen=True)
class Request:
    """One picture to draw.

    Attributes:
        case: Real training case that gives text and labels.
        member: Number of the picture among those of the case.
    """

    case: Case
    member: int

    def seed(self, seed: int) -> int:
        """Return the seed of its noise: the same for every generator and every cell."""
        return derive_seed(seed, "augment", self.case.case_id, self.member)


@dataclass(frozen=True)
class Batch:
    """The pictures of one cell, or of every class, by one generator.

    Attributes:
        requests: What was asked for, in order.
        images: ``(N, 3, H, W)`` uint8.
        folder: Where they lie.
    """

    requests: list[Request]
    images: torch.Tensor
    folder: Path


def cell_requests(ground: Ground, plan: CellPlan, seed: int) -> list[Request]:
    """Return the requests of a cell: its training cases in a random order, again and again."""
    rows = members_of(ground.cases["train"], ground.problem)[plan.cell]
    return _requests([ground.cases["train"][row] for row in rows], plan.candidates, derive_seed(seed, plan.cell.name))


def every_requests(ground: Ground, count: int, seed: int) -> list[Request]:
    """Return ``count`` requests of each class, from training cases as they come."""
    by_class: dict[str, list[Case]] = {}
    for case, (name, _) in zip(ground.cases["train"], strata(ground.cases["train"], ground.problem), strict=True):
        by_class.setdefault(name, []).append(case)
    return [
        request
        for name in sorted(by_class)
        for request in _requests(by_class[name], count, derive_seed(seed, EVERY, name), 1_000_000)
    ]


def _requests(cases: Sequence[Case], count: int, seed: int, first: int = 0) -> list[Request]:
    """Go round the cases; ``first`` numbers the pictures so that two uses of a case have noise of their own."""
    order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(derive_seed(seed, "prompts"))).tolist()
    return [Request(cases[order[number % len(order)]], first + number // len(order)) for number in range(count)]


def draw_batch(
    generator: Generator,
    anchor: bool,
    requests: list[Request],
    folder: Path,
    sampler: Sampler,
    settings: AugmentSettings,
    identity: str,
    words: str,
) -> Batch:
    """Draw pictures into ``folder``, or read them where they lie there already.

    Args:
        generator: The generator.
        anchor: Switch its adapter off.
        requests: What to draw.
        folder: Taken as a whole or not at all.
        sampler: How to draw.
        settings: Seed and batch size.
        identity: Of the generator, written beside every picture.
        words: Shown while drawing.

    Raises:
        UserError: When the folder holds other pictures, or one cannot be read.
    """
    rows = [
        {
            "text": request.case.text,
            "case_id": request.case.case_id,
            "member": request.member,
            "seed": request.seed(settings.seed),
            "model": identity,
        }
        for request in requests
    ]
    if not (folder / METADATA).is_file():
        seeds = [request.seed(settings.seed) for request in requests]
        texts = [request.case.text for request in requests]
        with folder_in_progress(folder) as place, generator.anchor() if anchor else nullcontext():
            for _ in saving(draw(generator, texts, seeds, sampler, settings.batch_size, words), place, rows):
                pass
    return Batch(requests, _read(folder, rows), folder)


def _read(folder: Path, rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Read the pictures of a folder, asserting that they are those that were asked for."""
    with (folder / METADATA).open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    keys = ("seed", "case_id", "model")
    if [[row[key] for key in keys] for row in found] != [[str(row[key]) for key in keys] for row in rows]:
        raise UserError(f"{folder} holds other pictures than those planned: delete it, or choose another --out")
    return torch.stack(
        [torch.from_numpy(read_pixels(folder / image_name(number))).permute(2, 0, 1) for number in range(len(rows))]
    )


def cell_folder(out: Path, side: Side, number: int, plan: CellPlan) -> Path:
    """Return where the pictures of a cell lie: its number, and its name as far as file systems allow."""
    return out / IMAGES / side / f"{number:02d}_{re.sub(r'[^A-Za-z0-9=.-]+', '_', plan.cell.name)}"
