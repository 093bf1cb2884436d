"""Pictures whose intensities, edges, detail and layout are known by hand."""

from __future__ import annotations

import math

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.picture_statistics import (
    BINS,
    edge_density,
    fine_detail,
    intensity_histograms,
    tile_means,
)


def wave(frequency: float, size: int = 64) -> torch.Tensor:
    """A grey wave along x with ``frequency`` cycles a pixel."""
    line = 0.5 + 0.4 * torch.cos(2 * math.pi * frequency * torch.arange(size))
    return line.expand(1, 3, size, size)


def test_histograms_count_every_pixel_once() -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[1, 0, :, :4] = 1.0  # red, in the left half of the second picture
    shares = intensity_histograms(images)
    assert shares.shape == (2, 3, BINS)
    assert torch.equal(shares.sum(2), torch.ones(2, 3, dtype=torch.float64))
    assert (shares[1, 0, 0], shares[1, 0, -1]) == (0.5, 0.5)
    assert shares[1, 1, 0] == shares[0, 0, 0] == 1.0


def test_edge_density_of_a_ramp_is_its_slope_in_any_direction() -> None:
    ramp = (0.01 * torch.arange(16.0)).expand(1, 3, 16, 16)
    assert float(edge_density(ramp)) == pytest.approx(0.01, rel=1e-5)
    assert float(edge_density(ramp.transpose(2, 3))) == pytest.approx(0.01, rel=1e-5)
    assert float(edge_density(torch.full((1, 3, 16, 16), 0.7))) == pytest.approx(0.0, abs=1e-9)


def test_fine_detail_tells_waves_above_half_nyquist_from_those_below() -> None:
    assert float(fine_detail(wave(0.4))) > 0.99
    assert float(fine_detail(wave(0.1))) < 0.01
    # white noise: the share of the spectrum's area outside of the inner half is three quarters
    noise = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert float(fine_detail(noise).mean()) == pytest.approx(0.75, abs=0.02)


def test_a_flat_picture_has_no_detail_and_no_nan() -> None:
    assert float(fine_detail(torch.full((1, 3, 32, 32), 0.3))) == 0.0


def test_a_grid_raises_fine_detail_and_blur_lowers_it() -> None:
    scene = torch.nn.functional.avg_pool2d(
        torch.rand(4, 3, 66, 66, generator=torch.Generator().manual_seed(1)), 3, stride=1
    )
    grid = scene.clone()
    grid[..., ::2, ::2] += 0.1
    blurred = torch.nn.functional.avg_pool2d(scene, 5, stride=1, padding=2)
    assert bool((fine_detail(grid) > fine_detail(scene)).all())
    assert bool((fine_detail(blurred) < fine_detail(scene)).all())


def test_tile_means_find_the_bright_corner() -> None:
    images = torch.zeros(1, 3, 16, 16)
    images[..., :2, :2] = 1.0
    tiles = tile_means(images).reshape(3, 8, 8)
    assert torch.equal(tiles[:, 0, 0], torch.ones(3, dtype=torch.float64))
    assert float(tiles.sum()) == 3.0


def test_pictures_too_small_to_have_detail_are_refused() -> None:
    with pytest.raises(UserError, match="at least 4 px"):
        fine_detail(torch.zeros(1, 3, 2, 2))
