"""The one place where image tensors become 8-bit pixels and back."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Convert images in ``[0, 1]`` to 8 bits, rounding to nearest, so that 1.0 becomes 255.

    Args:
        images: Float tensor of any shape; values outside ``[0, 1]`` are clipped.

    Returns:
        A ``uint8`` tensor of the same shape.
    """
    return (images.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """Convert ``(N, 3, H, W)`` images in ``[0, 1]`` to RGB pictures."""
    array = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in array]


def from_pil(picture: Image.Image) -> torch.Tensor:
    """Convert a picture to a ``(3, H, W)`` float32 tensor in ``[0, 1]``."""
    array = np.asarray(picture.convert("RGB"), dtype=np.uint8)
    return torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255.0


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize ``(N, 3, H, W)`` images to ``(N, 3, size, size)``, bilinear with antialiasing; a no-op at that size."""
    if images.shape[-2:] == (size, size):
        return images
    return torch.nn.functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
