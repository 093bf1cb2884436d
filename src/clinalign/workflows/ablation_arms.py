"""The arms of an ablation: one config, with one thing taken away in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clinalign.core.config import TuneConfig
from clinalign.core.errors import UserError, nearest

ANCHOR, FULL, PROMPTED = "anchor", "full", "ace_without_rl"


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: Name of its folder.
        label: What it is, in words.
        config: What is tuned; ``None`` for the anchor, which is not, and for tokens that stage 1 learns.
    """

    name: str
    label: str
    config: TuneConfig | None = None


def arms_of(config: TuneConfig, only: Sequence[str] = ()) -> list[Arm]:
    """Return the anchor, the method as the config has it, and one arm for each part that can be taken away.

    Args:
        config: The full method.
        only: Names of the arms wanted besides the anchor; all that apply when empty.

    Raises:
        UserError: For an arm that the config does not have, naming the nearest.
    """
    arms = [Arm(ANCHOR, "anchor"), Arm(FULL, "full", config)]
    if config.generator.ace.tokens:
        generator = config.generator.model_copy(update={"ace": config.generator.ace.model_copy(update={"tokens": 0})})
        arms.append(Arm("without_ace", "without ACE", config.model_copy(update={"generator": generator})))
    if config.feedback.name == "comparative":
        absolute = config.feedback.model_copy(update={"name": "absolute"})
        arms.append(Arm("without_rlcf", "without RLCF", config.model_copy(update={"feedback": absolute})))
    if len(config.rewards) > 1:
        for number, reward in enumerate(config.rewards):
            same = sum(other.name == reward.name for other in config.rewards) > 1
            name = f"{reward.name}{number}" if same else reward.name
            arms.append(Arm(f"only_{name}", f"only {name}", config.model_copy(update={"rewards": (reward,)})))
    if config.generator.ace.tokens:
        arms.append(Arm(PROMPTED, "ACE without RL"))
    names = [arm.name for arm in arms]
    for name in only:
        if name not in names:
            raise UserError(f"this config has no arm '{name}': {nearest(name, names)}")
    return [arm for arm in arms if not only or arm.name in (ANCHOR, *only)]
