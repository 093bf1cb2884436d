"""Update rules, one small file each: how pictures and their advantages become a gradient."""

from __future__ import annotations

from typing import Any

from clinalign.core.config import TuneConfig
from clinalign.core.registry import Registry
from clinalign.tuning.objectives.awm import Awm
from clinalign.tuning.objectives.base import Objective, Policy
from clinalign.tuning.objectives.ddpo import Ddpo
from clinalign.tuning.objectives.draft import Draft
from clinalign.tuning.objectives.nft import Nft
from clinalign.tuning.objectives.preference import Preference
from clinalign.tuning.objectives.window import DdpoWindow

OBJECTIVES: Registry[type[Any]] = Registry("update rule", "clinalign.objectives")
OBJECTIVES.add("ddpo", Ddpo)
OBJECTIVES.add("ddpo_window", DdpoWindow)
OBJECTIVES.add("awm", Awm)
OBJECTIVES.add("nft", Nft)
OBJECTIVES.add("draft", Draft)
OBJECTIVES.add("preference", Preference)


def build_objective(config: TuneConfig, policy: Policy) -> Objective[Any]:
    """Return the update rule that the config names.

    Raises:
        UserError: When there is none of that name, or the model's sampler cannot serve it.
    """
    built: Objective[Any] = OBJECTIVES.get(config.objective.name)(config, config.objective, policy)
    return built
