"""The first replay equals the rollout, and the check trips on everything that would make it another network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.tuning.replay import (
    FIRST_UPDATE_TOLERANCE,
    FIRST_UPDATE_TOLERANCE_GPU,
    check_first_update,
    replay_log_prob,
)
from clinalign.tuning.rollout import Rollout, Sampler, roll_out
from clinalign.tuning.update import accumulate

IMAGES, STEPS = 4, 4
GENTLE = torch.tensor([1.0, -0.5, 2.0, -1.5])


@pytest.fixture
def tuner(make_tuner: Callable[..., Any], perturb: Callable[..., None]) -> Any:
    """Five percent of noise in the adapter: a policy in the middle of its training."""
    made = make_tuner({"generator.adapter.rank": 4, "rollout.guidance": 5.0})
    perturb(made, 0.05)
    return made


@pytest.fixture
def worst(drawn: Callable[..., Any]) -> Callable[..., float]:
    """Return the largest |log-ratio| of pictures replayed with a sampler: in other batches, other steps together."""

    def find(tuner: Any, rollout: Rollout, sampler: Sampler, micro_batch: int = 5) -> float:
        _, rows = drawn(tuner, GENTLE, rollout=rollout)
        tuner.objective.sampler = lambda epoch: sampler
        log = accumulate(tuner.objective, rollout, rows, micro_batch)
        tuner.optimizer.zero_grad()
        return float(log.worst())

    return find


def draw(tuner: Any, **changes: Any) -> tuple[Rollout, Sampler]:
    sampler = replace(tuner.objective.sampler(1), **changes)
    return roll_out(tuner.generator, tuner.requests(1)[:IMAGES], sampler, IMAGES), sampler


def trips(value: float, sampler: Sampler) -> bool:
    try:
        check_first_update(value, sampler, 256)
    except UserError as error:
        assert "before any update" in str(error)  # noqa: PT017
        return True
    return False


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_replay_equals_the_rollout(tuner: Any, worst: Callable[..., float], precision: str) -> None:
    rollout, sampler = draw(tuner, precision=precision)
    for micro_batch in (1, 7):
        # the tolerances are measured ones: see the comment at FIRST_UPDATE_TOLERANCE
        assert worst(tuner, rollout, sampler, micro_batch) <= FIRST_UPDATE_TOLERANCE[precision]
    assert not trips(worst(tuner, rollout, sampler), sampler)


@pytest.mark.parametrize("kept", [range(2), range(1, 3)])
def test_a_rollout_that_kept_a_part_of_its_steps_is_replayed_at_the_same_steps(tuner: Any, kept: range) -> None:
    (whole, sampler), (part, _) = draw(tuner), draw(tuner, keep=kept)
    samples, steps = torch.arange(IMAGES).repeat_interleave(len(kept)), torch.tensor(list(kept) * IMAGES)
    with torch.no_grad():
        wanted, found = (
            replay_log_prob(tuner.generator, rollout, samples, steps, sampler) for rollout in (whole, part)
        )
    for one, other in zip(wanted, found):
        assert torch.equal(one, other)
    assert part.first == kept.start


def test_the_check_trips_on_another_guidance(tuner: Any, worst: Callable[..., float]) -> None:
    rollout, sampler = draw(tuner)
    assert trips(worst(tuner, rollout, replace(sampler, guidance=5.1)), sampler)
    assert trips(worst(tuner, rollout, replace(sampler, guidance=1.0)), sampler)


@pytest.mark.parametrize(("drawn_in", "replayed"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_the_check_trips_when_autocast_differs(
    tuner: Any, worst: Callable[..., float], drawn_in: str, replayed: str
) -> None:
    rollout, sampler = draw(tuner, precision=drawn_in)
    other = replace(sampler, precision=replayed)  # type: ignore[arg-type]
    assert trips(worst(tuner, rollout, other), other)
    assert trips(worst(tuner, rollout, other), sampler)


def test_the_check_trips_on_dropout_in_training_mode(tuner: Any, worst: Callable[..., float]) -> None:
    rollout, sampler = draw(tuner)
    for module in tuner.generator.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    assert not trips(worst(tuner, rollout, sampler), sampler)  # still in evaluation mode: dropout sleeps
    tuner.generator.unet.train()
    assert trips(worst(tuner, rollout, sampler), sampler)


def test_the_check_trips_when_the_adapter_moved(
    tuner: Any, worst: Callable[..., float], perturb: Callable[..., None]
) -> None:
    rollout, sampler = draw(tuner)
    perturb(tuner, 1e-3)
    assert trips(worst(tuner, rollout, sampler), sampler)


def test_the_check_trips_on_nan(tuner: Any, worst: Callable[..., float]) -> None:
    rollout, sampler = draw(tuner)
    rollout.log_probs[2, 1] = math.nan
    assert worst(tuner, rollout, sampler) == math.inf  # max() of Python would have forgotten it
    assert trips(math.nan, sampler)


def test_the_tolerance_belongs_to_reduction_noise_and_device(tuner: Any) -> None:
    sampler = tuner.objective.sampler(1)
    tolerance = FIRST_UPDATE_TOLERANCE["fp32"]
    assert not trips(0.9 * tolerance, sampler)
    assert trips(1.1 * tolerance, sampler)
    # a sum over 256 elements drifts 256 times as far as their mean, a tenth of the noise ten times
    assert not trips(200 * tolerance, replace(sampler, reduction="sum"))
    assert trips(300 * tolerance, replace(sampler, reduction="sum"))
    quiet = replace(sampler, schedule=tuner.generator.schedule(STEPS, 0.1))
    assert not trips(9 * tolerance, quiet)
    assert trips(9 * tolerance, replace(quiet, keep=range(2)))  # the steps that are kept have more noise than the last
    check_first_update(0.9 * FIRST_UPDATE_TOLERANCE_GPU["fp32"], sampler, 256, "cuda")
    with pytest.raises(UserError, match="sampling and training differ in mode, dropout, guidance or precision"):
        check_first_update(1.1 * FIRST_UPDATE_TOLERANCE_GPU["fp32"], sampler, 256, "cuda")


def test_the_tolerance_of_a_window_is_that_of_the_epochs_own(make_tuner: Callable[..., Any]) -> None:
    # a tenth of the noise: the first step keeps more than 0.02, the last has 0.002 and ten times the drift
    tuner = make_tuner({
        "rollout.eta": 0.1,
        "objective": {"name": "ddpo_window", "window": 1, "interval": 1, "ignore_last": 0},
    }, toy=True)  # fmt: skip
    log = {"ratio/worst": 9 * FIRST_UPDATE_TOLERANCE["fp32"]}
    for epoch, passes in ((1, False), (STEPS, True)):
        sampler = tuner.objective.sampler(epoch)
        rollout = roll_out(tuner.generator, tuner.requests(epoch)[:1], sampler, 1)
        if passes:
            tuner.objective.check_first_update(epoch, log, rollout)
        else:
            with pytest.raises(UserError, match="before any update"):
                tuner.objective.check_first_update(epoch, log, rollout)
