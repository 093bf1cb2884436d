"""Several masks in one small picture: each region owns one bit of one colour channel.

Region k is bit ``7 - k // 3`` of channel ``k % 3``: the first regions are the brightest, so that any viewer shows them,
in red, green and blue, and their overlaps in mixed colours. An 8-bit RGB picture holds 24 regions.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_MASKS = 24


def encode_masks(masks: Mapping[str, npt.NDArray[np.bool_]], names: Sequence[str]) -> bytes:
    """Return the PNG of ``masks``.

    Args:
        masks: Region name to ``(H, W)`` bool; at least one. Regions that are not there are empty.
        names: All region names of the dataset in order, at most ``MAX_MASKS``.
    """
    pixels = np.zeros((*next(iter(masks.values())).shape, 3), np.uint8)
    for name, mask in masks.items():
        channel, bit = _place(names.index(name))
        pixels[..., channel] |= mask.astype(np.uint8) << bit
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def decode_mask(pixels: npt.NDArray[np.uint8], index: int) -> npt.NDArray[np.bool_]:
    """Return mask number ``index``, ``(H, W)`` bool, of the pixels ``(H, W, 3)`` of a mask file."""
    channel, bit = _place(index)
    return ((pixels[..., channel] >> bit) & 1).astype(bool)


def _place(index: int) -> tuple[int, int]:
    """Channel and bit of region number ``index``."""
    return index % 3, 7 - index // 3
