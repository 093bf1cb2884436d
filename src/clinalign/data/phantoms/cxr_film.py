"""The healthy film: soft tissue, lungs, heart, bones and abdomen as whiteness that adds up along the beam."""

from __future__ import annotations

import numpy as np

from clinalign.data.phantoms.cxr_anatomy import Anatomy, Regions, ramp
from clinalign.data.phantoms.types import FloatImage


def band(distance: FloatImage, half_width: float, softness: float = 0.008) -> FloatImage:
    """Return the coverage of a line of ``half_width`` around where ``distance`` is zero."""
    return ramp(np.float32(half_width) - np.abs(distance), softness)


def body_coverage(anatomy: Anatomy, u: FloatImage, v: FloatImage) -> FloatImage:
    """Return where neck, shoulders, trunk and arms are, ``[0, 1]``."""
    distance = np.abs(u)
    # The neck widens into the shoulders along the trapezius muscles.
    neck = np.float32(0.105) + np.float32(0.05) * np.clip((v + np.float32(0.5)) * 8, 0, 1) - distance
    away = np.maximum(distance - np.float32(0.10), 0)
    muscle = np.float32(0.09) * np.exp(away * np.float32(-1 / 0.08))
    shoulders = v - np.float32(anatomy.shoulder - 0.04) - np.float32(anatomy.slope) * away + muscle
    trunk_half = np.float32(anatomy.chest + anatomy.wall)
    # Armpits open downwards from where the arms leave the trunk.
    armpit = np.minimum(distance - trunk_half, v - np.float32(-0.10))
    arm = distance - trunk_half - np.float32(anatomy.arm_gap) * np.clip((v + np.float32(0.10)) * 4, 0, 1)
    gap = np.minimum(armpit, -arm)
    return ramp(np.maximum(neck, np.minimum(shoulders, -gap)), 0.02)


def ribs(anatomy: Anatomy, regions: Regions) -> FloatImage:
    """Return the whiteness of posterior and anterior ribs."""
    spacing, offset, strength = anatomy.ribs
    out = np.abs(regions.u) * np.float32(1 / anatomy.chest)
    # Posterior ribs rise a little from the spine and fall towards the side; anterior ribs fall towards the sternum.
    bend = regions.v + np.float32(0.05) * out - np.float32(0.13) * out * out * out
    posterior = np.cos((bend * np.float32(1 / spacing) + np.float32(offset)) * np.float32(2 * np.pi))
    front = regions.v - np.float32(0.20) * (1 - out)
    anterior = np.cos((front * np.float32(1 / (1.25 * spacing)) + np.float32(offset + 0.3)) * np.float32(2 * np.pi))
    outer = np.clip(out * 2 - np.float32(0.6), 0, 1)
    inside = ramp(regions.inside + np.float32(0.012), 0.012) * ramp(regions.above + np.float32(0.05), 0.08)
    pattern = np.maximum(posterior + np.float32(0.1), 0) + np.float32(0.5) * np.maximum(anterior, 0) * outer
    # The ribs' inner faces run along the beam at the side of the chest and draw its white outline.
    rim = np.exp(-(((regions.inside + np.float32(0.008)) * np.float32(1 / 0.014)) ** 2))
    pattern = pattern * (1 - np.float32(0.55) * ramp(regions.center, 0.02))  # dense heart hides ribs
    white: FloatImage = np.float32(strength) * inside * pattern
    white += np.float32(0.10) * rim * ramp(regions.above + np.float32(0.02), 0.04)
    return white


def clavicles_and_shoulders(anatomy: Anatomy, u: FloatImage, v: FloatImage) -> FloatImage:
    """Return the whiteness of clavicles and humeral heads."""
    level, rise = anatomy.clavicle
    distance = np.abs(u)
    bow = np.float32(0.012) * np.sin((distance - np.float32(0.03)) * np.float32(2 * np.pi / 0.32))
    along = np.clip((distance - np.float32(0.025)) * 40, 0, 1) * np.clip((np.float32(0.37) - distance) * 40, 0, 1)
    line = v - np.float32(level) + np.float32(rise) * (distance - np.float32(0.03)) + bow
    edges = band(line, 0.015) + np.float32(0.5) * band(np.abs(line) - np.float32(0.012), 0.004)
    head_u, head_v = anatomy.chest + anatomy.wall + 0.02, level - 0.02
    head = np.float32(0.055) - np.sqrt((distance - np.float32(head_u)) ** 2 + (v - np.float32(head_v)) ** 2)
    return np.float32(0.10) * edges * along + np.float32(0.09) * ramp(head, 0.02)


def vessels(anatomy: Anatomy, regions: Regions) -> FloatImage:
    """Return the whiteness of the hila and of the vessels that branch from them; absent outside the lungs."""
    strength, phase = anatomy.hila
    distance = np.abs(regions.u) - np.float32(anatomy.pedicle + 0.025)
    down = regions.v - np.float32(anatomy.apex + 0.31)
    radius = np.sqrt(distance * distance + down * down)
    angle = np.arctan2(down, distance + np.float32(0.01))
    side = np.where(regions.u < 0, np.float32(phase), np.float32(phase + 2.0))
    rays = np.cos(angle * 9 + side + 3 * np.sin(radius * 40 + side))
    branches = np.maximum(rays, 0) ** 2 * np.exp(radius * np.float32(-1 / 0.10))
    blob = np.exp(-((distance * np.float32(1 / 0.035)) ** 2 + (down * np.float32(1 / 0.05)) ** 2))
    white: FloatImage = np.float32(strength) * (blob + np.float32(1.1) * branches)
    return white


def healthy_film(anatomy: Anatomy, regions: Regions) -> tuple[FloatImage, FloatImage]:
    """Compose the film of a chest without findings.

    Args:
        anatomy: The patient.
        regions: Signed distances at the points to render.

    Returns:
        Whiteness (air 0, soft tissue about 0.7, heart about 0.95) and coverage of the body.
    """
    u, v = regions.u, regions.v
    body = body_coverage(anatomy, u, v)
    lung = ramp(regions.lung, 0.014)
    distance = np.abs(u)
    film = np.float32(0.62) - np.float32(0.10) * np.clip((distance - np.float32(0.36)) * 6, 0, 1)
    film = film + np.float32(0.18) * ramp(-regions.above, 0.015) * ramp(regions.inside + np.float32(0.04), 0.06)
    # Above the apices the beam crosses the neck only.
    chest_level = np.float32(0.35) + np.float32(0.65) * np.clip((v - np.float32(anatomy.apex)) * 7, 0, 1)
    film += np.float32(0.14) * ramp(regions.center, 0.016) * ramp(regions.above, 0.015) * chest_level
    film += np.float32(0.06) * ramp(regions.heart, 0.02) * ramp(regions.above, 0.015)
    # Spine: a column with disc spaces, best seen above the heart.
    discs = np.float32(0.75) + np.float32(0.25) * np.cos(v * np.float32(2 * np.pi / 0.055))
    film += np.float32(0.05) * band(u, 0.038, 0.012) * discs
    trachea = np.clip((np.float32(anatomy.apex + 0.24) - v) * 30, 0, 1) * np.clip((v + np.float32(0.46)) * 20, 0, 1)
    film -= np.float32(0.13) * band(u + np.float32(0.005) + np.float32(0.01) * v, 0.020, 0.012) * trachea
    depth = anatomy.exposure[3]
    across = distance * np.float32(1 / anatomy.chest) - np.float32(0.55)
    thick = np.float32(1.0) - np.float32(0.6) * across * across - np.float32(0.35) * np.maximum(v + np.float32(0.05), 0)
    film -= np.float32(depth) * lung * thick
    film += lung * vessels(anatomy, regions)
    strength, level = anatomy.breast
    if strength > 0:
        fold = np.sqrt((distance - np.float32(0.21)) ** 2 + np.float32(1.1) * (v - np.float32(level)) ** 2)
        film += np.float32(strength) * ramp(np.float32(0.155) - fold, 0.02) * ramp(v - np.float32(level - 0.09), 0.16)
    film += ribs(anatomy, regions) + clavicles_and_shoulders(anatomy, u, v)
    if anatomy.bubble > 0:
        bubble_v = anatomy.dome_left + 0.055
        bubble = (u - np.float32(0.16)) ** 2 * np.float32(1 / 0.055**2) + (v - np.float32(bubble_v)) ** 2 * np.float32(
            1 / 0.024**2
        )
        film -= np.float32(anatomy.bubble) * ramp(1 - bubble, 0.5)
    return film, body
