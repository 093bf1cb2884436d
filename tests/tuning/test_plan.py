"""The plan against the arithmetic of the cost model: c S + c T (3 + q) an image."""

from __future__ import annotations

from typing import Any

import pytest

from clinalign.core.config import TuneConfig, parse_config
from clinalign.core.errors import UserError
from clinalign.tuning.plan import plan_epoch


def config(**sections: dict[str, Any]) -> TuneConfig:
    return parse_config(
        {"data": {"path": "d"}, "generator": {"model": "m"}, "rewards": [{"name": "brightness"}], **sections}
    )


@pytest.mark.parametrize(
    ("rollout", "objective", "each"),
    [
        # DDPO of both recipes: 50 steps, guidance, all trained: 2 * 50 + 2 * 50 * 3
        ({"steps": 50, "guidance": 5.0}, {}, 400),
        # 20 steps, guidance, 4 trained: 2 * 20 + 2 * 4 * 3
        ({"steps": 20, "guidance": 5.0}, {"timestep_fraction": 0.2}, 64),
        # the same without guidance: 20 + 4 * 3
        ({"steps": 20, "guidance": 1.0}, {"timestep_fraction": 0.2}, 32),
        # and with a pass of the anchor for each trained step (q = 1): 20 + 4 * (3 + 1)
        ({"steps": 20, "guidance": 1.0}, {"timestep_fraction": 0.2, "kl": 0.01}, 36),
        # the last five are not trained: 20 + 15 * 3; and of the others a fifth: 20 + 3 * 3
        ({"steps": 20, "guidance": 1.0}, {"ignore_last": 5}, 65),
        ({"steps": 20, "guidance": 1.0}, {"ignore_last": 5, "timestep_fraction": 0.2}, 29),
        # one step trained: 20 + 3
        ({"steps": 20, "guidance": 1.0}, {"timestep_fraction": 0.01}, 23),
    ],
)
def test_evaluations(rollout: dict[str, Any], objective: dict[str, Any], each: int) -> None:
    sizes = {"images_per_prompt": 8, "prompts_per_epoch": 32}
    plan = plan_epoch(config(rollout={**rollout, **sizes}, objective=objective))
    assert plan.images == 256
    assert plan.evaluations == 256 * each
    assert plan.to_json()["evaluations"] == 256 * each


def test_the_work_is_shared_and_the_cost_is_the_same() -> None:
    one, four = (
        plan_epoch(config(rollout={"images_per_prompt": 8, "prompts_per_epoch": 32}), processes) for processes in (1, 4)
    )
    assert (one.images_per_process, four.images_per_process) == (256, 64)
    assert one.images_per_update == four.images_per_update == 128
    assert one.evaluations == four.evaluations


def test_batches_are_derived_or_taken_as_given_and_change_no_cost() -> None:
    derived = plan_epoch(config())
    given = plan_epoch(config(rollout={"batch_size": 3}, train={"micro_batch": 5}))
    assert (given.rollout_batch, given.micro_batch) == (3, 5)
    assert derived.rollout_batch == 64  # 8 x 8 images
    assert derived.micro_batch == 32  # two branches a row
    assert plan_epoch(config(), gpu=True).rollout_batch == 16
    assert given.evaluations == derived.evaluations


def test_an_illegal_plan_names_the_nearest_legal_one() -> None:
    # 3 prompts x 5 images = 15; two updates on two processes need a multiple of 4: 4 prompts (20 images)
    sizes = {"images_per_prompt": 5, "prompts_per_epoch": 3}
    with pytest.raises(UserError) as caught:
        plan_epoch(config(rollout=sizes), 2)
    assert str(caught.value) == (
        "15 images an epoch (3 prompts x 5 images) cannot be shared by 2 updates on 2 process(es): "
        "nearest legal is rollout.prompts_per_epoch=4"
    )
    assert plan_epoch(config(rollout={**sizes, "prompts_per_epoch": 4}), 2).images == 20
