"""DRaFT: its gradient against finite differences, and rewards that it cannot follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.rewards.guarded import GuardedReward
from clinalign.rewards.sanity import SanityReward
from clinalign.tuning.objectives.base import Rows
from clinalign.tuning.rollout import Rollout

SILENT = torch.zeros(4)  # advantages play no part


def loss_of(tuner: Any, rollout: Rollout, rows: Rows) -> float:
    return float(tuner.objective.terms(rollout, rows).loss.detach().double().sum()) / rows.count


@pytest.mark.parametrize("steps", [2, 4])
@pytest.mark.parametrize(("eta", "kl"), [(0.0, 0.0), (1.0, 0.0), (1.0, 7.0)])
def test_the_gradient_equals_finite_differences_on_the_toy(
    make_tuner: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any], steps: int, eta: float,
    kl: float,
) -> None:  # fmt: skip
    # The picture is linear in the four numbers and the score a parabola, so that a central difference is exact for any
    # step. Losses of about 1 are known within 1e-6 in float32, and so is their difference over a step of 1 in all.
    score = SanityReward("score", lambda images: -((10 * images.mean(dim=(1, 2, 3)) - 4) ** 2))
    changes = {"objective": {"name": "draft", "last_steps": steps, "kl": kl}, "rollout.eta": eta}
    tuner = make_tuner(changes, score, toy=True)
    shift = tuner.parameters["shift"]
    with torch.no_grad():
        shift.copy_(torch.tensor([0.3, -0.2, 0.1, 0.4]))
    rollout, rows = drawn(tuner, SILENT)
    _, found = gradients(tuner, rollout, rows, 3)
    wanted = torch.zeros(4)
    for number in range(4):
        sides = []
        for step in (0.5, -0.5):
            shift.data[number] += step
            sides.append(loss_of(tuner, rollout, rows))
            shift.data[number] -= step
        wanted[number] = sides[0] - sides[1]
    assert float(wanted[:3].abs().min()) > 1e-3
    torch.testing.assert_close(found["shift"], wanted, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("last_steps", [1, 2])
def test_the_gradient_goes_through_network_and_decoder(
    make_tuner: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any],
    perturb: Callable[..., None], last_steps: int,
) -> None:  # fmt: skip
    tuner = make_tuner({"objective": {"name": "draft", "last_steps": last_steps}, "rollout.guidance": 2.0})
    perturb(tuner, 0.05)
    rollout, rows = drawn(tuner, SILENT)
    log, found = gradients(tuner, rollout, rows)
    assert log.evaluations == 3 * 2 * last_steps * 4
    length = float(torch.stack([gradient.square().sum() for gradient in found.values()]).sum().sqrt())
    sides = []
    for size in (1e-2, -1e-2):  # along the gradient, of which the slope is its length
        for name, gradient in found.items():
            tuner.parameters[name].data.add_(gradient / length, alpha=size)
        sides.append(loss_of(tuner, rollout, rows))
        for name, gradient in found.items():
            tuner.parameters[name].data.sub_(gradient / length, alpha=size)
    # the loss, near 0.5, is known within 1e-7 in float32, and over 2e-2 the slope within 1e-5; its curvature cancels
    assert length > 1e-3
    assert (sides[0] - sides[1]) / 2e-2 == pytest.approx(length, rel=0.02)


def test_pictures_are_drawn_again_as_they_were(make_tuner: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make_tuner({"objective": {"name": "draft", "last_steps": 3}})
    rollout, rows = drawn(tuner, SILENT)
    wanted = tuner.reward(rollout.images, [request.case for request in rollout.requests]).values
    found = tuner.objective.terms(rollout, rows).log["draft/reward"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)  # float32, three steps with and without a graph


def test_a_reward_without_a_gradient_is_refused_by_name(make_tuner: Callable[..., Any]) -> None:
    hard = SanityReward("hard", lambda images: (images.mean(dim=(1, 2, 3)) > 0.5).float())
    tuner = make_tuner({"objective": {"name": "draft"}}, hard, toy=True)
    with pytest.raises(UserError) as caught:
        tuner.step()
    assert str(caught.value) == (
        "objective draft needs the gradient of the reward, and toy gave none: take a soft score "
        "(attributes: probability or log_likelihood), or another objective.name"
    )


def test_a_picture_without_a_score_is_left_out(make_tuner: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make_tuner({"objective": {"name": "draft"}}, toy=True)
    rollout, rows = drawn(tuner, SILENT)
    turn = replace(rows.turn, valid=torch.tensor([True, False, True, True]))
    assert tuner.objective.rows(turn, rollout).pictures.tolist() == [0, 2, 3]
    half = tuner.objective.rows(replace(turn, update=1, updates=2), rollout)
    assert (half.pictures.tolist(), half.count) == ([3], 1)


class Blinking:
    """Brightness; its second call fails."""

    name = identity = "blinking"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: torch.Tensor, cases: Any) -> RewardResult:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("a blip")
        return RewardResult(images.mean(dim=(1, 2, 3)), torch.ones(len(images), dtype=torch.bool))


def test_a_passing_failure_is_masked_and_not_taken_for_a_hard_score(make_tuner: Callable[..., Any]) -> None:
    # the first call scores the epoch; the second is of the first micro-batch, and the third of the second
    reward = GuardedReward(Blinking(), retries=0, max_failure_rate=1.0)
    tuner = make_tuner(
        {"objective": {"name": "draft", "last_steps": 2}, "train.micro_batch": 8, "train.updates_per_epoch": 1},
        reward, toy=True,
    )  # fmt: skip
    row = tuner.step().metrics
    assert reward.failed == 8
    assert row["grad_norm"] > 0.0  # of the other eight


def test_cases_go_with_their_pictures(make_tuner: Callable[..., Any]) -> None:
    seen: list[list[str]] = []

    class Watching:
        name = identity = "watching"

        def __call__(self, images: torch.Tensor, cases: list[Case]) -> RewardResult:
            seen.append([case.text for case in cases])
            return RewardResult(images.mean(dim=(1, 2, 3)), torch.ones(len(images), dtype=torch.bool))

    tuner = make_tuner({"objective": {"name": "draft"}, "train.updates_per_epoch": 2}, Watching(), toy=True)
    tuner.step()
    everything, first, second = seen
    assert (first, second) == (everything[0::2], everything[1::2])
    assert len(set(everything)) > 1
