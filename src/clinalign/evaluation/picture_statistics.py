"""What can be seen of a picture without any network: its intensities, edges, fine detail and layout.

Each kernel maps ``(N, 3, H, W)`` images in ``[0, 1]`` to one number or one row a picture, so that sets of pictures are
compared, and resampled, by weighted means.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError

BINS = 64  # of an intensity histogram
TILES = 8  # a side
_SMALLEST = 4  # pixels a side below which there is no detail to speak of
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def intensity_histograms(images: torch.Tensor) -> torch.Tensor:
    """Return the share of pixels in each of :data:`BINS` equal bins of ``[0, 1]``, ``(N, 3, BINS)`` float64."""
    bins = (images.double() * BINS).long().clamp(0, BINS - 1).flatten(2)
    counts = torch.zeros(*bins.shape[:2], BINS, dtype=torch.float64, device=images.device)
    return counts.scatter_add_(2, bins, torch.ones_like(bins, dtype=torch.float64)) / bins.shape[2]


def edge_density(images: torch.Tensor) -> torch.Tensor:
    """Return the mean Sobel gradient magnitude of the grey picture, ``(N,)`` float64 in intensities a pixel."""
    grey = _grey(images)[:, None]
    across = torch.tensor(_SOBEL, dtype=grey.dtype, device=grey.device)[None, None] / 8.0
    gradient = F.conv2d(grey, torch.cat([across, across.transpose(2, 3)]))
    return gradient.square().sum(1).sqrt().mean(dim=(1, 2))


def fine_detail(images: torch.Tensor) -> torch.Tensor:
    """Return the share of spectral power above half the Nyquist frequency, ``(N,)`` float64 in ``[0, 1]``.

    Of the grey picture without its mean, under a Hann window, so that the jump from one border to the other is not
    taken for detail. A grid or checkerboard raises it, blur lowers it. 0 for a picture of one grey.
    """
    grey = _grey(images)
    height, width = grey.shape[-2:]
    window = torch.hann_window(height, dtype=grey.dtype)[:, None] * torch.hann_window(width, dtype=grey.dtype)[None]
    power = torch.fft.fft2((grey - grey.mean(dim=(1, 2), keepdim=True)) * window.to(grey.device)).abs().square()
    radius = torch.maximum(
        torch.fft.fftfreq(height, dtype=grey.dtype).abs()[:, None],
        torch.fft.fftfreq(width, dtype=grey.dtype).abs()[None],
    ).to(grey.device)
    whole = power.sum(dim=(1, 2))
    # rounding leaves some 1e-30 of power in a flat picture, and a share of that means nothing
    return torch.where(whole > 1e-12, (power * (radius > 0.25)).sum(dim=(1, 2)) / whole.clamp_min(1e-12), 0.0)


def tile_means(images: torch.Tensor) -> torch.Tensor:
    """Return the mean intensity of each tile of an 8 x 8 raster and channel, ``(N, 3 * 64)`` float64.

    What sits at one place in every picture, a bright corner, a frame, a burnt-in letter, shows here and hardly in the
    histogram.
    """
    return F.adaptive_avg_pool2d(images.double(), TILES).flatten(1)


def _grey(images: torch.Tensor) -> torch.Tensor:
    if min(images.shape[-2:]) < _SMALLEST:
        raise UserError(f"watch metrics need pictures of at least {_SMALLEST} px, got {tuple(images.shape[-2:])}")
    return images.double().mean(dim=1)
