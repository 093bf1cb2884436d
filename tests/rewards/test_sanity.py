"""The two rewards that need nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.rewards import load_reward


def test_brightness_is_the_mean_pixel_and_has_gradients() -> None:
    images = torch.stack([torch.full((3, 8, 8), 0.25), torch.ones(3, 8, 8)]).requires_grad_()
    result = load_reward("brightness")(images, [Case("1", "")] * 2)
    assert result.values.tolist() == [0.25, 1.0]
    assert result.valid.all()
    assert result.values.requires_grad


def test_a_flat_image_compresses_better_than_noise() -> None:
    images = torch.stack([torch.full((3, 32, 32), 0.5), torch.rand(3, 32, 32)])
    flat, noise = load_reward("compressibility")(images, [Case("1", "")] * 2).values.tolist()
    assert noise < flat < 0  # minus kilobytes
    assert flat > -1.0  # a flat 32 px JPEG is little more than its header of some 600 bytes


@pytest.mark.parametrize("name", ["brightness", "compressibility"])
def test_messages(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' has no weights"):
        load_reward(name, Path("somewhere"))
    with pytest.raises(UserError, match=f"'{name}' has no setting 'quality': it has none"):
        load_reward(name, settings={"quality": 3})
