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
def test_evaluations_of_ddpo(rollout: dict[str, Any], objective: dict[str, Any], each: int) -> None:
    sizes = {"images_per_prompt": 8, "prompts_per_epoch": 32}
    plan = plan_epoch(config(rollout={**rollout, **sizes}, objective=objective))
    assert plan.images == 256
    assert plan.evaluations == 256 * each
    assert plan.to_json()["evaluations"] == 256 * each


@pytest.mark.parametrize(
    ("guidance", "objective", "each"),
    [
        # methods 4, 20 steps: a window of four, with guidance 2 * 20 + 2 * 4 * 3, without 20 + 4 * 3
        (5.0, {"name": "ddpo_window"}, 64),
        (1.0, {"name": "ddpo_window"}, 32),
        (1.0, {"name": "ddpo_window", "kl": 0.1}, 36),
        (1.0, {"name": "ddpo_window", "window": 99}, 20 + 19 * 3),  # the last step is never in it
        # guidance of the rollout alone, or of the loss alone
        (5.0, {"name": "awm"}, 40 + 4 * 3 + 2),
        (1.0, {"name": "awm", "guidance": 5.0}, 20 + 2 * (4 * 3 + 2)),
        # two updates: in the second one more pass, for the weights of the epoch's beginning, half a pass a picture
        (1.0, {"name": "awm"}, 20 + 4 * 3 + 2),
        (1.0, {"name": "awm", "kl": 0.1}, 20 + 4 * 4 + 2),
        # a pass of the old policy: 20 + 4 (3 + 1); and one of the anchor
        (1.0, {"name": "nft"}, 36),
        (1.0, {"name": "nft", "kl": 0.1, "timesteps": 2}, 20 + 2 * 5),
        # one step with its graph, or K; the anchor looks at the first of them
        (1.0, {"name": "draft"}, 23),
        (1.0, {"name": "draft", "last_steps": 3}, 20 + 3 * 3),
        (5.0, {"name": "draft", "last_steps": 3, "kl": 0.1}, 2 * (20 + 3 * 3 + 1)),
        # two pairs of eight pictures: half of them are trained, with a pass of the anchor, which the KL shares
        (1.0, {"name": "preference"}, 20 + 4 * 4 / 2),
        (1.0, {"name": "preference", "kl": 0.1}, 20 + 4 * 4 / 2),
        (1.0, {"name": "preference", "pairs": 99}, 20 + 4 * 4),  # four pairs are all there are
    ],
)
def test_evaluations_of_every_rule(guidance: float, objective: dict[str, Any], each: float) -> None:
    sizes = {"images_per_prompt": 8, "prompts_per_epoch": 32, "steps": 20, "guidance": guidance}
    assert plan_epoch(config(rollout=sizes, objective=objective)).evaluations == 256 * each


def test_awm_with_one_update_needs_no_old_weights() -> None:
    plan = plan_epoch(config(objective={"name": "awm"}, train={"updates_per_epoch": 1}))
    assert plan.evaluations_training == 64 * 4 * 3


def test_rows_that_keep_several_graphs_come_in_smaller_batches() -> None:
    def rows(**objective: Any) -> int:
        return plan_epoch(config(objective=objective, rollout={"guidance": 1.0})).micro_batch

    assert rows(name="awm") == 64
    assert rows(name="preference") == 32
    assert (rows(name="draft"), rows(name="draft", last_steps=4), rows(name="draft", last_steps=20)) == (64, 16, 3)


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


@pytest.mark.parametrize(
    ("prompts", "group", "updates", "processes", "near"),
    [
        (3, 4, 1, 2, 4),  # two processes would get a prompt and a half each
        (5, 4, 2, 4, 4),
        (1, 4, 1, 2, 2),
        (7, 8, 2, 8, 8),
        # both conditions at once: what is named must be legal itself
        (3, 2, 3, 2, 6),
        (7, 6, 1, 4, 8),
    ],
)
def test_pairs_are_not_cut_over_processes(prompts: int, group: int, updates: int, processes: int, near: int) -> None:
    def plan(prompts: int, name: str = "preference") -> Any:
        sizes = {"prompts_per_epoch": prompts, "images_per_prompt": group}
        return plan_epoch(
            config(rollout=sizes, objective={"name": name}, train={"updates_per_epoch": updates}), processes
        )

    with pytest.raises(UserError, match=rf"nearest legal is rollout\.prompts_per_epoch={near}$") as caught:
        plan(prompts)
    assert "\n" not in str(caught.value)
    assert plan(near).images_per_process % group == 0
