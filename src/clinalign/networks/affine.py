"""Affine maps of the plane with five numbers, and pictures seen through them.

A map is psi = (s_x, s_y, t_x, t_y, theta), one row of an ``(N, 5)`` tensor, with the matrix of CXRL (Han et al., MICCAI
2024)

    M(psi) = [[s_x cos theta, -s_y sin theta, t_x], [s_x sin theta, s_y cos theta, t_y], [0, 0, 1]]:

scale along x and y, then turn, then shift. Coordinates are those of ``torch.nn.functional.affine_grid`` with
``align_corners=False``: x to the right and y down, -1 and 1 at the outer edges of the picture, so that a shift of 0.2
is 10 % of the width. Angles are in radians; because y points down, a positive theta turns clockwise as seen.

A picture is warped by saying where each point of the result is read: ``warp(image, M)`` at x is ``image`` at M x. So
M(psi) with t_x > 0 reads further right and moves the content left, and where ``warp(image, M(psi))`` is upright, psi is
the *pose* of ``image``: its chest is s times as large as the upright one, turned by theta, and shifted by t.

These five numbers are not closed under composition: a turn between two unequal scales shears. :func:`nearest_psi` gives
the closest map of this form; it is exact where there is no shear.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError

NAMES = ("scale_x", "scale_y", "shift_x", "shift_y", "rotation")
IDENTITY = (1.0, 1.0, 0.0, 0.0, 0.0)


def identity(count: int, like: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``count`` times the psi that changes nothing, ``(count, 5)``, with the type and device of ``like``."""
    one = torch.tensor(IDENTITY) if like is None else like.new_tensor(IDENTITY)
    return one.expand(count, 5).clone()


def matrix(psi: torch.Tensor) -> torch.Tensor:
    """Return M(psi) of ``(N, 5)`` psi as ``(N, 3, 3)``; differentiable."""
    s_x, s_y, t_x, t_y, theta = psi.unbind(dim=-1)
    cos, sin, zero, one = theta.cos(), theta.sin(), torch.zeros_like(s_x), torch.ones_like(s_x)
    rows = (s_x * cos, -s_y * sin, t_x, s_x * sin, s_y * cos, t_y, zero, zero, one)
    return torch.stack(rows, dim=-1).view(*psi.shape[:-1], 3, 3)


def compose(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the matrix that warps like ``first`` and then ``second``, all ``(N, 3, 3)``.

    ``warp(warp(image, A), B)`` reads ``image`` at A B x: the product is ``first @ second``.
    """
    return first @ second


def invert(maps: torch.Tensor) -> torch.Tensor:
    """Return the inverse of affine ``(N, 3, 3)`` matrices in closed form; infinite where a scale is 0."""
    a, b, c, d = maps[..., 0, 0], maps[..., 0, 1], maps[..., 1, 0], maps[..., 1, 1]
    linear = torch.stack((d, -b, -c, a), dim=-1).view(*maps.shape[:-2], 2, 2) / (a * d - b * c)[..., None, None]
    top = torch.cat((linear, -linear @ maps[..., :2, 2:]), dim=-1)
    return torch.cat((top, maps[..., 2:, :]), dim=-2)


def nearest_psi(maps: torch.Tensor) -> torch.Tensor:
    """Return the psi whose matrix is nearest to affine ``(N, 3, 3)`` matrices in the Frobenius norm, ``(N, 5)``.

    With columns a, b of the linear part and e(theta) = (cos theta, sin theta), the best scales are s_x = a.e and
    s_y = b.e', e' being e turned by a quarter; theta then maximises s_x^2 + s_y^2, a quadratic form in (cos, sin) whose
    maximum is in closed form. Of theta and theta + pi, which give the same matrix, the one with positive scales is
    returned, with theta in (-pi, pi]. Differentiable, but at the shears where every theta is equally near.
    """
    a, b, c, d = maps[..., 0, 0], maps[..., 0, 1], maps[..., 1, 0], maps[..., 1, 1]
    theta = 0.5 * torch.atan2(2.0 * (a * c - b * d), a * a + d * d - b * b - c * c)
    cos, sin = theta.cos(), theta.sin()
    s_x, s_y = a * cos + c * sin, d * cos - b * sin
    turned = s_x + s_y < 0
    theta = torch.where(turned, theta - math.pi * torch.where(theta > 0, 1.0, -1.0), theta)
    s_x, s_y = (torch.where(turned, -scale, scale) for scale in (s_x, s_y))
    return torch.stack((s_x, s_y, maps[..., 0, 2], maps[..., 1, 2], theta), dim=-1)


def warp(images: torch.Tensor, maps: torch.Tensor, padding: str = "border") -> torch.Tensor:
    """Return ``images`` read at M x, bilinear, ``align_corners=False``; differentiable in both.

    Args:
        images: ``(N, C, H, W)``, square: in other pictures a turn of the unit square would shear.
        maps: ``(N, 3, 3)`` affine matrices (see the module).
        padding: What lies beyond the picture: ``border`` repeats its edge, ``zeros`` is black, ``reflection`` mirrors.

    Returns:
        Images of the same shape; values stay within those of ``images`` (and 0, for ``zeros``).

    Raises:
        UserError: When the images are not square.
    """
    if images.shape[-1] != images.shape[-2]:
        raise UserError(f"only square images can be turned, got {tuple(images.shape[-2:])}: pad or crop them first")
    grid = F.affine_grid(maps[:, :2].to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
