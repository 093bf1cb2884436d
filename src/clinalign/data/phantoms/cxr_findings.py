"""What each finding adds to the film, and the exact mask of where it lies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from clinalign.data.phantoms.cxr_anatomy import Anatomy, Regions, ramp, smooth_max
from clinalign.data.phantoms.cxr_film import band
from clinalign.data.phantoms.types import BoolImage, FloatImage

Finding = tuple[FloatImage, BoolImage]  # whiteness to add, and mask


def effusion(anatomy: Anatomy, regions: Regions, numbers: Mapping[str, float], film: FloatImage) -> Finding:
    """Fluid with a meniscus: it fills the costophrenic angle and climbs along the chest wall."""
    side, height = np.float32(numbers["effusion_side"]), numbers["effusion_height"]
    out = np.clip(regions.u * side * np.float32(1 / anatomy.chest), 0, 1)
    level = np.float32(anatomy.base - 0.5 * height) - np.float32(0.5 * height) * out**3
    below, same = regions.v - level, regions.u * side
    # Fluid is as white as the abdomen below it, so that the diaphragm's outline is lost.
    target = np.float32(0.50 + numbers["effusion_strength"])
    fluid = ramp(below, 0.022) * ramp(np.minimum(regions.lung + np.float32(0.014), same), 0.014)
    return fluid * np.maximum(target - film, 0), (np.minimum(below, same) > 0) & (regions.lung > 0)


def consolidation(anatomy: Anatomy, regions: Regions, numbers: Mapping[str, float]) -> Finding:
    """Air spaces filled in patches, with no sharp border but where they meet heart, diaphragm or chest wall."""
    rng = np.random.default_rng(int(numbers["consolidation_texture"]))
    radius = numbers["consolidation_radius"]
    density = np.zeros_like(regions.u)
    patches = 8
    angles = rng.uniform(0, 2 * np.pi, patches)
    for index in range(patches):
        away = 0.0 if index == 0 else radius * rng.uniform(0.4, 0.9)
        du = regions.u - np.float32(numbers["consolidation_u"] + away * np.cos(angles[index]))
        dv = regions.v - np.float32(numbers["consolidation_v"] + away * np.sin(angles[index]))
        width = radius * (0.55 if index == 0 else rng.uniform(0.25, 0.5))
        density += np.float32(rng.uniform(0.5, 0.9)) * np.exp((du * du + dv * dv) * np.float32(-1 / width**2))
    same = regions.u * np.float32(numbers["consolidation_side"])
    lung = ramp(np.minimum(regions.lung, same), 0.014)
    density = (1 - np.exp(np.float32(-1.6) * density)) * lung
    return np.float32(numbers["consolidation_strength"] / 0.8) * density, density > np.float32(0.4)


def pneumothorax(anatomy: Anatomy, regions: Regions, numbers: Mapping[str, float]) -> Finding:
    """Air between chest wall and lung: a black rim without vessels, a fine white pleural line, a denser lung."""
    t = (regions.v - np.float32(anatomy.apex)) * np.float32(1 / (anatomy.base - anatomy.apex))
    open_share = np.sqrt(np.clip(1 - t * np.float32(1 / numbers["pneumothorax_reach"]), 0, 1))
    width = np.float32(numbers["pneumothorax_width"]) * open_share
    same = regions.u * np.float32(numbers["pneumothorax_side"])
    # The lung falls away from the apex too, more than from the side.
    fallen = np.minimum(width - regions.inside, width)
    cap = np.float32(anatomy.apex + 1.1 * numbers["pneumothorax_width"]) - regions.v
    line_at = smooth_max(fallen, cap, 0.08)
    rim = np.minimum(np.minimum(line_at, np.minimum(regions.lung, same)), width)
    lung = ramp(np.minimum(regions.lung, same), 0.014)
    black = ramp(rim, 0.012)
    line = band(line_at + np.float32(0.002), 0.0045, 0.006) * lung * (width > 0.008)
    strength = np.float32(numbers["pneumothorax_strength"])
    denser = np.float32(0.35) * strength * lung * (1 - black)
    return denser - strength * black + np.float32(0.20) * line, rim > 0


def nodule(regions: Regions, numbers: Mapping[str, float]) -> Finding:
    """A round opacity with a fairly sharp border."""
    du, dv = regions.u - np.float32(numbers["nodule_u"]), regions.v - np.float32(numbers["nodule_v"])
    distance = np.float32(numbers["nodule_radius"]) - np.sqrt(du * du + dv * dv)
    return np.float32(numbers["nodule_strength"]) * ramp(distance, 0.012), distance > 0


def _curve(regions: Regions, points: list[tuple[float, float]], pieces: int = 7) -> FloatImage:
    """Return the distance to a quadratic Bezier curve with three control ``points``, as a chain of segments."""
    t = np.linspace(0, 1, pieces + 1)[:, None]
    a, b, c = (np.array(point) for point in points)
    chain = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
    nearest = np.full_like(regions.u, np.inf)
    for (u0, v0), (u1, v1) in itertools.pairwise(chain.tolist()):
        du, dv = np.float32(u1 - u0), np.float32(v1 - v0)
        pu, pv = regions.u - np.float32(u0), regions.v - np.float32(v0)
        share = np.clip((pu * du + pv * dv) * np.float32(1 / (du * du + dv * dv)), 0, 1)
        pu -= share * du
        pv -= share * dv
        np.minimum(nearest, pu * pu + pv * pv, out=nearest)
    distance: FloatImage = np.sqrt(nearest)
    return distance


def device(anatomy: Anatomy, regions: Regions, numbers: Mapping[str, float]) -> Finding:
    """Metal and plastic: a pacemaker with its lead, a chest port with its catheter, or a central venous catheter."""
    kind, side = int(numbers["device_kind"]), numbers["device_side"]
    u, v, size = numbers["device_u"], numbers["device_v"], numbers["device_size"]
    strength = np.float32(numbers["device_strength"])
    heart_u, heart_v = anatomy.heart_center
    cava = -anatomy.pedicle * 0.75  # the superior vena cava lies to the right of the midline
    if kind == 2:
        # On the right through the jugular vein in the neck, on the left through the subclavian vein under the clavicle.
        start, bend = ((-0.075, -0.52), (-0.075, -0.28)) if side < 0 else ((0.25, -0.29), (-0.04, -0.33))
        solid = np.float32(0.0095) - _curve(regions, [start, bend, (cava, heart_v - 0.03)])
        return strength * ramp(solid, 0.008), solid > 0
    du, dv = regions.u - np.float32(u), regions.v - np.float32(v)
    cos, sin = np.float32(np.cos(numbers["device_tilt"])), np.float32(np.sin(numbers["device_tilt"]))
    along, across = np.abs(du * cos + dv * sin), np.abs(dv * cos - du * sin)
    if kind == 0:
        half = (0.052 * size, 0.042 * size)
        # A rectangle with corners rounded by 0.02.
        corner_along = np.maximum(along - np.float32(half[0] - 0.02), 0)
        corner_across = np.maximum(across - np.float32(half[1] - 0.02), 0)
        box = np.float32(0.02) - np.sqrt(corner_along * corner_along + corner_across * corner_across)
        tip = (heart_u + 0.05, heart_v + 0.06)
        thick = 0.0065
    else:
        round_distance = np.sqrt(du * du + dv * dv)
        # A port is a ring around a paler membrane.
        box = np.float32(0.034 * size) - round_distance
        tip = (cava, heart_v - 0.04)
        thick = 0.006
    upper = _curve(regions, [(u, v), (side * 0.10, -0.36), (cava * 0.9, -0.20)], 5)
    lower = _curve(regions, [(cava * 0.9, -0.20), (cava * 1.3, heart_v - 0.02), tip], 5)
    lead = np.float32(thick) - np.minimum(upper, lower)
    shade = ramp(box, 0.008)
    if kind == 1:
        shade = shade * (1 - np.float32(0.45) * ramp(box - np.float32(0.016 * size), 0.008))
    solid = np.maximum(box, lead)
    return strength * np.maximum(shade, np.float32(0.75) * ramp(lead, 0.006)), solid > 0
