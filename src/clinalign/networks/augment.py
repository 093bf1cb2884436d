"""Random changes of training images that leave their labels true.

The recipes also smooth, brighten and add noise, so that a classifier judges generated images (a little too smooth, a
little off in colour) by what they show and not by these traces.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError, nearest

RECIPES = ("dermoscopy", "chest x-ray", "none")


def check_recipe(recipe: str) -> None:
    """Raise a :class:`UserError` when ``recipe`` is not one of :data:`RECIPES`."""
    if recipe not in RECIPES:
        raise UserError(f"unknown augmentation '{recipe}': {nearest(recipe, RECIPES)}")


def augment(images: torch.Tensor, recipe: str, generator: torch.Generator) -> torch.Tensor:
    """Change each image at random.

    Args:
        images: ``(N, 3, H, W)`` in ``[0, 1]``, square.
        recipe: ``dermoscopy`` (flips and quarter turns: a lesion has no upright), ``chest x-ray`` (turns up to 5
            degrees, shifts and zooms up to 5 %; never flipped, the heart lies on one side), or ``none``.
        generator: Source of randomness, on the images' device.

    Returns:
        Images of the same shape in ``[0, 1]``.
    """
    if recipe == "none":
        return images
    return photometric(move(images, recipe, generator), generator).clamp(0.0, 1.0)


def augment_with_masks(
    images: torch.Tensor, masks: torch.Tensor, recipe: str, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change each image at random and move its masks along.

    Args:
        images: ``(N, 3, H, W)`` in ``[0, 1]``, square.
        masks: ``(N, R, H, W)`` of any type, 0 or 1.
        recipe: See :func:`augment`.
        generator: Source of randomness, on the images' device.

    Returns:
        Images in ``[0, 1]``, and float32 masks in ``[0, 1]``: in between at an edge that fell between two pixels.
    """
    if recipe == "none":
        return images, masks.float()
    both = move(torch.cat([images, masks.float()], dim=1), recipe, generator)
    return photometric(both[:, :3], generator).clamp(0.0, 1.0), both[:, 3:]


def move(images: torch.Tensor, recipe: str, generator: torch.Generator) -> torch.Tensor:
    """Move the content of each image at random as ``recipe`` allows; arguments as for :func:`augment`."""
    if recipe == "none":
        return images
    return (_flip_and_turn if recipe == "dermoscopy" else _small_affine)(images, generator)


def _coin(images: torch.Tensor, generator: torch.Generator, chance: float) -> torch.Tensor:
    """Return ``(N, 1, 1, 1)`` bool, true with probability ``chance``."""
    return torch.rand((len(images), 1, 1, 1), generator=generator, device=images.device) < chance


def uniform(images: torch.Tensor, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    """Return ``(N, 1, 1, 1)`` numbers between ``low`` and ``high``."""
    return low + (high - low) * torch.rand((len(images), 1, 1, 1), generator=generator, device=images.device)


def _flip_and_turn(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw one of the eight symmetries of the square for each image."""
    images = torch.where(_coin(images, generator, 0.5), images.flip(-1), images)
    images = torch.where(_coin(images, generator, 0.5), images.flip(-2), images)
    return torch.where(_coin(images, generator, 0.5), images.transpose(-1, -2), images)


def _small_affine(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn, zoom and shift each image a little, repeating its border."""
    angle = uniform(images, generator, -math.pi / 36, math.pi / 36).flatten()
    zoom = uniform(images, generator, 0.95, 1.05).flatten()
    shift_x, shift_y = (uniform(images, generator, -0.1, 0.1).flatten() for _ in range(2))  # of half a side: 5 %
    rows = torch.stack(
        (zoom * angle.cos(), -zoom * angle.sin(), shift_x, zoom * angle.sin(), zoom * angle.cos(), shift_y), dim=1
    )
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def photometric(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Change brightness and contrast (each up to 15 %), blur three in ten images, add noise to half of them.

    Args:
        images: ``(N, 3, H, W)`` in ``[0, 1]``.
        generator: Source of randomness, on the images' device.

    Returns:
        Images of the same shape; some values may lie a little outside ``[0, 1]``.
    """
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    contrast = uniform(images, generator, 0.85, 1.15)
    images = (images - mean) * contrast + mean * uniform(images, generator, 0.85, 1.15)
    taps = images.new_tensor([0.25, 0.5, 0.25])
    kernel = (taps[:, None] * taps[None, :]).expand(images.shape[1], 1, 3, 3)
    smooth = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1])
    share = uniform(images, generator, 0.0, 1.0) * _coin(images, generator, 0.3)
    images = images + share * (smooth - images)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return images + noise * uniform(images, generator, 0.0, 0.03) * _coin(images, generator, 0.5)
