"""From soft masks to where findings lie: the arithmetic that the region reward, its evaluator and its training share.

All of it is differentiable in the mask of the finding. The frame in which a place is read (lung fields, picture) is
taken as given, without a gradient: a picture is to move the finding, not the lungs around it.

Chest films. The midline is halfway between the centres of mass of the two lung fields; a side's score grows with the
share of the finding's mass beyond it and is 1/2 at the finding's border (1/2 of the mass, or what was learnt: the lead
of a pacemaker crosses over). Height in the lungs is t = 1/2 + (y - mean) / (sqrt(12) std) over the rows of both fields,
which runs from 0 to 1 for an even column; a zone's score is the share of the mass between its borders. Without visible
lung fields the picture's halves and thirds take their place. Size is the area over that of the lung fields; that of a
pneumothorax is the width of its rim, as in clinical use (British Thoracic Society guideline, Thorax 2010): the mean
over its mass of the mass in the same row, as a share of the picture's side.

Skin. Side and zone are read from the centre of mass, which a large lesion has too; size is the share of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from clinalign.data.places import KINDS, LESION_SIZES, OFF_CENTRE, SIZES, ZONES, Place
from clinalign.networks.place_rules import LUNGS, PlaceRules

SIZE_SOFTNESS = 0.15  # R: width of the soft step from one size to the next, in the logarithm of the area
CENTRE_SOFTNESS = 0.02  # R: the same for the position of a lesion, in sides of the picture
THIRDS = (1 / 3, 2 / 3)
RIMS = ("pneumothorax",)
EMPTY = 1e-6  # least mass, share of the picture, that is divided by


class Frame(NamedTuple):
    """Where the lungs of N pictures are; each ``(N,)``, lengths as fractions of the side."""

    midline: torch.Tensor
    top: torch.Tensor  # where t = 0
    height: torch.Tensor  # from t = 0 to t = 1
    area: torch.Tensor  # of both fields, share of the picture
    visible: torch.Tensor  # bool


class SoftPlace(NamedTuple):
    """How well each possible value of each clause describes one region in N pictures.

    Attributes:
        presence: ``(N,)`` in ``[0, 1]``: 1 from the rules' floor of area upwards, 0 where there is none.
        values: Kind (side, zone, size) to the values that can be told apart.
        scores: Kind to ``(N, V)`` in ``[0, 1]``, one column a value.
        likeliest: Kind to ``(N,)`` int64, the column of the value on whose side of the borders the finding lies;
            ``bilateral`` is never it.
    """

    presence: torch.Tensor
    values: dict[str, tuple[str, ...]]
    scores: dict[str, torch.Tensor]
    likeliest: dict[str, torch.Tensor]


Readings = tuple[dict[str, tuple[str, ...]], dict[str, torch.Tensor], dict[str, torch.Tensor]]


class Clauses(NamedTuple):
    """C stated clauses of a batch.

    Attributes:
        rows: ``(C,)`` int64, the picture that each is about.
        kinds: Side, zone or size.
        regions: The finding.
        scores: ``(C,)`` in ``[0, 1]``: presence times the score of the stated value.
    """

    rows: torch.Tensor
    kinds: list[str]
    regions: list[str]
    scores: torch.Tensor


def axis(size: int, device: torch.device) -> torch.Tensor:
    """Return the ``(size,)`` centres of the pixels as fractions of the side."""
    return (torch.arange(size, device=device) + 0.5) / size


def lung_frame(maps: torch.Tensor, names: Sequence[str], rules: PlaceRules) -> Frame:
    """Find the lungs in soft masks ``(N, R, H, W)``; without gradients."""
    with torch.no_grad():
        x, y = axis(maps.shape[3], maps.device), axis(maps.shape[2], maps.device)
        half = torch.full((len(maps),), 0.5, device=maps.device)
        nothing = torch.zeros_like(half)
        if not set(LUNGS) <= set(names):
            return Frame(half, nothing, torch.ones_like(half), nothing, nothing.bool())
        left, right = (maps[:, names.index(name)] for name in LUNGS)
        centres = [((side.sum(1) @ x) / side.sum((1, 2)).clamp_min(EMPTY)) for side in (left, right)]
        both = torch.maximum(left, right)
        area, rows = both.mean((1, 2)), both.sum(2)
        total = rows.sum(1).clamp_min(EMPTY)
        mean = (rows @ y) / total
        spread = ((rows @ y.square()) / total - mean.square()).clamp_min(1e-4).sqrt() * math.sqrt(12.0)
        visible = torch.minimum(left.mean((1, 2)), right.mean((1, 2))) >= rules.lung_area / 8
        return Frame(
            torch.where(visible, (centres[0] + centres[1]) / 2, half),
            torch.where(visible, mean - spread / 2, nothing),
            torch.where(visible, spread, torch.ones_like(half)),
            area,
            visible,
        )


def soft_place(maps: torch.Tensor, names: Sequence[str], region: str, rules: PlaceRules) -> SoftPlace:
    """Read the place of ``region`` from soft masks.

    Args:
        maps: ``(N, R, H, W)`` in ``[0, 1]``.
        names: The R regions.
        region: One of them.
        rules: Borders and floors.
    """
    found = maps[:, list(names).index(region)]
    share = found.mean((1, 2))
    presence = (share / rules.floors.get(region, rules.default_floor)).clamp(max=1.0)
    if rules.chest:
        frame = lung_frame(maps, list(names), rules)
        values, scores, likeliest = _chest_side_and_zone(found, frame, rules, rules.side_borders.get(region, 0.5))
        size, borders = chest_size(found, region, frame, rules.lung_area), rules.size_borders.get(region)
    else:
        values, scores, likeliest = _centre_side_and_zone(found)
        size, borders = share, LESION_SIZES
    if borders is not None:
        logarithm = size.clamp_min(EMPTY).log()
        values["size"] = SIZES
        scores["size"], likeliest["size"] = _between(logarithm, [math.log(b) for b in borders], SIZE_SOFTNESS)
    return SoftPlace(presence, values, scores, likeliest)


def score_clauses(
    maps: torch.Tensor,
    names: Sequence[str],
    rules: PlaceRules,
    places: Sequence[Sequence[Place]],
    hard: bool = False,
) -> Clauses:
    """Score every clause that can be scored.

    Args:
        maps: ``(N, R, H, W)`` in ``[0, 1]``.
        names: The R regions.
        rules: Borders and floors.
        places: What is stated of each picture, N long.
        hard: 1 where the finding is there (presence at least 1/2) and the stated value is the likeliest, else 0;
            without it the soft score.

    Returns:
        The clauses of regions among ``names``, in the order of the pictures; a size without known borders is left out.
    """
    rows: list[int] = []
    kinds: list[str] = []
    regions: list[str] = []
    scores: list[torch.Tensor] = []
    for region in names:
        stated = [(row, place) for row, said in enumerate(places) for place in said if place.region == region]
        if not stated:
            continue
        soft = soft_place(maps[[row for row, _ in stated]], names, region, rules)
        for index, (row, place) in enumerate(stated):
            for kind, value in place.clauses().items():
                if value in soft.values.get(kind, ()):
                    rows.append(row)
                    kinds.append(kind)
                    regions.append(region)
                    scores.append(_clause(soft, index, kind, value, hard))
    order = sorted(range(len(rows)), key=lambda i: (rows[i], KINDS.index(kinds[i])))
    joined = torch.stack([scores[i] for i in order]) if scores else maps.new_zeros(0)
    return Clauses(
        torch.tensor([rows[i] for i in order], dtype=torch.int64, device=maps.device),
        [kinds[i] for i in order],
        [regions[i] for i in order],
        joined,
    )


def _clause(soft: SoftPlace, index: int, kind: str, value: str, hard: bool) -> torch.Tensor:
    """Score one clause of picture ``index``, a scalar."""
    scores, values = soft.scores[kind][index], soft.values[kind]
    if not hard:
        return soft.presence[index] * scores[values.index(value)]
    if value == "bilateral":
        agreed = scores[values.index(value)] >= 0.5
    else:
        agreed = soft.likeliest[kind][index] == values.index(value)
    return (agreed & (soft.presence[index] >= 0.5)).float()


def left_share(found: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Return the ``(N,)`` share of the mass ``(N, H, W)`` on the patient's left, which is the picture's right."""
    x = axis(found.shape[2], found.device)
    beyond = (found.sum(1) * (x[None] > frame.midline[:, None])).sum(1)
    return beyond / found.sum((1, 2)).clamp_min(EMPTY)


def centre_height(found: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Return the ``(N,)`` height of the centre of mass of ``(N, H, W)`` in the lungs, 0 top to 1 bottom."""
    centre = (found.sum(2) @ axis(found.shape[1], found.device)) / found.sum((1, 2)).clamp_min(EMPTY)
    return (centre - frame.top) / frame.height


def chest_size(found: torch.Tensor, region: str, frame: Frame, lung_area: float) -> torch.Tensor:
    """Return the ``(N,)`` size of ``region``: rim width, or area over the lung fields' (the usual one if unseen)."""
    if region in RIMS:
        rows = found.sum(2)
        return rows.square().sum(1) / rows.sum(1).clamp_min(EMPTY) / found.shape[2]
    lungs = torch.where(frame.visible, frame.area, torch.full_like(frame.area, lung_area))
    return found.mean((1, 2)) / lungs


def _chest_side_and_zone(found: torch.Tensor, frame: Frame, rules: PlaceRules, border: float) -> Readings:
    """Score sides and zones by the mass ``(N, H, W)`` on either side of the midline and in each zone."""
    share = left_share(found, frame)
    left = torch.where(share < border, share / (2 * border), 0.5 + (share - border) / (2 * (1 - border)))
    # R: whole when a quarter of the mass lies on the lesser side
    bilateral = (4.0 * torch.minimum(share, 1.0 - share)).clamp(max=1.0)
    t = (axis(found.shape[1], found.device)[None] - frame.top[:, None]) / frame.height[:, None]
    low, high = (torch.where(frame.visible, rules.zone_borders[k], THIRDS[k])[:, None] for k in (0, 1))
    rows, mass = found.sum(2), found.sum((1, 2)).clamp_min(EMPTY)
    zones = [(rows * inside).sum(1) / mass for inside in (t < low, (t >= low) & (t < high), t >= high)]
    return (
        {"side": ("left", "right", "bilateral"), "zone": ZONES},
        {"side": torch.stack([left, 1.0 - left, bilateral], 1), "zone": torch.stack(zones, 1)},
        {"side": (share < border).long(), "zone": torch.stack(zones, 1).argmax(1)},
    )


def _centre_side_and_zone(found: torch.Tensor) -> Readings:
    """Soft decisions on the centre of mass of ``(N, H, W)``."""
    mass = found.sum((1, 2)).clamp_min(EMPTY)
    across = (found.sum(1) @ axis(found.shape[2], found.device)) / mass - 0.5
    down = (found.sum(2) @ axis(found.shape[1], found.device)) / mass - 0.5
    borders = [-OFF_CENTRE, OFF_CENTRE]
    sides, zones = (_between(centre, borders, CENTRE_SOFTNESS) for centre in (across, down))
    return (
        {"side": ("left", "central", "right"), "zone": ZONES},
        {"side": sides[0], "zone": zones[0]},
        {"side": sides[1], "zone": zones[1]},
    )


def _between(values: torch.Tensor, borders: Sequence[float], softness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Place ``values`` ``(N,)`` below, between and above two borders.

    Returns:
        ``(N, 3)`` soft membership, which rows share out to 1, and ``(N,)`` the column in which the value lies.
    """
    first, second = ((values - border) / softness for border in borders)
    # Not 1 - sigmoid(z): far from the border that is 0 in float32, and a product with it has no gradient.
    soft = torch.stack([torch.sigmoid(-first), torch.sigmoid(first) - torch.sigmoid(second), torch.sigmoid(second)], 1)
    return soft, (first >= 0).long() + (second >= 0).long()
