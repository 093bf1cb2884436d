from __future__ import annotations

import pytest
import torch

from clinalign.networks.spoil import KINDS, spoil


def drawn(side: int = 32) -> torch.Tensor:
    """Eight pictures of smooth blobs, between 0.2 and 0.8."""
    chance = torch.Generator().manual_seed(0)
    coarse = torch.rand((8, 3, 5, 5), generator=chance) * 0.6 + 0.2
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")


def chance(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grain(images: torch.Tensor) -> torch.Tensor:
    """Mean square difference of neighbours, one number a picture."""
    return (images[..., 1:] - images[..., :-1]).square().mean((1, 2, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [32, 64])
def test_every_picture_is_spoilt_and_stays_a_picture(kind: str, side: int) -> None:
    images = drawn(side)
    spoilt = spoil(images, kind, chance())
    assert spoilt.shape == images.shape
    assert 0.0 <= spoilt.min() <= spoilt.max() <= 1.0
    assert (spoilt - images).abs().mean((1, 2, 3)).min() > 0.005
    assert torch.equal(spoilt, spoil(images, kind, chance()))


def test_each_kind_does_what_it_says() -> None:
    images = drawn()
    contrast = images.std((1, 2, 3))
    assert (grain(spoil(images, "blurred", chance())) < 0.8 * grain(images)).all()
    assert (grain(spoil(images, "grainy", chance())) > 3 * grain(images)).all()
    assert (spoil(images, "garish", chance()).std((1, 2, 3)) > 1.3 * contrast).all()
    torn = spoil(images, "torn", chance())
    assert torch.equal(torn[..., :16, :16], images[..., 16:, 16:])
    assert torch.equal(torn[..., 16:, :16], images[..., 16:, :16])
    changed = spoil(images, "mottled", chance()) - images
    # blotches are far larger than pixels: neighbours change together
    assert ((changed[..., 1:] - changed[..., :-1]).square().mean() < 0.2 * changed.square().mean()).item()


def test_blurring_keeps_the_mean_and_a_flat_picture() -> None:
    flat = torch.full((2, 3, 32, 32), 0.4)
    assert torch.allclose(spoil(flat, "blurred", chance()), flat, atol=1e-5)
