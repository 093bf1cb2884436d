"""DDPO on a network: its gradient is REINFORCE's, its KL the closed form, and ``ratio_norm`` weighs the steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from clinalign.tuning.objectives.base import Rows
from clinalign.tuning.replay import replay_log_prob
from clinalign.tuning.rollout import Rollout

GENTLE = torch.tensor([1.0, -0.5, 2.0, -1.5])
SMALL = {
    "rollout.images_per_prompt": 2,
    "rollout.prompts_per_epoch": 2,
    "rollout.steps": 3,
    "train.learning_rate": 1e-2,
}


@pytest.fixture
def make(make_tuner: Callable[..., Any], perturb: Callable[..., None]) -> Callable[..., Any]:
    """Five percent of noise in the adapter: a policy in the middle of its training."""

    def build(**objective: Any) -> Any:
        changes = {"clip_range": 0.1, **objective}
        tuner = make_tuner({"generator.adapter.rank": 4, "rollout.guidance": 5.0, "objective": changes})
        perturb(tuner, 0.05)
        return tuner

    return build


def replayed(
    tuner: Any, rollout: Rollout, rows: Rows, context: AbstractContextManager[None] | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with context or nullcontext():
        return replay_log_prob(tuner.generator, rollout, rows.samples, rows.steps, tuner.objective.sampler(1))


def test_the_gradient_is_that_of_reinforce_on_policy(
    make: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any]
) -> None:
    tuner = make(clip_range=1e-4)
    rollout, rows = drawn(tuner, GENTLE)
    _, found = gradients(tuner, rollout, rows)
    log_prob, _, _ = replayed(tuner, rollout, rows)
    (-(GENTLE[rows.samples] * log_prob).mean()).backward()
    for name, parameter in tuner.parameters.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6)  # the ratio is 1 within 1e-6


def test_kl_is_the_closed_form_and_a_third_more_training(
    make: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any]
) -> None:
    tuner = make(kl=0.5)
    rollout, rows = drawn(tuner, GENTLE)
    silent = Rows(rows.pictures, rows.samples, rows.steps, 0 * rows.advantages, rows.count, rows.turn)

    def by_hand() -> float:
        with torch.no_grad():
            _, mean, sigma = replayed(tuner, rollout, rows)
            _, anchor, _ = replayed(tuner, rollout, rows, tuner.generator.anchor())
        return float((((mean - anchor) / sigma) ** 2 / 2).mean(dim=(1, 2, 3)).mean())

    wanted = by_hand()
    assert wanted > 1e-5
    log, found = gradients(tuner, rollout, silent, 5)
    assert log.loss == pytest.approx(0.5 * wanted, rel=1e-4)
    assert log.values["kl_trained"] / log.rows == pytest.approx(wanted, rel=1e-4)
    assert log.evaluations == (3 + 1) * 2 * 16
    assert all(parameter.requires_grad for parameter in tuner.parameters.values())  # peft freezes what it switches off
    tuner.objective.kl.weight = 0.0
    plain, _ = gradients(tuner, rollout, silent, 5)
    assert plain.evaluations == 3 * 2 * 16
    assert plain.values["kl_trained"] == plain.loss == 0.0
    # with no advantage it pulls back: a small step along -gradient lowers it
    with torch.no_grad():
        for name, parameter in tuner.parameters.items():
            parameter.sub_(0.05 * found[name])
    assert by_hand() < wanted


def test_kl_0_is_plain_ddpo_to_the_bit(make_tuner: Callable[..., Any]) -> None:
    # 1e-30 takes the way through the anchor, and a float32 gradient does not see it: looking at the anchor alone
    # changes nothing
    plain, zero, trace = (
        make_tuner({**SMALL, "objective": {"clip_range": 0.1, **more}}) for more in ({}, {"kl": 0}, {"kl": 1e-30})
    )
    before = {name: value.detach().clone() for name, value in plain.parameters.items()}
    for _ in range(2):
        rows = [tuner.step().metrics for tuner in (plain, zero, trace)]
        rows = [{k: v for k, v in row.items() if not k.startswith("seconds/")} for row in rows]
        assert rows[1] == rows[0]
        assert rows[2]["network_evaluations_epoch"] == 4 * (3 + 3 * 4) > rows[0]["network_evaluations_epoch"]
    for name, value in plain.parameters.items():
        assert torch.equal(zero.parameters[name], value)
        assert torch.equal(trace.parameters[name], value)
    assert any(not torch.equal(value, before[name]) for name, value in plain.parameters.items())


def test_ratio_norm_weighs_each_step_by_its_noise(
    make: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any]
) -> None:
    # on the old policy rho is 1 and its gradient that of the log-ratio, of which ratio_norm takes sigma times as much
    both = []
    for normed in (False, True):
        tuner = make(ratio_norm=normed)
        rollout, rows = drawn(tuner, GENTLE)
        second = Rows(torch.arange(4), torch.arange(4), torch.full((4,), 1), GENTLE, 4, rows.turn)
        both.append(gradients(tuner, rollout, second)[1])
    sigma = float(tuner.objective.schedule.sigma[1])
    assert 0.05 < sigma < 0.95
    for name, gradient in both[0].items():
        torch.testing.assert_close(both[1][name], sigma * gradient, rtol=1e-3, atol=1e-6)


def test_the_distance_to_the_old_policy_does_not_depend_on_the_scale_of_the_loss(
    make: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any], perturb: Callable[..., None]
) -> None:
    for normed in (False, True):
        tuner = make(ratio_norm=normed)
        rollout, rows = drawn(tuner, GENTLE)
        perturb(tuner, 0.02)
        log, _ = gradients(tuner, rollout, rows, 5)
        with torch.no_grad():
            log_prob, _, _ = replayed(tuner, rollout, rows)
        wanted = float(0.5 * (log_prob - rollout.log_probs[rows.samples, rows.steps]).square().sum())
        assert wanted > 0
        assert log.values["kl_old"] == pytest.approx(wanted, rel=1e-3)


def test_the_last_steps_can_be_left_out(make_tuner: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    _, rows = drawn(make_tuner({"objective": {"ignore_last": 2}}, toy=True), GENTLE)
    assert rows.steps.reshape(4, 2).sort().values.tolist() == [[0, 1]] * 4
    _, rows = drawn(make_tuner({"objective": {"timestep_fraction": 0.5}}, toy=True), GENTLE)
    assert len(rows) == 4 * 2
    _, rows = drawn(make_tuner({"objective": {"timestep_fraction": 0.01}}, toy=True), GENTLE)
    assert len(rows) == 4  # at least one
