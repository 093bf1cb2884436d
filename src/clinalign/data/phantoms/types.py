"""What a phantom is: one drawn case whose truth is known to the pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BoolImage = NDArray[np.bool_]
FloatImage = NDArray[np.float32]
RGBImage = NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Phantom:
    """One drawn case with its complete truth.

    Attributes:
        image: ``(size, size, 3)`` uint8 RGB; grey films repeat their one channel three times.
        attributes: Attribute name to 0 or 1. A phantom's truth is complete: nothing is unknown.
        subgroups: Subgroup column (``age_band``, ``sex``, ...) to value.
        masks: Structure name to a ``(size, size)`` boolean mask of the pixels that it touches.
        boxes: Structure name to ``(x0, y0, x1, y1)`` in ``[0, 1]``, origin at the top left; only present structures.
        report: The report's text, for chest phantoms; ``None`` for skin.
        parameters: Continuous truth (rotation in degrees, zoom, shift, lesion radius, ...).
    """

    image: RGBImage
    attributes: dict[str, int]
    subgroups: dict[str, str]
    masks: dict[str, BoolImage]
    boxes: dict[str, Box]
    report: str | None = None
    parameters: dict[str, float] = field(default_factory=dict)


def box_of(mask: BoolImage) -> Box | None:
    """Return the tight box around ``mask`` as fractions of the picture's sides.

    Args:
        mask: ``(height, width)`` boolean.

    Returns:
        ``(x0, y0, x1, y1)`` in ``[0, 1]``, or ``None`` where the mask is empty. The box encloses whole pixels, so one
        pixel at the left edge of a picture 10 wide has ``x0 = 0.0`` and ``x1 = 0.1``.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if columns.size == 0:
        return None
    height, width = mask.shape
    return (
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )
