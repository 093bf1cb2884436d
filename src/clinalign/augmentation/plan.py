"""How many images to generate for which cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clinalign.augmentation.cells import Cell, CellCount
from clinalign.core.errors import UserError


@dataclass(frozen=True)
class PlanRules:
    """When a cell is rare, and how far it is filled.

    Attributes:
        minimum: A cell with fewer real training images is rare and is filled up to this number; ``None`` takes
            ``share`` of the largest cell.
        share: See ``minimum``.
        ratio: Most generated images for each real one.
        cap: Most generated images of a cell.
        oversample: Pictures drawn for each one wanted, because the filter drops some.
        measurable: Fewest real images of a cell to measure the fidelity of its generated images against.
    """

    minimum: int | None = None
    share: float = 0.25
    ratio: float = 5.0
    cap: int = 1000
    oversample: float = 2.0
    measurable: int = 10

    def __post_init__(self) -> None:
        """Refuse what makes no plan.

        Raises:
            UserError: Naming the option.
        """
        if self.minimum is not None and self.minimum < 1:
            raise UserError(f"--minimum {self.minimum}: write a number of images of at least 1")
        if not 0 < self.share <= 1:
            raise UserError(f"--share {self.share:g}: write a share of the largest cell, above 0 and at most 1")
        if not 0 < self.ratio < math.inf:
            raise UserError(f"--ratio {self.ratio:g}: write a number above 0, generated images for each real one")
        if self.cap < 1:
            raise UserError(f"--cap {self.cap}: write a number of images of at least 1")
        if not 1 <= self.oversample < math.inf:
            raise UserError(f"--oversample {self.oversample:g}: write a number of at least 1")
        if self.measurable < 2:
            raise UserError(f"--measurable {self.measurable}: a distance needs at least 2 real images")

    def threshold(self, counts: Sequence[CellCount]) -> int:
        """Return the number of real images below which a cell is rare."""
        if self.minimum is not None:
            return self.minimum
        return math.ceil(self.share * max(count.images for count in counts))


@dataclass(frozen=True)
class CellPlan:
    """What is planned for a cell.

    Attributes:
        cell: The cell.
        real: Real training images.
        groups: Their patients or lesions.
        rare: Fewer than the threshold.
        wanted: Generated images to add; 0 where it is not rare or refused.
        candidates: Pictures to draw before the filter.
        refused: Why a rare cell is not filled; empty where it is.
    """

    cell: Cell
    real: int
    groups: int
    rare: bool
    wanted: int
    candidates: int
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what ``plan.json`` says of the cell."""
        return {
            "cell": self.cell.name,
            "class": self.cell.class_name,
            "subgroup": dict(self.cell.values),
            "real": self.real,
            "groups": self.groups,
            "rare": self.rare,
            "wanted": self.wanted,
            "candidates": self.candidates,
            "refused": self.refused,
        }


def plan_cells(
    counts: Sequence[CellCount], rules: PlanRules, unmeasured: dict[str, str], fill_unmeasured: bool = False
) -> list[CellPlan]:
    """Plan every cell.

    Args:
        counts: Real training images of every cell.
        rules: See :class:`PlanRules`.
        unmeasured: Class or name of a subgroup attribute to the reason why the judge cannot tell it.
        fill_unmeasured: Fill cells whose fidelity cannot be measured all the same; the caller has to tell.

    Returns:
        One plan a cell, in the order of ``counts``.
    """
    threshold = rules.threshold(counts)
    plans = []
    for count in counts:
        rare = count.images < threshold
        reason = unmeasured_reason(count, rules, unmeasured) if rare else ""
        if rare and not count.images:
            reason = "no training case to take a prompt from"  # which no option can override
        elif fill_unmeasured:
            reason = ""
        wanted = 0
        if rare and not reason:
            wanted = min(threshold - count.images, math.floor(rules.ratio * count.images), rules.cap)
            reason = "" if wanted else f"--ratio {rules.ratio:g} of {count.images} real images is less than one"
        candidates = math.ceil(rules.oversample * wanted)
        plans.append(CellPlan(count.cell, count.images, count.groups, rare, wanted, candidates, reason))
    return plans


def unmeasured_reason(count: CellCount, rules: PlanRules, unmeasured: dict[str, str]) -> str:
    """Return why the fidelity of a cell's generated images cannot be measured; empty where it can."""
    if count.images < rules.measurable:
        return f"{count.images} real images to measure against, {rules.measurable} needed"
    for name in (count.cell.class_name, *(column for column, _ in count.cell.values)):
        if name in unmeasured:
            return unmeasured[name]
    return ""
