"""Two rewards without weights or labels, for a first look at whether the loop learns at all.

Either must rise within some ten epochs; where it does not, there is a fault in the set-up and not in a clinical reward.
They say nothing about an image's worth, and are marked ``sanity`` so that a check asks no more of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clinalign.core.images import to_pil
from clinalign.core.types import Case, RewardResult
from clinalign.rewards.settings import check_settings, refuse_path

JPEG_QUALITY = 95  # as in DDPO (Black et al., 2023), section 5.1


class SanityReward:
    """A score of the picture alone, the same for every case.

    Args:
        name: Its name, which is also its identity.
        score: Maps ``(N, 3, H, W)`` in ``[0, 1]`` to ``(N,)`` float32.
    """

    sanity = True

    def __init__(self, name: str, score: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.name = name
        self.identity = name
        self.score = score

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images``; every score is valid."""
        values = self.score(images)
        return RewardResult(values, torch.ones(len(values), dtype=torch.bool, device=values.device))


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Return the mean of all pixels, ``(N,)`` in ``[0, 1]``; differentiable."""
    return images.float().mean(dim=(1, 2, 3))


def compressibility(images: torch.Tensor) -> torch.Tensor:
    """Return minus the size of each image as JPEG, in kilobytes of 1000 bytes, ``(N,)`` (DDPO); not differentiable."""
    sizes = []
    for picture in to_pil(images.detach()):
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
        sizes.append(-buffer.tell() / 1000.0)
    return torch.tensor(sizes, device=images.device)


def brightness_reward(path: Path | None, settings: Mapping[str, Any], device: torch.device) -> SanityReward:
    """Build the reward ``brightness``; it has no weights and no settings."""
    refuse_path("brightness", path)
    check_settings("brightness", settings, ())
    return SanityReward("brightness", brightness)


def compressibility_reward(path: Path | None, settings: Mapping[str, Any], device: torch.device) -> SanityReward:
    """Build the reward ``compressibility``; it has no weights and no settings."""
    refuse_path("compressibility", path)
    check_settings("compressibility", settings, ())
    return SanityReward("compressibility", compressibility)
