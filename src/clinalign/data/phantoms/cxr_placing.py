"""Where findings go: on the right side, in the right zone, and where they can be seen."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from clinalign.data.phantoms.cxr_anatomy import Anatomy, regions_of

Parameters = dict[str, float]
Slot = tuple[float, int]  # side (-1 the patient's right, +1 left), zone (0 upper, 1 middle, 2 lower)
_SLOTS: tuple[Slot, ...] = tuple((side, zone) for side in (-1.0, 1.0) for zone in range(3))
_ZONE_RANGE = ((0.17, 0.34), (0.40, 0.62), (0.69, 0.92))  # of the way from apex to dome, clear of the zones' borders
EFFUSION_HEIGHTS = ((0.125, 0.16), (0.18, 0.24), (0.28, 0.40))
PNEUMOTHORAX_WIDTHS = ((0.05, 0.065), (0.07, 0.095), (0.10, 0.14))


def collapse(parameters: Mapping[str, float], t: float) -> float:
    """Return how far the pleural line lies from the chest wall at ``t`` from apex (0) to base (1)."""
    if "pneumothorax_width" not in parameters:
        return 0.0
    return parameters["pneumothorax_width"] * math.sqrt(max(0.0, 1.0 - t / parameters["pneumothorax_reach"]))


def _side(rng: np.random.Generator) -> float:
    return -1.0 if rng.uniform() < 0.5 else 1.0


def _find_place(
    rng: np.random.Generator, anatomy: Anatomy, taken: set[Slot], found: Parameters, radius: float
) -> tuple[Slot, float, float]:
    """Choose a free slot and a point in it whose disc of ``radius`` lies in visible lung."""
    order = [_SLOTS[index] for index in rng.permutation(len(_SLOTS))]
    place, where = rng.uniform(), rng.uniform()
    best: tuple[float, Slot, float, float] | None = None
    across = np.linspace(0.0, anatomy.chest, 64, dtype=np.float32)
    for slot in (slot for slot in order if slot not in taken):
        side, zone = slot
        dome = anatomy.dome_right if side < 0 else anatomy.dome_left
        low, high = _ZONE_RANGE[zone]
        levels = np.linspace(low, high, 9)
        for level in np.roll(levels, int(9 * place)):
            v = anatomy.apex + float(level) * (dome - anatomy.apex)
            share = (v - anatomy.apex) / (anatomy.base - anatomy.apex)
            regions = regions_of(anatomy, across * np.float32(side), np.full_like(across, v))
            free = np.minimum(regions.lung, regions.inside - collapse(found, share)) > radius
            columns = across[free]
            if columns.size:
                return slot, float(columns[int(where * columns.size)]) * side, v
            room = float(regions.lung.max())
            if best is None or room > best[0]:
                best = (room, slot, float(across[int(regions.lung.argmax())]) * side, v)
    assert best is not None  # effusion, pneumothorax and one more finding take at most five of the six slots
    return best[1:]


def place_findings(seed: int, anatomy: Anatomy, attributes: Mapping[str, int]) -> Parameters:
    """Draw side, zone, place, extent and strength of every finding that is present.

    Effusion, pneumothorax and device come first and claim their zones; consolidation and nodule then take free zones,
    so that none hides behind another.

    Args:
        seed: Seeds one stream for each finding, so that findings do not disturb one another.
        anatomy: The chest to place them in.
        attributes: Which findings are present.

    Returns:
        Numbers named ``<finding>_<what>``; lengths in picture widths, ``u`` and ``v`` in the patient's frame.
    """
    names = ("effusion", "pneumothorax", "device", "consolidation", "nodule")
    streams = {name: np.random.default_rng([seed, index]) for index, name in enumerate(names)}
    found: Parameters = {}
    taken: set[Slot] = set()
    if attributes["effusion"]:
        rng = streams["effusion"]
        side, extent = _side(rng), int(rng.choice(3, p=(0.4, 0.4, 0.2)))
        found |= {
            "effusion_side": side,
            "effusion_extent": float(extent),
            "effusion_height": float(rng.uniform(*EFFUSION_HEIGHTS[extent])),
            "effusion_strength": float(rng.uniform(0.26, 0.36)),
        }
        taken |= {(side, 2)} | ({(side, 1)} if extent == 2 else set())
    if attributes["pneumothorax"]:
        rng = streams["pneumothorax"]
        side, extent = _side(rng), int(rng.choice(3, p=(0.35, 0.4, 0.25)))
        found |= {
            "pneumothorax_side": side,
            "pneumothorax_extent": float(extent),
            "pneumothorax_width": float(rng.uniform(*PNEUMOTHORAX_WIDTHS[extent])),
            "pneumothorax_reach": float(rng.uniform(0.7, 1.0)),
            "pneumothorax_strength": float(rng.uniform(0.14, 0.2)),
        }
        taken |= {(side, 0)}
    if attributes["device"]:
        rng = streams["device"]
        kind = int(rng.choice(3, p=(0.5, 0.25, 0.25)))
        # Most pacemakers are implanted on the left, most catheters go in on the right.
        side = 1.0 if rng.uniform() < (0.75 if kind == 0 else 0.3) else -1.0
        found |= {
            "device_kind": float(kind),
            "device_side": side,
            "device_u": side * float(rng.uniform(0.19, 0.24)),
            "device_v": float(rng.uniform(-0.21, -0.14)),
            "device_size": float(rng.uniform(0.9, 1.2)),
            "device_tilt": float(rng.uniform(-0.5, 0.5)),
            "device_strength": float(rng.uniform(0.45, 0.7)),
        }
        taken |= {(side, 0)} if kind < 2 else set()
    if attributes["consolidation"]:
        rng = streams["consolidation"]
        radius = float(rng.uniform(0.075, 0.12))
        (side, zone), u, v = _find_place(rng, anatomy, taken, found, 0.5 * radius)
        found |= {
            "consolidation_side": side,
            "consolidation_zone": float(zone),
            "consolidation_u": u,
            "consolidation_v": v,
            "consolidation_radius": radius,
            "consolidation_strength": float(rng.uniform(0.26, 0.38)),
            "consolidation_texture": float(rng.integers(2**31)),
        }
        taken |= {(side, zone)}
    if attributes["nodule"]:
        rng = streams["nodule"]
        radius = float(rng.uniform(0.032, 0.052))
        (side, zone), u, v = _find_place(rng, anatomy, taken, found, radius + 0.008)
        found |= {
            "nodule_side": side,
            "nodule_zone": float(zone),
            "nodule_u": u,
            "nodule_v": v,
            "nodule_radius": radius,
            "nodule_strength": float(rng.uniform(0.32, 0.46)),
        }
    return found
