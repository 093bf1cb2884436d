"""One optimiser step: the first replay equals the rollout, micro-batches change nothing, the KL is the closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.generation.adapters import lora_parameters
from clinalign.tuning.rollout import Rollout, roll_out
from clinalign.tuning.update import (
    FIRST_UPDATE_TOLERANCE,
    FIRST_UPDATE_TOLERANCE_GPU,
    Replay,
    accumulate,
    check_first_update,
    choose_kl_rows,
    choose_steps,
    replay_log_prob,
    sum_kl,
)

IMAGES, STEPS = 4, 4
SAMPLES = torch.arange(IMAGES).repeat_interleave(STEPS)
AT = torch.arange(STEPS).repeat(IMAGES)
GENTLE = torch.tensor([1.0, -0.5, 2.0, -1.5])


def draw(tuner: Any, guidance: float = 5.0, precision: Any = "fp32", reduction: Any = "mean") -> tuple[Rollout, Replay]:
    replay = Replay(tuner.replay.schedule, guidance, reduction, precision)
    requests = tuner.my_requests(1)[:IMAGES]
    return roll_out(tuner.generator, requests, replay.schedule, guidance, reduction, IMAGES, precision), replay


def worst(tuner: Any, rollout: Rollout, replay: Replay, micro_batch: int = 5) -> float:
    log = accumulate(
        tuner.generator, rollout, GENTLE, SAMPLES, AT, replay, 0.1, 0.0, IMAGES * STEPS, micro_batch
    )  # another batch size than the rollout's, and other steps together
    tuner.optimizer.zero_grad()
    return log.worst


def trips(value: float, replay: Replay) -> bool:
    try:
        check_first_update(value, replay, 256)
    except UserError as error:
        assert "before any update" in str(error)  # noqa: PT017
        return True
    return False


def perturb(tuner: Any, size: float) -> None:
    chance = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in lora_parameters(tuner.generator.unet).values():
            parameter.add_(size * torch.randn(parameter.shape, generator=chance))


@pytest.fixture
def tuner(make_tuner: Callable[..., Any]) -> Any:
    """Five percent of noise in the adapter: a policy in the middle of its training."""
    made = make_tuner({"generator.adapter.rank": 4})
    perturb(made, 0.05)
    return made


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_replay_equals_the_rollout(tuner: Any, precision: str) -> None:
    rollout, replay = draw(tuner, precision=precision)
    for micro_batch in (1, 7):
        # the tolerances are measured ones: see the comment at FIRST_UPDATE_TOLERANCE
        assert worst(tuner, rollout, replay, micro_batch) <= FIRST_UPDATE_TOLERANCE[precision]
    assert not trips(worst(tuner, rollout, replay), replay)


def test_the_check_trips_on_another_guidance(tuner: Any) -> None:
    rollout, replay = draw(tuner)
    assert trips(worst(tuner, rollout, Replay(replay.schedule, 5.1, "mean", "fp32")), replay)
    assert trips(worst(tuner, rollout, Replay(replay.schedule, 1.0, "mean", "fp32")), replay)


@pytest.mark.parametrize(("drawn", "replayed"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_the_check_trips_when_autocast_differs(tuner: Any, drawn: str, replayed: str) -> None:
    rollout, replay = draw(tuner, precision=drawn)
    other = Replay(replay.schedule, 5.0, "mean", replayed)  # type: ignore[arg-type]
    assert trips(worst(tuner, rollout, other), other)
    assert trips(worst(tuner, rollout, other), replay)


def test_the_check_trips_on_dropout_in_training_mode(tuner: Any) -> None:
    rollout, replay = draw(tuner)
    for module in tuner.generator.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    assert not trips(worst(tuner, rollout, replay), replay)  # still in evaluation mode: dropout sleeps
    tuner.generator.unet.train()
    assert trips(worst(tuner, rollout, replay), replay)


def test_the_check_trips_when_the_adapter_moved(tuner: Any) -> None:
    rollout, replay = draw(tuner)
    perturb(tuner, 1e-3)
    assert trips(worst(tuner, rollout, replay), replay)


def test_the_check_trips_on_nan(tuner: Any) -> None:
    rollout, replay = draw(tuner)
    rollout.log_probs[2, 1] = math.nan
    assert worst(tuner, rollout, replay) == math.inf  # max() of Python would have forgotten it
    assert trips(math.nan, replay)


def test_the_tolerance_belongs_to_reduction_noise_and_device(tuner: Any) -> None:
    replay = Replay(tuner.generator.schedule(STEPS, 1.0), 5.0, "mean", "fp32")
    tolerance = FIRST_UPDATE_TOLERANCE["fp32"]
    assert not trips(0.9 * tolerance, replay)
    assert trips(1.1 * tolerance, replay)
    # a sum over 256 elements drifts 256 times as far as their mean, a tenth of the noise ten times
    assert not trips(200 * tolerance, Replay(replay.schedule, 5.0, "sum", "fp32"))
    assert trips(300 * tolerance, Replay(replay.schedule, 5.0, "sum", "fp32"))
    assert not trips(9 * tolerance, Replay(tuner.generator.schedule(STEPS, 0.1), 5.0, "mean", "fp32"))
    check_first_update(0.9 * FIRST_UPDATE_TOLERANCE_GPU["fp32"], replay, 256, "cuda")
    with pytest.raises(UserError, match="sampling and training differ in mode, dropout, guidance or precision"):
        check_first_update(1.1 * FIRST_UPDATE_TOLERANCE_GPU["fp32"], replay, 256, "cuda")


def gradients(tuner: Any, *arguments: Any, **more: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    tuner.optimizer.zero_grad()
    log = accumulate(tuner.generator, *arguments, **more)
    return log, {name: parameter.grad.clone() for name, parameter in tuner.parameters.items()}


def test_micro_batches_change_neither_gradient_nor_log(tuner: Any) -> None:
    rollout, replay = draw(tuner)
    common = (rollout, GENTLE, SAMPLES, AT, replay, 0.1, 0.3, IMAGES * STEPS)
    whole, wanted = gradients(tuner, *common, 16)
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert largest > 1e-4
    for micro_batch in (1, 5):
        log, found = gradients(tuner, *common, micro_batch)
        for name, gradient in found.items():
            # float32 sums in another order; a row that is lost or counted twice changes a sixteenth
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-4 * largest)
        torch.testing.assert_close(log.sums(), whole.sums(), rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_reinforce_on_policy(tuner: Any) -> None:
    rollout, replay = draw(tuner)
    _, found = gradients(tuner, rollout, GENTLE, SAMPLES, AT, replay, 1e-4, 0.0, 16, 16)
    tuner.optimizer.zero_grad()
    log_prob, _, _ = replay_log_prob(tuner.generator, rollout, SAMPLES, AT, replay)
    (-(GENTLE[SAMPLES] * log_prob).mean()).backward()
    for name, parameter in tuner.parameters.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6)  # the ratio is 1 within 1e-6


def test_kl_is_the_closed_form_and_a_third_more_training(tuner: Any) -> None:
    rollout, replay = draw(tuner)
    plain, _ = gradients(tuner, rollout, GENTLE * 0, SAMPLES, AT, replay, 0.1, 0.0, 16, 5)
    log, found = gradients(tuner, rollout, GENTLE * 0, SAMPLES, AT, replay, 0.1, 0.5, 16, 5)
    with torch.no_grad():
        _, mean, sigma = replay_log_prob(tuner.generator, rollout, SAMPLES, AT, replay)
        with tuner.generator.anchor():
            _, anchor, _ = replay_log_prob(tuner.generator, rollout, SAMPLES, AT, replay)
    by_hand = float((((mean - anchor) / sigma) ** 2 / 2).mean(dim=(1, 2, 3)).mean())
    assert by_hand > 1e-5
    assert log.loss == pytest.approx(0.5 * by_hand, rel=1e-4)
    assert log.kl_anchor / log.rows == pytest.approx(by_hand, rel=1e-4)
    assert plain.evaluations == 3 * 2 * 16
    assert log.evaluations == (3 + 1) * 2 * 16
    assert plain.kl_anchor == plain.loss == 0.0
    # with no advantage it pulls back: a small step along -gradient lowers it
    with torch.no_grad():
        for name, parameter in tuner.parameters.items():
            parameter.sub_(0.05 * found[name])
    total, spent = sum_kl(tuner.generator, rollout, SAMPLES, AT, replay, 7)
    assert total / 16 < by_hand
    assert spent == 2 * 2 * 16
    assert all(parameter.requires_grad for parameter in tuner.parameters.values())  # peft freezes what it switches off


def test_the_anchor_of_full_weights_is_a_copy_that_is_put_back(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner({"generator.adapter.kind": "full"})
    rollout, replay = draw(tuner)
    assert sum_kl(tuner.generator, rollout, SAMPLES, AT, replay, 16, tuner.anchor)[0] == 0.0
    with torch.no_grad():
        for parameter in tuner.parameters.values():
            parameter.mul_(1.05)
    moved = {name: parameter.clone() for name, parameter in tuner.parameters.items()}
    log, _ = gradients(tuner, rollout, GENTLE, SAMPLES, AT, replay, 0.1, 0.5, 16, 5, anchor=tuner.anchor)
    assert log.kl_anchor > 0.0
    for name, parameter in tuner.parameters.items():
        assert torch.equal(parameter, moved[name])


def test_ratio_norm_weighs_each_step_by_its_noise(tuner: Any) -> None:
    # on the old policy rho is 1 and its gradient that of the log-ratio, of which ratio_norm takes sigma times as much
    rollout, replay = draw(tuner)
    step = torch.full((IMAGES,), 1)
    common = (rollout, GENTLE, torch.arange(IMAGES), step, replay, 0.1, 0.0, IMAGES, 4)
    _, plain = gradients(tuner, *common)
    _, weighed = gradients(tuner, *common, ratio_norm=True)
    sigma = float(replay.schedule.sigma[1])
    assert 0.05 < sigma < 0.95
    for name, gradient in plain.items():
        torch.testing.assert_close(weighed[name], sigma * gradient, rtol=1e-3, atol=1e-6)


def test_the_distance_to_the_old_policy_does_not_depend_on_the_scale_of_the_loss(tuner: Any) -> None:
    rollout, replay = draw(tuner)
    perturb(tuner, 0.02)
    common = (rollout, GENTLE, SAMPLES, AT, replay, 0.1, 0.0, IMAGES * STEPS, 5)
    logs = [gradients(tuner, *common, ratio_norm=normed)[0] for normed in (False, True)]
    with torch.no_grad():
        log_prob, _, _ = replay_log_prob(tuner.generator, rollout, SAMPLES, AT, replay)
    wanted = float(0.5 * (log_prob - rollout.log_probs[SAMPLES, AT]).square().sum())
    assert wanted > 0
    assert [log.kl_old for log in logs] == pytest.approx([wanted] * 2, rel=1e-3)


def test_steps_are_chosen_for_each_sample_whatever_the_process() -> None:
    whole = choose_steps(0, 3, [0, 1, 2, 3, 4], 10, 0.4)
    assert whole.shape == (5, 4)
    assert torch.equal(choose_steps(0, 3, [3, 4], 10, 0.4), whole[3:])
    assert torch.equal(choose_steps(0, 3, [2], 10, 1.0).sort().values[0], torch.arange(10))  # all, none twice
    assert not torch.equal(choose_steps(0, 4, [0, 1, 2, 3, 4], 10, 0.4), whole)
    assert choose_steps(0, 1, [7], 10, 0.01).shape == (1, 1)  # at least one
    assert choose_steps(0, 1, [], 10, 0.5).shape == (0, 5)


def test_kl_rows_are_distinct_pairs_and_no_more_than_there_are() -> None:
    samples, steps = choose_kl_rows(0, 1, 16, 4, 10)
    assert len(set(zip(samples.tolist(), steps.tolist()))) == 10
    assert samples.max() < 16
    assert steps.max() < 4
    assert len(choose_kl_rows(0, 1, 3, 2, 64)[0]) == 6
