"""The bare skin under a dermatoscope: tone, lighting, mottling, relief, freckles."""

from __future__ import annotations

import numpy as np

from clinalign.data.phantoms import drawing
from clinalign.data.phantoms.types import FloatImage

# Skin as dermatoscopes show it, sRGB in [0, 1]: two ends of a range for each tone, pale or lilac to pink or tan.
TONES = {
    "I-II": ((0.81, 0.69, 0.71), (0.88, 0.64, 0.60)),
    "III-IV": ((0.76, 0.60, 0.51), (0.80, 0.57, 0.45)),
    "V-VI": ((0.50, 0.36, 0.30), (0.58, 0.40, 0.30)),
}
FRECKLES = {"0-39": 1.0, "40-59": 2.0, "60+": 5.0}  # mean number in view: sun damage gathers with age
MELANIN = (0.50, 0.82, 1.02)  # absorption by channel, a unit of pigment: brown
BLOOD = (0.10, 0.62, 0.50)  # absorption by channel, a unit of blood: pink to red


def absorb(
    picture: FloatImage,
    melanin: FloatImage,
    blood: FloatImage | None = None,
    melanin_colour: tuple[float, float, float] = MELANIN,
) -> None:
    """Darken a ``(3, n, n)`` picture in place by pigment: Beer and Lambert's ``I = I0 exp(-density * absorption)``.

    Args:
        picture: Values in ``[0, 1]``.
        melanin: ``(n, n)`` density; 0.5 is a light brown spot, 2 is nearly black.
        blood: ``(n, n)`` density of red.
        melanin_colour: Absorption of the pigment by channel: nearly equal values are greyish, unequal ones yellowish.
    """
    for channel in range(3):
        depth = melanin * np.float32(-melanin_colour[channel])
        if blood is not None:
            depth -= blood * np.float32(BLOOD[channel])
        picture[channel] *= np.exp(depth)


def draw_surface(rng: np.random.Generator, n: int, tone: str, age_band: str) -> FloatImage:
    """Draw skin without a lesion.

    Args:
        rng: Consumed in the same way whatever ``n``.
        n: Pixels a side.
        tone: One of :data:`TONES`.
        age_band: Older skin has more freckles; an unknown band counts as middle age.

    Returns:
        ``(3, n, n)`` float32 in ``[0, 1]``.
    """
    ends = np.array(TONES[tone], np.float32)
    share = rng.random()
    base = ends[0] * (1 - share) + ends[1] * share
    base = base * (1 + 0.05 * rng.standard_normal()) * (1 + 0.03 * rng.standard_normal(3))  # exposure, white balance
    lit = 1 + 0.03 * drawing.smooth_noise(rng, n, 2)
    x, y = drawing.grid(n)
    # every lens falls off a little: a dark corner is more than that
    lit -= rng.uniform(0.0, 0.25) * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    relief = drawing.smooth_noise(rng, n, int(rng.integers(16, 28))) + drawing.smooth_noise(rng, n, 44)
    lit += rng.uniform(0.004, 0.016) * relief + 0.010 * drawing.smooth_noise(rng, n, 64)
    picture = np.asarray(base, np.float32)[:, None, None] * lit[None]

    melanin = rng.uniform(0.01, 0.05) * drawing.smooth_noise(rng, n, 9)
    count = int(rng.poisson(FRECKLES.get(age_band, 2.0)))
    spots = rng.random((2, 12))[:, : min(count, 12)]
    sizes, strengths = rng.uniform(0.010, 0.024, 12), rng.uniform(0.15, 0.45, 12)
    if spots.shape[1]:
        melanin += drawing.blobs(n, spots[0], spots[1], sizes[: spots.shape[1]], strengths[: spots.shape[1]])
    blood = rng.uniform(0.02, 0.09) * drawing.smooth_noise(rng, n, 6)
    absorb(picture, melanin, blood)
    return picture
