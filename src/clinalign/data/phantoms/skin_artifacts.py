"""What is in a dermoscopic picture besides skin: hair, bubbles in the gel, a ruler, marker ink, the dark corners.

Each function draws into a ``(3, n, n)`` picture in place and returns the artifact's ``(n, n)`` opacity. Sizes are
chosen so that each can be seen at 32 pixels a side: the thinnest line is near half a pixel wide there, and dark.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clinalign.data.phantoms import drawing
from clinalign.data.phantoms.skin_lesion import Lesion
from clinalign.data.phantoms.types import FloatImage

HAIR_COLOURS = ((0.07, 0.05, 0.05), (0.16, 0.09, 0.06), (0.30, 0.16, 0.09))
INK_COLOURS = ((0.33, 0.14, 0.60), (0.13, 0.22, 0.68), (0.50, 0.16, 0.58), (0.18, 0.16, 0.46))


def draw_hair(rng: np.random.Generator, n: int, picture: FloatImage, lesion: Lesion) -> FloatImage:
    """Lay 5 to 14 bent hairs, loosely combed one way, black to reddish brown."""
    count = int(rng.integers(5, 15))
    draws = rng.random((6, 14))[:, :count]
    comb, spread = rng.uniform(0, np.pi), rng.uniform(0.15, 0.9)
    x, y = 0.5 + (draws[:2] - 0.5) * 0.9
    angle = comb + spread * (draws[2] * 2 - 1) * np.pi / 2
    bend = (draws[3] * 2 - 1) * 0.9
    half_length = 0.16 + 0.40 * draws[4]
    width = rng.uniform(0.007, 0.013) * (0.75 + 0.5 * draws[5])
    margin = drawing.stroke_distance(n, x, y, angle, bend, half_length) - width.astype(np.float32)[:, None, None]
    colour = HAIR_COLOURS[int(rng.choice(3, p=(0.5, 0.35, 0.15)))]
    alpha = np.float32(rng.uniform(0.8, 0.97)) * drawing.coverage(margin.min(axis=0), n)
    # a hair on dark skin is black: scaled by the skin's own brightness it stays darker than what it lies on
    drawing.blend(picture, np.array(colour) * min(1.0, float(picture.mean()) / 0.6), alpha)
    return alpha


def draw_gel_bubble(rng: np.random.Generator, n: int, picture: FloatImage, lesion: Lesion) -> FloatImage:
    """Lay one large bubble with 1 to 4 smaller ones and a spray of bright specks, lit from one side."""
    count = int(rng.integers(2, 6))
    radius = np.concatenate([[rng.uniform(0.085, 0.14)], rng.uniform(0.035, 0.07, 4)])[:count]
    first = rng.uniform(0.18, 0.82, 2)
    places = np.clip(first[:, None] + rng.normal(0, 0.16, (2, 5)), 0.06, 0.94)[:, :count]
    places[:, 0] = first
    light = rng.uniform(0, 2 * np.pi)
    toward = np.array([np.cos(light), np.sin(light)], np.float32)
    x, y = drawing.grid(n)
    size = radius.astype(np.float32)[:, None, None]
    to_x = x[None] - places[0].astype(np.float32)[:, None, None]
    to_y = y[None] - places[1].astype(np.float32)[:, None, None]
    distance = np.sqrt(to_x * to_x + to_y * to_y)
    gap = distance - size
    disc = drawing.coverage(gap, n, 0.004)
    facing = (to_x * toward[0] + to_y * toward[1]) / np.maximum(distance, np.float32(1e-4))
    rim = np.exp(-(((gap + 0.016) / 0.012) ** 2)) * (0.62 + 0.38 * facing) * disc
    shade = np.exp(-(((gap - 0.004) / 0.011) ** 2)) * (0.8 - 0.2 * facing)
    glint_at = places + 0.45 * radius * toward[:, None]
    glint = drawing.blobs(n, glint_at[0], glint_at[1], 0.010 + 0.14 * radius)
    specks = int(rng.integers(4, 11))
    spray = first[:, None] + rng.normal(0, 0.14, (2, 10))
    glint += drawing.blobs(n, spray[0, :specks], spray[1, :specks], 0.009, rng.uniform(0.4, 0.9, 10)[:specks])
    body, dark = disc.max(axis=0), shade.max(axis=0)
    bright = np.clip(rim.max(axis=0) + glint, 0.0, 1.0)
    picture *= 1 - np.float32(0.55) * dark
    drawing.blend(picture, (0.97, 0.97, 0.99), np.float32(0.14) * body)
    drawing.blend(picture, (0.99, 0.99, 1.0), np.float32(rng.uniform(0.85, 1.0)) * bright)
    return np.asarray(np.maximum(np.maximum(body, dark), bright), np.float32)


def draw_ruler(rng: np.random.Generator, n: int, picture: FloatImage, lesion: Lesion) -> FloatImage:
    """Lay a millimetre scale along one edge: ticks of two lengths, often with a base line."""
    edge = int(rng.integers(4))
    tilt, inset = rng.uniform(-0.06, 0.06), rng.uniform(0.03, 0.10)
    period, phase = rng.uniform(0.085, 0.125), rng.random()
    half_width = rng.uniform(0.011, 0.016)
    short, stretch = rng.uniform(0.06, 0.085), rng.uniform(1.5, 1.9)
    major, offset = int(rng.choice([2, 5])), int(rng.integers(5))
    start, stop = rng.uniform(-0.05, 0.2), rng.uniform(0.8, 1.05)
    has_line, alpha_ink = rng.random() < 0.5, rng.uniform(0.75, 0.95)
    x, y = drawing.grid(n)
    along, depth = ((x, y), (y, x), (x, 1 - y), (y, 1 - x))[edge]
    along, depth = (
        np.asarray(along + np.float32(tilt) * (depth - 0.5), np.float32),
        np.asarray(depth - np.float32(tilt) * (along - 0.5) - np.float32(inset), np.float32),
    )
    index = np.rint((along - phase * period) / period)
    across = np.abs(along - phase * period - index * np.float32(period)) - np.float32(half_width)
    length = np.where(np.mod(index + offset, major) == 0, np.float32(short * stretch), np.float32(short))
    beyond = np.maximum(-depth, depth - length)
    margin = np.maximum(across, beyond)
    if has_line:
        margin = np.minimum(margin, np.abs(depth) - np.float32(half_width * 0.8))
    margin = np.maximum(margin, np.maximum(np.float32(start) - along, along - np.float32(stop)))
    alpha = np.float32(alpha_ink) * drawing.coverage(margin, n)
    drawing.blend(picture, np.full(3, rng.uniform(0.03, 0.10)), alpha)
    return alpha


def _ink_ring(rng: np.random.Generator, n: int, lesion: Lesion, half_width: float) -> FloatImage:
    """Part of an oval drawn by hand around the lesion; signed distance to its line."""
    x, y = drawing.grid(n)
    radius = float(np.clip(lesion.radius * rng.uniform(1.35, 1.7), 0.28, 0.42))
    squeeze, start, gap = rng.uniform(0.85, 1.15), rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 2.6)
    offset = (x - np.float32(lesion.x)) * np.float32(squeeze) + 1j * (y - np.float32(lesion.y))
    offset = offset * np.exp(-1j * start).astype(np.complex64)
    path = np.float32(radius) * (1 + 0.05 * drawing.smooth_noise(rng, n, 3))
    line = np.abs(np.abs(offset) - path) - np.float32(half_width)
    opening = (np.float32(gap / 2) - np.abs(np.angle(offset))) * np.float32(radius)
    return np.asarray(np.maximum(line, opening), np.float32)


def _ink_strokes(rng: np.random.Generator, n: int, lesion: Lesion, half_width: float, hatched: bool) -> FloatImage:
    """Two to five strokes beside the lesion, or the strokes of one hatched patch; signed distance to the nearest."""
    count = int(rng.integers(2, 6)) + (2 if hatched else 0)
    bearing = rng.uniform(0, 2 * np.pi)
    draws = rng.random((4, 7))[:, :count]
    away = rng.uniform(0.33, 0.42)
    if hatched:
        steps = np.arange(count) - (count - 1) / 2
        heading = bearing + rng.uniform(-0.5, 0.5)
        x = 0.5 + away * np.cos(bearing) - steps * 2.6 * half_width * np.sin(heading)
        y = 0.5 + away * np.sin(bearing) + steps * 2.6 * half_width * np.cos(heading)
        angle = heading + 0.25 * (draws[2] - 0.5)
        half_length = 0.07 + 0.07 * draws[3]
    else:
        around = bearing + draws[0] * 2 * np.pi
        x, y = 0.5 + away * np.cos(around), 0.5 + away * np.sin(around)
        angle = around + np.pi / 2 + (draws[2] - 0.5) * 1.6
        half_length = 0.09 + 0.13 * draws[3]
    distance = drawing.stroke_distance(n, x, y, angle, (draws[1] - 0.5) * 2.0, half_length)
    return np.asarray(distance.min(axis=0) - np.float32(half_width), np.float32)


def draw_ink(rng: np.random.Generator, n: int, picture: FloatImage, lesion: Lesion) -> FloatImage:
    """Draw surgical marker in blue or violet: a ring around the lesion, strokes beside it, or a hatched patch."""
    kind, half_width = rng.random(), rng.uniform(0.015, 0.028)
    colour = np.array(INK_COLOURS[int(rng.integers(4))]) * rng.uniform(0.85, 1.15)
    opacity = rng.uniform(0.75, 0.95)
    dry = drawing.smooth_noise(rng, n, 40) + drawing.smooth_noise(rng, n, 7)
    margin = (
        _ink_ring(rng, n, lesion, half_width) if kind < 0.45 else _ink_strokes(rng, n, lesion, half_width, kind > 0.75)
    )
    margin += np.float32(0.004) * drawing.smooth_noise(rng, n, 40)  # the tip of a felt pen frays
    alpha = drawing.coverage(margin, n, 0.010)
    alpha *= np.clip(np.float32(opacity) + np.float32(0.10) * dry, 0.35, 1.0)
    drawing.blend(picture, colour, alpha)
    return alpha


def draw_dark_corner(rng: np.random.Generator, n: int, picture: FloatImage, lesion: Lesion) -> FloatImage:
    """Blacken what lies outside the round field of the lens."""
    centre_x, centre_y = 0.5 + rng.uniform(-0.035, 0.035, 2)
    radius, softness = rng.uniform(0.52, 0.61), rng.uniform(0.01, 0.07)
    x, y = drawing.grid(n)
    distance = np.sqrt((x - np.float32(centre_x)) ** 2 + (y - np.float32(centre_y)) ** 2)
    alpha = drawing.smoothstep(radius - softness, radius + softness, distance)
    drawing.blend(picture, rng.uniform(0.01, 0.07, 3), np.float32(0.98) * alpha)
    return alpha


# In the order in which they lie between skin and lens: the last one hides the others.
LAYERS: dict[str, Callable[[np.random.Generator, int, FloatImage, Lesion], FloatImage]] = {
    "ink": draw_ink,
    "hair": draw_hair,
    "gel_bubble": draw_gel_bubble,
    "ruler": draw_ruler,
    "dark_corner": draw_dark_corner,
}
