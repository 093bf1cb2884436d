"""Lesions: the outline and the colours of a melanoma, a naevus and a benign keratosis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clinalign.data.phantoms import drawing
from clinalign.data.phantoms.skin_surface import absorb
from clinalign.data.phantoms.types import FloatImage


@dataclass(frozen=True)
class Lesion:
    """Where a lesion lies.

    Attributes:
        x: Centre, unit coordinates.
        y: Centre, unit coordinates.
        radius: Mean radius, unit coordinates.
        aspect: Short axis over long axis of the ellipse beneath the outline.
        angle: Direction of the long axis, radians.
        irregularity: Root mean square of the outline's relative departure from the ellipse.
        inside: ``(n, n)`` signed depth: 0 on the outline, 1 at the middle, negative outside.
        alpha: ``(n, n)`` opacity in ``[0, 1]``, 0.5 on the outline.
    """

    x: float
    y: float
    radius: float
    aspect: float
    angle: float
    irregularity: float
    inside: FloatImage
    alpha: FloatImage


@dataclass(frozen=True)
class _Shape:
    """Ranges from which an outline is drawn; ``harmonics`` is the deviation of the lowest Fourier term."""

    radius: tuple[float, float]
    aspect: tuple[float, float]
    harmonics: float
    decay: float
    jag: tuple[float, float]
    softness: tuple[float, float]


SHAPES = {
    "NV": _Shape((0.14, 0.26), (0.74, 1.0), 0.025, 1.0, (0.03, 0.075), (0.12, 0.30)),
    "MEL": _Shape((0.22, 0.33), (0.58, 0.92), 0.115, 0.7, (0.09, 0.19), (0.06, 0.22)),
    "BKL": _Shape((0.18, 0.31), (0.65, 0.95), 0.035, 0.30, (0.04, 0.10), (0.02, 0.07)),
}


def outline(rng: np.random.Generator, n: int, diagnosis: str) -> Lesion:
    """Draw a lesion's outline: an ellipse with Fourier terms of the polar radius and noise along the border."""
    shape = SHAPES[diagnosis]
    centre_x, centre_y = 0.5 + rng.uniform(-0.07, 0.07, 2)
    angle = rng.uniform(0, np.pi)
    level = rng.random(4)  # the same seed keeps its place in each range, whatever the diagnosis
    radius, aspect, jag, soft = (
        low + (high - low) * at
        for (low, high), at in zip((shape.radius, shape.aspect, shape.jag, shape.softness), level, strict=True)
    )
    orders = np.arange(2, 8)
    terms = (rng.standard_normal(6) + 1j * rng.standard_normal(6)) * shape.harmonics / (orders - 1.0) ** shape.decay
    x, y = drawing.grid(n)
    to_x, to_y = x - np.float32(centre_x), y - np.float32(centre_y)
    turn = np.complex64(np.exp(-1j * angle))
    offset = (to_x + 1j * to_y).astype(np.complex64) * turn
    stretch = np.sqrt(aspect)
    scaled = (offset.real * np.float32(stretch) + 1j * (offset.imag / np.float32(stretch))) / np.float32(radius)
    distance = np.abs(scaled)
    unit = scaled / np.maximum(distance, np.float32(1e-6))
    wave: NDArray[np.complex64] = np.zeros((n, n), np.complex64)
    for term in terms[::-1]:  # Horner: sum of term_k * unit**k with one multiplication each
        wave = (wave + np.complex64(term)) * unit
    edge = np.maximum(1 + (wave * unit).real, np.float32(0.45))
    border = drawing.smooth_noise(rng, n, 9) + 0.7 * drawing.smooth_noise(rng, n, 22)
    ragged = np.float32(jag) * border * np.minimum(distance, 1)
    inside = np.asarray(1 - distance / edge + ragged, np.float32)
    alpha = drawing.smoothstep(-soft, soft, inside)
    rough = float(np.sqrt(np.sum(np.abs(terms) ** 2) / 2 + jag**2))
    return Lesion(float(centre_x), float(centre_y), float(radius), float(aspect), float(angle), rough, inside, alpha)


def _network(rng: np.random.Generator, n: int, disorder: float) -> FloatImage:
    """Draw a honeycomb in about ``[-1, 1]``: positive on the lines of the mesh, negative in its holes."""
    x, y = drawing.grid(n)
    bent_x = x + np.float32(disorder) * drawing.smooth_noise(rng, n, 7)
    bent_y = y + np.float32(disorder) * drawing.smooth_noise(rng, n, 7)
    start, period = rng.uniform(0, np.pi), rng.uniform(0.058, 0.088)
    total = np.zeros((n, n), np.float32)
    for step in range(3):
        direction = start + step * np.pi / 3
        frequency = 2 * np.pi / period
        wave_x, wave_y = np.float32(frequency * np.cos(direction)), np.float32(frequency * np.sin(direction))
        total += np.cos(wave_x * bent_x + wave_y * bent_y)
    fade = np.clip(0.6 + 0.5 * drawing.smooth_noise(rng, n, 5), 0.0, 1.2)  # no mesh is equally plain all over
    return np.asarray(np.clip(-total / 1.5 + 0.2, -0.8, 1.0) * fade, np.float32)


def _patch(
    rng: np.random.Generator, n: int, lesion: Lesion, far: tuple[float, float], size: tuple[float, float]
) -> FloatImage:
    """Draw the opacity of one blotch with a ragged rim, off the lesion's centre by ``far`` radii."""
    bearing, distance = rng.uniform(0, 2 * np.pi), rng.uniform(*far) * lesion.radius
    sigma = rng.uniform(*size) * lesion.radius
    x, y = lesion.x + distance * np.cos(bearing), lesion.y + distance * np.sin(bearing)
    hill = drawing.blobs(n, [x], [y], sigma)
    hill += 0.16 * drawing.smooth_noise(rng, n, 8) + 0.13 * drawing.smooth_noise(rng, n, 20)
    return drawing.smoothstep(0.25, 0.90, hill) * lesion.alpha


def _brown(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw the absorption of one person's pigment: from reddish through plain to greyish brown."""
    red = rng.uniform(0.42, 0.72)
    return red, red + rng.uniform(0.18, 0.34), red + rng.uniform(0.26, 0.62)


def _paint_naevus(rng: np.random.Generator, n: int, picture: FloatImage, lesion: Lesion) -> None:
    """One or two browns, arranged around the centre, with a mesh, globules, or neither."""
    depth = np.clip(lesion.inside, 0.0, 1.0)
    density, slope = rng.uniform(0.5, 1.3), rng.uniform(-0.15, 0.9)
    melanin = density * (1 + np.float32(slope) * (depth - 0.4))
    melanin *= 1 + 0.11 * drawing.smooth_noise(rng, n, 9) + 0.10 * drawing.smooth_noise(rng, n, 26)
    pattern = rng.random()
    mesh = _network(rng, n, 0.012)
    if pattern < 0.5:
        melanin += np.float32(density * rng.uniform(0.16, 0.34)) * mesh
    elif pattern < 0.7:
        melanin += np.float32(density * rng.uniform(0.35, 0.6)) * np.clip(-mesh - 0.2, 0.0, 1.0)
    blood = np.float32(rng.uniform(0.0, 0.7) * rng.random()) * lesion.alpha
    absorb(picture, np.maximum(melanin, 0.1) * lesion.alpha, blood, _brown(rng))


def _paint_melanoma(rng: np.random.Generator, n: int, picture: FloatImage, lesion: Lesion) -> None:
    """A brown ground that differs from side to side, black blotches, and a blue-grey veil, red or white patches."""
    x, y = drawing.grid(n)
    tilt = rng.uniform(0, 2 * np.pi)
    side = ((x - lesion.x) * np.float32(np.cos(tilt)) + (y - lesion.y) * np.float32(np.sin(tilt))) / lesion.radius
    density = rng.uniform(0.65, 1.2)
    melanin = density * (1 + 0.40 * np.clip(side, -1, 1) + 0.22 * drawing.smooth_noise(rng, n, 8))
    melanin += density * rng.uniform(0.15, 0.35) * _network(rng, n, 0.022) + 0.14 * drawing.smooth_noise(rng, n, 26)
    melanin = np.asarray(np.maximum(melanin, 0.12), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        melanin += np.float32(rng.uniform(0.9, 1.8)) * _patch(rng, n, lesion, (0.15, 0.7), (0.22, 0.45))
    blood = np.full((n, n), rng.uniform(0.0, 0.4), np.float32)
    others = rng.random(3)
    if others[0] < 0.4:
        red = _patch(rng, n, lesion, (0.4, 0.9), (0.35, 0.5))
        blood += np.float32(rng.uniform(0.8, 1.4)) * red
        melanin *= 1 - np.float32(0.6) * red
    absorb(picture, np.asarray(melanin * lesion.alpha, np.float32), blood * lesion.alpha, _brown(rng))
    if others[0] >= 0.4 or others[1] < 0.5:  # red or blue-grey always, often both
        veil = np.array([0.40, 0.43, 0.52], np.float32) * picture.mean() / 0.6 * rng.uniform(0.85, 1.15)
        grain = 1 + 0.10 * drawing.smooth_noise(rng, n, 14) + 0.08 * drawing.smooth_noise(rng, n, 30)
        haze = np.asarray(veil, np.float32)[:, None, None] * grain
        patch = _patch(rng, n, lesion, (0.1, 0.65), (0.35, 0.55))
        drawing.blend(picture, haze, np.float32(rng.uniform(0.5, 0.8)) * patch)
    if others[2] < 0.25:
        scar = np.array([0.86, 0.76, 0.78], np.float32) * picture.mean() / 0.65
        patch = _patch(rng, n, lesion, (0.2, 0.6), (0.25, 0.35))
        drawing.blend(picture, scar, np.float32(rng.uniform(0.4, 0.7)) * patch)


def _paint_keratosis(rng: np.random.Generator, n: int, picture: FloatImage, lesion: Lesion) -> None:
    """A waxy tan to grey-brown plaque, sharp at its rim, with pale cysts and dark plugs."""
    ridges = np.abs(drawing.smooth_noise(rng, n, 13)) - 0.7
    wax = np.array([0.74, 0.62, 0.46], np.float32) * picture.mean() / 0.68
    drawing.blend(picture, wax, np.float32(rng.uniform(0.35, 0.7)) * lesion.alpha)
    melanin = rng.uniform(0.35, 1.0) * (1 - 0.45 * ridges + 0.16 * drawing.smooth_noise(rng, n, 26))
    melanin += 0.25 * np.exp(-((lesion.inside / 0.12) ** 2))
    bearing, share = rng.uniform(0, 2 * np.pi, 16), np.sqrt(rng.random(16)) * 0.75 * lesion.radius
    x, y = lesion.x + share * np.cos(bearing), lesion.y + share * np.sin(bearing)
    plugs = int(rng.integers(4, 9))
    size, strength = rng.uniform(0.007, 0.016, 16), rng.uniform(0.3, 1.0, 16)
    melanin += drawing.blobs(n, x[:plugs], y[:plugs], size[:plugs], 1.1 * strength[:plugs])
    absorb(picture, np.maximum(melanin, 0.05) * lesion.alpha, None, _brown(rng))
    cysts = np.clip(drawing.blobs(n, x[plugs:], y[plugs:], size[plugs:], strength[plugs:]), 0, 1) * lesion.alpha
    drawing.blend(picture, np.array([0.96, 0.90, 0.76]), np.float32(0.65) * cysts)


PAINTERS = {"NV": _paint_naevus, "MEL": _paint_melanoma, "BKL": _paint_keratosis}


def draw_lesion(rng: np.random.Generator, n: int, picture: FloatImage, diagnosis: str) -> Lesion:
    """Draw a lesion into ``picture`` in place.

    Args:
        rng: Consumed in the same way whatever ``n``.
        n: Pixels a side.
        picture: ``(3, n, n)`` skin in ``[0, 1]``.
        diagnosis: ``MEL``, ``NV`` or ``BKL``.

    Returns:
        Where it lies.
    """
    lesion = outline(rng, n, diagnosis)
    PAINTERS[diagnosis](rng, n, picture, lesion)
    return lesion
