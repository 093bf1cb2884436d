"""Borders between sides, zones and sizes, and the least area of each finding: learnt on the training split.

Nobody publishes how large a "small" effusion is. The borders, which the segmenter's card keeps, are those with the
fewest mistakes (mean over the two classes that meet there) against what the training cases state, read off the
network's own masks of them (R).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clinalign.core.files import hash_json
from clinalign.data.places import SIZES, ZONES

LUNGS = ("lung_left", "lung_right")
MINIMUM = 5  # cases on each side of a border, below which there is none
SIDE_BORDERS = (0.2, 0.8)  # a side's border stays within these
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlaceRules:
    """How places are read off masks.

    Attributes:
        chest: Sides are the patient's and read in the lung fields; otherwise the picture's.
        zone_borders: Heights in the lungs, 0 top to 1 bottom, between upper and middle, middle and lower.
        side_borders: Region to the share of the mass on the patient's left that is as likely left as right; 1/2 unless
            given.
        size_borders: Region to the two sizes (:func:`clinalign.networks.region_places.chest_size`) between small,
            moderate and large; a region that is missing has sizes that cannot be told. Unused for skin, whose borders
            are fixed.
        floors: Region to the share of the picture from which on it counts as fully there.
        default_floor: That of a region without one.
        lung_area: Usual area of both lung fields, share of the picture.
    """

    chest: bool = False
    zone_borders: tuple[float, float] = (1 / 3, 2 / 3)
    side_borders: Mapping[str, float] = field(default_factory=dict)
    size_borders: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    default_floor: float = 0.01
    lung_area: float = 0.3

    @property
    def identity(self) -> str:
        """Eight hexadecimal digits that change with any rule."""
        return hash_json(asdict(self), length=8)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a card."""
        return asdict(self)

    @classmethod
    def from_json(cls, card: Mapping[str, Any]) -> PlaceRules:
        """Read what :meth:`to_json` wrote; raises ``KeyError``, ``TypeError`` or ``ValueError`` when it is damaged."""
        low, high = card["zone_borders"]
        sizes = {name: (float(a), float(b)) for name, (a, b) in card["size_borders"].items()}
        return cls(
            bool(card["chest"]),
            (float(low), float(high)),
            {name: float(value) for name, value in card["side_borders"].items()},
            sizes,
            {name: float(value) for name, value in card["floors"].items()},
            float(card["default_floor"]),
            float(card["lung_area"]),
        )


@dataclass
class Sighting:
    """One finding in one training picture.

    Attributes:
        region: Its name.
        true_area: Share of the picture that its true mask covers, above 0.
        left: Share of the mass of the network's mask on the patient's left.
        height: Height of its centre of mass in the lungs, 0 top to 1 bottom.
        size_measure: Its size, see :class:`PlaceRules`.
        side: What is stated of it.
        zone: What is stated of it.
        size: What is stated of it.
    """

    region: str
    true_area: float
    left: float
    height: float
    size_measure: float
    side: str | None = None
    zone: str | None = None
    size: str | None = None


def fit_rules(sightings: Sequence[Sighting], chest: bool, lung_area: float) -> PlaceRules:
    """Find the borders that agree best with what is stated.

    Args:
        sightings: Findings of the training split.
        chest: See :class:`PlaceRules`.
        lung_area: Usual area of both lung fields, share of the picture.

    Returns:
        The rules. A floor is half the area that 95 of 100 true masks of the region exceed (R).
    """
    regions = sorted({sighting.region for sighting in sightings})
    floors, sides, sizes = {}, {}, {}
    for region in regions:
        own = [sighting for sighting in sightings if sighting.region == region]
        floors[region] = float(np.quantile([sighting.true_area for sighting in own], 0.05)) / 2
        if not chest:
            continue
        right, left = (np.array([s.left for s in own if s.side == side]) for side in ("right", "left"))
        if min(len(right), len(left)) >= MINIMUM:
            sides[region] = float(np.clip(best_border(right, left), *SIDE_BORDERS))
        borders = _borders([(s.size_measure, s.size) for s in own if s.size is not None], SIZES)
        if borders is not None and borders[0] > 0:
            sizes[region] = borders
    zones = _borders([(s.height, s.zone) for s in sightings if s.zone is not None], ZONES) if chest else None
    return PlaceRules(
        chest, zones or (1 / 3, 2 / 3), sides, sizes, floors, min(floors.values(), default=0.01), lung_area
    )


def _borders(pairs: Sequence[tuple[float, str]], values: Sequence[str]) -> tuple[float, float] | None:
    """Return the two borders between three ordered values, or ``None`` where there are too few cases or no order."""
    groups = [np.array([number for number, value in pairs if value == name]) for name in values]
    if min(len(group) for group in groups) < MINIMUM:
        return None
    low, high = best_border(groups[0], groups[1]), best_border(groups[1], groups[2])
    return (low, high) if low < high else None


def best_border(below: Floats, above: Floats) -> float:
    """Return the number that best parts two samples: the least mean of the two shares on the wrong side.

    Args:
        below: Numbers that should lie below.
        above: Numbers that should lie above.

    Returns:
        The middle of the gaps that do equally well.
    """
    points = np.unique(np.concatenate([below, above]))
    if len(points) == 1:
        return float(points[0])
    gaps = (points[1:] + points[:-1]) / 2
    wrong = [(below >= gap).mean() + (above < gap).mean() for gap in gaps]
    best = np.flatnonzero(np.isclose(wrong, min(wrong)))
    return float((gaps[best[0]] + gaps[best[-1]]) / 2)
