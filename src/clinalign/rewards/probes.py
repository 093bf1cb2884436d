"""Pictures and labels on which a reward must not score well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from clinalign.core.types import Case


def flip(case: Case, names: Sequence[str], exclusive: Mapping[str, Sequence[str]], random: np.random.Generator) -> Case:
    """Return ``case`` with the attributes ``names`` answered wrongly.

    In a group of which exactly one member is present, the true member changes place with a random other one that is
    known, so that the wrong answer is still a possible one. An unknown attribute stays unknown.

    Args:
        case: A case.
        names: Attributes to flip; a group is flipped once, whichever of its members is named.
        exclusive: Group name to members.
        random: Chooses the other member.
    """
    attributes = dict(case.attributes)
    grouped = {member for members in exclusive.values() for member in members}
    for name in names:
        if name not in grouped and attributes.get(name) is not None:
            attributes[name] = 1 - int(attributes[name] or 0)
    for members in exclusive.values():
        present = [member for member in members if attributes.get(member) == 1]
        absent = [member for member in members if attributes.get(member) == 0]
        if present and absent and set(members) & set(names):
            # The attribute that is asked for takes part itself; where the true one is asked for, any other will do.
            asked = [member for member in absent if member in names] if not set(present) & set(names) else absent
            attributes[present[0]], attributes[asked[random.integers(len(asked))]] = 0, 1
    return replace(case, attributes=attributes)


def worthless_images(images: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """Return pictures that no case describes, each ``(N, 3, H, W)`` in ``[0, 1]`` like ``images``.

    Args:
        images: Real images.
        seed: Of the noise and the order.

    Returns:
        ``noise`` (uniform), ``soft_noise`` (normal, with the mean and spread of the images), ``black``, ``grey``,
        ``white``, ``inverted`` (the negative, as another modality would look) and ``scrambled`` (its sixteen tiles in
        another order).
    """
    random = torch.Generator().manual_seed(seed)
    shape = images.shape
    normal = torch.randn(shape, generator=random) * images.std() + images.mean()
    return {
        "noise": torch.rand(shape, generator=random),
        "soft_noise": normal.clamp(0.0, 1.0),
        "black": torch.zeros(shape),
        "grey": torch.full(shape, 0.5),
        "white": torch.ones(shape),
        "inverted": 1.0 - images,
        "scrambled": _scramble(images, random),
    }


def _scramble(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Cut each image into 4 x 4 tiles and put them together in one other order; a remainder of the side stays black."""
    height, width = images.shape[-2] // 4, images.shape[-1] // 4
    out = torch.zeros_like(images)
    for target, source in enumerate(torch.randperm(16, generator=random).tolist()):
        (to_row, to_column), (row, column) = divmod(target, 4), divmod(source, 4)
        out[..., to_row * height : (to_row + 1) * height, to_column * width : (to_column + 1) * width] = images[
            ..., row * height : (row + 1) * height, column * width : (column + 1) * width
        ]
    return out
