"""Films in random known poses: how the alignment network labels its own training data.

A film of pose P that is warped by D^-1 has pose D P: the canonical picture is the film read at P x, hence the warped
one read at D P x. So a network that is shown the warped film can be taught D P without a label from anybody.

What lies beyond the film's edge repeats the edge, so that a seam shows the warp too. Whether a network reads the chest
or the seam is measured on phantoms that were drawn in wide postures and never warped (docs/rewards_posture.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

from clinalign.core.errors import UserError
from clinalign.networks.affine import invert, matrix, warp
from clinalign.networks.augment import photometric


@dataclass(frozen=True)
class Warps:
    """Ranges of the random poses; each is drawn uniformly (R, all of them).

    Attributes:
        rotation: Largest turn either way, in degrees.
        zoom: Largest factor of size, and its inverse.
        stretch: Largest ratio of width to height, and its inverse.
        shift: Largest shift either way, as a share of the width, in x and in y.

    Raises:
        UserError: For a value out of range.
    """

    rotation: float = 25.0
    zoom: float = 1.35
    stretch: float = 1.1
    shift: float = 0.25

    def __post_init__(self) -> None:
        """Check every value."""
        limits = {"rotation": (0, 60), "zoom": (1, 2), "stretch": (1, 1.5), "shift": (0, 0.5)}
        for entry in fields(self):
            low, high = limits[entry.name]
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise UserError(f"{entry.name} of the warps must be a number from {low} to {high}, got {value!r}")

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draw ``count`` poses, ``(count, 5)`` psi on the generator's device."""
        unit = 2.0 * torch.rand((count, 5), generator=generator, device=generator.device) - 1.0
        size, ratio = unit[:, 0] * math.log(self.zoom), unit[:, 1] * math.log(self.stretch) / 2
        scales = torch.stack((size + ratio, size - ratio), dim=1).exp()
        # two grid units are one width
        return torch.cat((scales, 2.0 * self.shift * unit[:, 2:4], math.radians(self.rotation) * unit[:, 4:]), dim=1)


def in_pose(images: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    """Return ``images`` ``(N, C, H, W)`` moved from the identity to ``poses`` ``(N, 5)``, repeating their border."""
    return warp(images, invert(matrix(poses)))


def random_views(
    images: torch.Tensor, own: torch.Tensor, warps: Warps, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move films into random poses and change how they look.

    Args:
        images: ``(N, 3, H, W)`` in ``[0, 1]``, square.
        own: ``(N, 3, 3)`` matrices of their poses P.
        warps: What poses D to draw.
        generator: Source of randomness, on the images' device.

    Returns:
        Changed images in ``[0, 1]``, and ``(N, 3, 3)`` matrices D P of their poses.
    """
    added = warps.draw(len(images), generator)
    return photometric(in_pose(images, added), generator).clamp(0.0, 1.0), matrix(added) @ own
