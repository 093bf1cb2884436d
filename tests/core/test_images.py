from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from clinalign.core.images import from_pil, resize, to_pil, to_uint8


def test_one_becomes_255_and_values_round_to_the_nearest() -> None:
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 127.4 / 255, 254.6 / 255, 1.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 127, 255, 255]


def test_nothing_wraps_around() -> None:
    assert to_uint8(torch.tensor([-0.1, -5.0, 1.1, 300.0])).tolist() == [0, 0, 255, 255]


def test_every_8_bit_value_survives_there_and_back() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    pictures = to_pil(ramp.float() / 255)
    assert pictures[0].mode == "RGB"
    assert torch.equal(to_uint8(from_pil(pictures[0])), ramp[0])


def test_rows_and_colours_stay_in_place() -> None:
    image = torch.zeros(1, 3, 2, 4)
    image[0, 0, 0, 3] = 1.0  # red, at the top right
    picture = to_pil(image)[0]
    assert picture.size == (4, 2)
    assert picture.getpixel((3, 0)) == (255, 0, 0)
    assert torch.equal(from_pil(picture), image[0])


def test_a_grey_picture_gets_three_equal_channels() -> None:
    image = from_pil(Image.fromarray(np.array([[0, 255]], dtype=np.uint8)))
    assert image.shape == (3, 1, 2)
    assert torch.equal(image[0], image[2])
    assert image.max() == 1.0


def test_resizing_keeps_range_and_mean() -> None:
    images = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    assert resize(images, 32) is images
    small = resize(images, 8)
    assert small.shape == (2, 3, 8, 8)
    assert small.min() >= 0
    assert small.max() <= 1
    # antialiased, a small picture averages the large one; at the rim a little weight goes outside, hence not exact
    assert abs(float(small.mean() - images.mean())) < 0.01
    assert float(small.std()) < 0.6 * float(images.std())  # plain bilinear, which skips pixels, leaves 0.5 and moire
