"""Drawing with numpy alone: smooth noise, distances to strokes, blending, and averaging down to the final size.

Everything works in *unit coordinates*: x to the right and y downwards, both from 0 to 1, whatever the number of
pixels. A scene whose parameters are drawn in these units looks the same at every size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clinalign.data.phantoms.types import BoolImage, FloatImage, RGBImage

SUPERSAMPLING = 2


@lru_cache(maxsize=16)
def axis(n: int) -> NDArray[np.float32]:
    """Return the ``n`` pixel centres of one side in unit coordinates, float32, read-only."""
    centres = ((np.arange(n) + 0.5) / n).astype(np.float32)
    centres.flags.writeable = False
    return centres


def grid(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return ``x`` of shape ``(1, n)`` and ``y`` of shape ``(n, 1)``: pixel centres that broadcast to ``(n, n)``."""
    return axis(n)[None, :], axis(n)[:, None]


@lru_cache(maxsize=128)
def _spline(n: int, knots: int) -> NDArray[np.float32]:
    """Return the ``(n, knots)`` matrix that evaluates a uniform cubic B-spline at the ``n`` pixel centres."""
    position = axis(n).astype(np.float64) * (knots - 3) + 1.0  # the outer knots lie outside, so no edge is flat
    distance = np.abs(position[:, None] - np.arange(knots)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _product(left: FloatImage, right: FloatImage) -> FloatImage:
    """Multiply two matrices in slices so small that BLAS stays on one thread.

    Waking its other threads costs more than a product of this size: without this, drawing at 64 pixels is several times
    slower on a busy machine.
    """
    # OpenBLAS shares a product out to threads from 2**18 multiplications on
    rows = max(1, 200_000 // (right.shape[0] * right.shape[1]))
    if rows >= left.shape[0]:
        return left @ right
    return np.concatenate([left[start : start + rows] @ right for start in range(0, left.shape[0], rows)])


def smooth_noise(rng: np.random.Generator, n: int, rows: int, columns: int | None = None) -> FloatImage:
    """Draw smooth random noise of standard deviation near 1, the same at every size.

    Args:
        rng: Consumed in the same way whatever ``n``.
        n: Pixels a side.
        rows: Number of bumps from top to bottom; 3 gives slow shading, 60 gives grain.
        columns: Bumps from left to right; ``rows`` when left out. Unequal numbers give streaks.

    Returns:
        ``(n, n)`` float32.
    """
    high, wide = rows + 3, (columns or rows) + 3
    knots = rng.standard_normal((high, wide), dtype=np.float32)
    # a cubic B-spline averages its knots: the mean of its squared weights is 0.479 an axis, and so is the deviation
    return _product(_product(_spline(n, high), knots), _spline(n, wide).T) / np.float32(0.479)


def smoothstep(low: float, high: float, value: FloatImage) -> FloatImage:
    """Go from 0 below ``low`` to 1 above ``high`` along a cubic without corners; ``low > high`` mirrors it."""
    share = np.clip((value - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return np.asarray(share * share * (3.0 - 2.0 * share), np.float32)


def coverage(distance: FloatImage, n: int, softness: float = 0.0) -> FloatImage:
    """Turn a signed distance (negative inside, unit coordinates) to the share of each pixel that is covered.

    Args:
        distance: ``(n, n)`` or ``(..., n, n)``.
        n: Pixels a side: the ramp is one pixel wide.
        softness: Width of a further blur of the edge, unit coordinates.

    Returns:
        Values in ``[0, 1]``, shaped like ``distance``.
    """
    return np.asarray(np.clip(0.5 - distance * np.float32(1.0 / (1.0 / n + softness)), 0.0, 1.0), np.float32)


def blobs(n: int, x: ArrayLike, y: ArrayLike, sigma: ArrayLike, weight: ArrayLike = 1.0) -> FloatImage:
    """Sum round Gaussian blobs; cheap, because each is a product of two one-dimensional curves.

    Args:
        n: Pixels a side.
        x: ``(m,)`` centres, unit coordinates.
        y: ``(m,)`` centres, unit coordinates.
        sigma: Standard deviation of each blob, scalar or ``(m,)``.
        weight: Height of each blob, scalar or ``(m,)``.

    Returns:
        ``(n, n)`` float32.
    """
    centre_x, centre_y = np.asarray(x, np.float32)[:, None], np.asarray(y, np.float32)[:, None]
    width = np.broadcast_to(np.asarray(sigma, np.float32), (centre_x.shape[0],))[:, None]
    height = np.broadcast_to(np.asarray(weight, np.float32), (centre_x.shape[0],))[:, None]
    along = np.exp(-0.5 * ((axis(n)[None, :] - centre_x) / width) ** 2)
    down = np.exp(-0.5 * ((axis(n)[None, :] - centre_y) / width) ** 2) * height
    return _product(down.T, along)


def stroke_distance(
    n: int, x: ArrayLike, y: ArrayLike, angle: ArrayLike, bend: ArrayLike, half_length: ArrayLike
) -> FloatImage:
    """Measure the distance of every pixel to gently bent strokes (parabolas, each in a frame of its own).

    Args:
        n: Pixels a side.
        x: ``(m,)`` middle of each stroke, unit coordinates.
        y: ``(m,)`` middle of each stroke, unit coordinates.
        angle: ``(m,)`` direction in radians.
        bend: ``(m,)`` half the curvature: the stroke leaves its tangent by ``bend * u**2`` at arc position ``u``.
        half_length: ``(m,)`` half the length, unit coordinates.

    Returns:
        ``(m, n, n)`` float32. First order in the slope, which is exact enough for the few pixels of a line's width.
    """
    columns = [np.asarray(values, np.float32)[:, None, None] for values in (x, y, angle, bend, half_length)]
    middle_x, middle_y, direction, curve, reach = columns
    to_x, to_y = axis(n)[None, None, :] - middle_x, axis(n)[None, :, None] - middle_y
    cosine, sine = np.cos(direction), np.sin(direction)
    along = cosine * to_x + sine * to_y
    slope = curve * along
    across = cosine * to_y - sine * to_x
    across -= slope * along
    across *= across
    across /= 1.0 + 4.0 * slope * slope
    np.abs(along, out=along)
    along -= reach
    np.maximum(along, 0.0, out=along)
    along *= along
    across += along
    return np.asarray(np.sqrt(across, out=across), np.float32)


def blend(picture: FloatImage, colour: ArrayLike, alpha: FloatImage) -> None:
    """Lay ``colour`` over a ``(3, n, n)`` picture in place.

    Args:
        picture: Values in ``[0, 1]``.
        colour: Three values in ``[0, 1]``, or ``(3, n, n)``.
        alpha: ``(n, n)`` opacity in ``[0, 1]``.
    """
    paint = np.asarray(colour, np.float32)
    if paint.ndim == 1:
        paint = paint[:, None, None]
    picture += (paint - picture) * alpha


def shrink(values: FloatImage, factor: int = SUPERSAMPLING) -> FloatImage:
    """Average ``factor`` by ``factor`` blocks of the last two axes."""
    rows = values[..., ::factor, :].copy()
    for start in range(1, factor):
        rows += values[..., start::factor, :]
    total = rows[..., ::factor].copy()
    for start in range(1, factor):
        total += rows[..., start::factor]
    return np.asarray(total * np.float32(1.0 / factor**2), np.float32)


def to_picture(values: FloatImage) -> RGBImage:
    """Average a supersampled ``(3, n, n)`` picture in ``[0, 1]`` down and round it to ``(size, size, 3)`` uint8."""
    small = np.clip(shrink(values), 0.0, 1.0) * np.float32(255.0)
    return np.ascontiguousarray(np.rint(small).astype(np.uint8).transpose(1, 2, 0))


def to_mask(alpha: FloatImage, threshold: float) -> BoolImage:
    """Average a supersampled ``(n, n)`` opacity down and keep the pixels above ``threshold``."""
    return np.asarray(shrink(alpha) > threshold)
