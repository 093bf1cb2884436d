"""The loop: it learns, it stays put without a signal, and it counts what it spends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from clinalign.core.config import TrainConfig
from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.tuning.trained import decay_at

TOY = {
    "rollout.images_per_prompt": 8,
    "train.learning_rate": 0.3,
    "train.micro_batch": 256,
    "objective.clip_range": 0.5,
}


class Score:
    """A reward from a function."""

    name = identity = "score"

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.score = score

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        values = self.score(images)
        return RewardResult(values, ~values.isnan(), {"half": values / 2})


def run(tuner: Any, epochs: int) -> list[dict[str, Any]]:
    return [tuner.step().metrics for _ in range(epochs)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("advantage", ["per_prompt_running", "group"])
def test_it_learns(make_tuner: Callable[..., Any], seed: int, advantage: str) -> None:
    tuner = make_tuner({**TOY, "seed": seed, "advantage.name": advantage}, toy=True)
    rows = run(tuner, 12)
    first, last = rows[0], rows[-1]
    # a policy that does nothing gains 0.2 spreads of the start by chance (32 images); this one gains 10 to 20
    assert last["reward/mean"] > first["reward/mean"] + 5 * first["reward/std"]
    shift = tuner.parameters["shift"]
    assert (shift[:3] < 0).all()  # less v is brighter
    assert shift[3].abs() < shift[:3].abs().min()  # the channel that is not shown is left to chance


def test_the_opposite_reward_goes_the_other_way(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner(TOY, Score(lambda images: -images.mean(dim=(1, 2, 3))), toy=True)
    rows = run(tuner, 8)
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"] + 2 * rows[0]["reward/std"]
    assert (tuner.parameters["shift"][:3] > 0).all()


def test_kl_holds_it_back_and_starts_at_zero(make_tuner: Callable[..., Any]) -> None:
    free, held = (run(make_tuner({**TOY, "objective.kl": kl}, toy=True), 8) for kl in (0.0, 5.0))
    assert free[0]["kl"] == held[0]["kl"] == 0.0
    assert held[-1]["kl"] < 0.5 * free[-1]["kl"]
    assert free[-1]["kl_trained"] == 0.0
    assert held[-1]["kl_trained"] > 0.0


def test_a_constant_reward_moves_nothing(make_tuner: Callable[..., Any]) -> None:
    for advantage in ("per_prompt_running", "group"):
        tuner = make_tuner({"advantage.name": advantage}, Score(lambda images: torch.full((len(images),), 0.7)))
        before = {name: value.detach().clone() for name, value in tuner.parameters.items()}
        rows = run(tuner, 2)
        for name, value in tuner.parameters.items():
            assert torch.equal(value, before[name])
            assert torch.equal(tuner.average.shadow[name], before[name])
        assert rows[-1]["advantage/without_signal"] == 1.0
        assert rows[-1]["loss"] == rows[-1]["grad_norm"] == 0.0
        assert rows[-1]["ratio/mean"] == 1.0
        assert rows[-1]["network_evaluations_epoch"] == 16 * 4  # drawn, not trained


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({}, 4 * 1 + 4 * 1 * 3),
        ({"rollout.guidance": 2.0}, 4 * 2 + 4 * 2 * 3),
        ({"objective.timestep_fraction": 0.5}, 4 + 2 * 3),
        ({"objective.ignore_last": 1}, 4 + 3 * 3),
        ({"objective.ratio_norm": True}, 4 + 4 * 3),
        ({"objective.kl": 0.1}, 4 + 4 * (3 + 1)),
    ],
)
def test_counted_evaluations_equal_the_plan(make_tuner: Callable[..., Any], changes: dict[str, Any], each: int) -> None:
    tuner = make_tuner(changes, toy=True)
    rows = run(tuner, 2)
    assert [row["network_evaluations_epoch"] for row in rows] == [16 * each] * 2
    assert [row["network_evaluations"] for row in rows] == [16 * each, 2 * 16 * each]
    assert tuner.plan.evaluations == 16 * each
    # what is only looked at is counted beside it: two passes for each of 64 pairs
    assert rows[0]["network_evaluations_kl"] == 2 * 64 * (2 if "rollout.guidance" in changes else 1)


def test_the_count_is_of_real_forwards(make_tuner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = make_tuner({"rollout.guidance": 2.0, "train.micro_batch": 7, "objective.kl": 0.1})
    with_graph, without = [0], [0]
    forward = tuner.generator.unet.forward

    def counted(x: torch.Tensor, *rest: Any, **more: Any) -> Any:
        (with_graph if torch.is_grad_enabled() else without)[0] += len(x)
        return forward(x, *rest, **more)

    monkeypatch.setattr(tuner.generator.unet, "forward", counted)
    row = run(tuner, 1)[0]
    assert row["network_evaluations_epoch"] == 3 * with_graph[0] + without[0] - row["network_evaluations_kl"]


def test_the_row_says_what_happened(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner({}, Score(lambda images: torch.where(torch.arange(16) < 4, torch.nan, images.mean((1, 2, 3)))))
    row = run(tuner, 1)[0]
    assert row["epoch"] == 1
    assert row["reward/valid"] == 0.75
    assert row["advantage/without_signal"] == 0.25
    assert row["reward/toy/half"] == pytest.approx(row["reward/mean"] / 2)
    assert row["ratio/first_update_error"] < 2e-5
    assert row["network_evaluations_epoch"] == 16 * 4 + 12 * 4 * 3  # what failed is not trained on


def test_every_step_moves_the_average_by_its_rule(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner({**TOY, "train.updates_per_epoch": 1, "train.ema_decay": 0.5}, toy=True)
    run(tuner, 1)
    # first step: decay min(0.5, (1 + 1) / (10 + 1)) = 2 / 11, from zero
    torch.testing.assert_close(tuner.average.shadow["shift"], tuner.parameters["shift"].detach() * 9 / 11)


def test_no_valid_score_is_an_error_that_names_the_reward(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner({}, Score(lambda images: torch.full((len(images),), torch.nan)))
    before = {name: value.detach().clone() for name, value in tuner.parameters.items()}
    with pytest.raises(UserError, match="no picture of the epoch got a valid score from reward toy: look at"):
        tuner.step()
    assert all(torch.equal(value, before[name]) for name, value in tuner.parameters.items())


def test_a_gradient_that_is_not_finite_is_an_error(make_tuner: Callable[..., Any]) -> None:
    # the first update blows the weights up, the second sees what comes of it
    tuner = make_tuner({"train.learning_rate": 1e30})
    with pytest.raises(UserError, match=r"the gradient is not finite in epoch 1: lower train.learning_rate"):
        tuner.step()


def test_steps_without_noise_are_refused(make_tuner: Callable[..., Any]) -> None:
    def end_without_noise(generator: Any) -> None:
        from diffusers import DDIMScheduler

        generator.scheduler = DDIMScheduler.from_config(generator.scheduler.config, set_alpha_to_one=True)

    with pytest.raises(UserError, match="ends with a step without noise, which has no probability: set steps_offset"):
        make_tuner({}, change_generator=end_without_noise)
    with pytest.raises(UserError, match=r"rollout\.steps 1000: the model knows 1000 noise levels"):
        make_tuner({"rollout.steps": 1000})


def test_the_learning_rate_stays_or_falls_along_a_cosine() -> None:
    constant = TrainConfig(epochs=4)
    assert [decay_at(constant, done) for done in (0, 2, 4)] == [1.0] * 3
    falling = TrainConfig(epochs=4, decay="cosine")
    # (1 + cos(pi x)) / 2 at x = 0, 1/4, 1/2, 1; a run that goes on past its end stays at 0
    wanted = [1.0, 0.5 * (1 + math.sqrt(0.5)), 0.5, 0.0, 0.0]
    assert [decay_at(falling, done) for done in (0, 1, 2, 4, 5)] == pytest.approx(wanted, abs=1e-12)


def test_updates_are_made_at_the_rate_of_their_place(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner({"train.decay": "cosine", "train.epochs": 2, "train.updates_per_epoch": 2})
    run(tuner, 1)
    assert tuner.optimizer.param_groups[0]["lr"] == tuner.config.train.learning_rate * decay_at(
        tuner.config.train, 0.5
    )  # the second of the epoch
    run(tuner, 1)
    assert tuner.optimizer.param_groups[0]["lr"] == tuner.config.train.learning_rate * decay_at(tuner.config.train, 1.5)
