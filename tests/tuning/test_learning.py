"""Every update rule makes a policy of four numbers brighter, and leaves alone what the reward does not see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# Group advantages: they have mean zero at once. Running ones are mostly positive while the reward rises, which pulls
# the matching rules towards their own pictures and holds them up.
TOY = {
    "rollout.images_per_prompt": 8,
    "advantage.name": "group",
    "train.learning_rate": 0.3,
    "train.micro_batch": 256,
}
RULES: dict[str, dict[str, Any]] = {
    "ddpo": {"clip_range": 0.5},
    "ddpo-ratio_norm": {"clip_range": 0.5, "ratio_norm": True},
    "ddpo_window": {"window": 2, "interval": 1, "clip_range": 0.5},
    "ddpo_window-branch": {"window": 2, "interval": 1, "clip_range": 0.5, "branch": True},
    "awm-clean": {"weight": "clean"},
    "awm-snr": {"weight": "snr"},
    "awm-none": {"weight": "none"},
    "nft": {"beta": 0.1, "advantage_scale": 1.0},  # the defaults go the same way, ten times more slowly
    "draft": {"last_steps": 2},  # the toy predicts nothing in the last step
    "preference": {"beta": 100.0},
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("rule", RULES)
def test_it_learns(make_tuner: Callable[..., Any], rule: str, seed: int) -> None:
    name = rule.split("-")[0]
    eta = 1.0 if name.startswith("ddpo") else 0.0  # the others need no noise
    changes = {**TOY, "seed": seed, "rollout.eta": eta, "objective": {"name": name, **RULES[rule]}}
    tuner = make_tuner(changes, toy=True)
    rows = [tuner.step().metrics for _ in range(8)]
    first, last = rows[0], rows[-1]
    # a policy that does nothing gains 0.2 spreads of the start by chance (32 images); these gain 5.6 to 12
    assert last["reward/mean"] > first["reward/mean"] + 4 * first["reward/std"]
    assert (tuner.parameters["shift"][:3] < -1).all()  # less v is brighter
