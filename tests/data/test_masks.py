from __future__ import annotations

import io

import numpy as np
from PIL import Image

from clinalign.data.masks import MAX_MASKS, decode_mask, encode_masks


def test_24_overlapping_masks_come_back_as_they_were() -> None:
    rng = np.random.default_rng(0)
    masks = {f"region {k}": rng.random((9, 9)) < 0.5 for k in range(MAX_MASKS)}
    pixels = np.asarray(Image.open(io.BytesIO(encode_masks(masks, list(masks)))))
    for k, mask in enumerate(masks.values()):
        assert (decode_mask(pixels, k) == mask).all()


def test_the_first_region_can_be_seen_in_any_viewer() -> None:
    picture = Image.open(io.BytesIO(encode_masks({"lesion": np.ones((4, 4), bool)}, ["lesion"])))
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (128, 0, 0)
