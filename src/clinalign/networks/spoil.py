"""Pictures spoilt in the ways in which a policy fools a classifier: what a judge of realism must turn down."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clinalign.networks.augment import uniform

KINDS = ("blurred", "grainy", "mottled", "garish", "torn")


def spoil(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Spoil each picture in one way, to a degree that an eye sees at once.

    Args:
        images: ``(N, 3, H, W)`` in ``[0, 1]``.
        kind: ``blurred`` (Gaussian of 1 to 2 pixels a 32nd of the side), ``grainy`` (pixel noise of 0.06 to 0.12),
            ``mottled`` (blotches, of a quarter to an eighth of the side, that change brightness and hue), ``garish``
            (contrast and colour 1.6 to 2.2 times), ``torn`` (two quarters of the picture change places).
        generator: Source of randomness, on the images' device.

    Returns:
        Pictures of the same shape in ``[0, 1]``.
    """
    return _SPOILERS[kind](images, generator).clamp(0.0, 1.0)


def _blurred(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    sigma = uniform(images, generator, 1.0, 2.0) * images.shape[-1] / 32
    radius = int(3 * images.shape[-1] / 16)
    away = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    taps = torch.softmax(-(away**2) / (2 * sigma.view(-1, 1) ** 2), dim=1).repeat_interleave(3, 0)[:, None]
    rows = images.flatten(0, 1)[None]  # every channel of every picture is a group of its own
    for kernel, pad in ((taps[:, :, :, None], (0, 0, radius, radius)), (taps[:, :, None], (radius, radius, 0, 0))):
        rows = F.conv2d(F.pad(rows, pad, mode="replicate"), kernel, groups=rows.shape[1])
    return rows.view_as(images)


def _grainy(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + noise * uniform(images, generator, 0.06, 0.12)


def _mottled(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    blotches = torch.zeros_like(images)
    for cells in (4, 8):
        coarse = torch.randn((len(images), 3, cells, cells), generator=generator, device=images.device)
        blotches += F.interpolate(coarse, images.shape[-2:], mode="bicubic")
    return images + blotches * uniform(images, generator, 0.05, 0.1)


def _garish(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * uniform(images, generator, 1.6, 2.2) + mean


def _torn(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    half = images.shape[-1] // 2
    torn = images.clone()
    torn[..., :half, :half], torn[..., half : 2 * half, half : 2 * half] = (
        images[..., half : 2 * half, half : 2 * half],
        images[..., :half, :half],
    )
    return torn


_SPOILERS = {"blurred": _blurred, "grainy": _grainy, "mottled": _mottled, "garish": _garish, "torn": _torn}
