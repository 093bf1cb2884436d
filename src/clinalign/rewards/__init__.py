"""Rewards: functions of images and cases that give one score a sample.

``clinalign.rewards``. A factory takes ``(path, settings, device)`` and returns a :class:`clinalign.core.types.Reward`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from clinalign.core.registry import Registry
from clinalign.core.types import Reward
from clinalign.rewards.attributes import attribute_reward
from clinalign.rewards.consistency import consistency_reward
from clinalign.rewards.diagnostic import diagnostic_reward
from clinalign.rewards.ensemble import ensemble_reward
from clinalign.rewards.posture import posture_reward
from clinalign.rewards.realism import realism_reward
from clinalign.rewards.region import region_reward
from clinalign.rewards.sanity import brightness_reward, compressibility_reward

RewardFactory = Callable[[Path | None, Mapping[str, Any], torch.device], Reward]

REWARDS: Registry[RewardFactory] = Registry("reward", "clinalign.rewards")
REWARDS.add("attributes", attribute_reward)
REWARDS.add("brightness", brightness_reward)
REWARDS.add("compressibility", compressibility_reward)
REWARDS.add("consistency", consistency_reward)
REWARDS.add("diagnostic", diagnostic_reward)
REWARDS.add("ensemble", partial(ensemble_reward, REWARDS))
REWARDS.add("posture", posture_reward)
REWARDS.add("realism", realism_reward)
REWARDS.add("region", region_reward)


def load_reward(
    name: str,
    path: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> Reward:
    """Build the reward called ``name``.

    Args:
        name: A name in :data:`REWARDS`.
        path: Folder with its weights, for the rewards that have some.
        settings: The reward's own settings, for example ``{"score": "probability"}``.
        device: Where it computes.

    Returns:
        The reward.

    Raises:
        UserError: For an unknown name or setting (naming the nearest), or weights that cannot be read.
    """
    return REWARDS.get(name)(Path(path) if path is not None else None, settings or {}, torch.device(device))
