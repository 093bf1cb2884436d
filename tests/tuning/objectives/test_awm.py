"""AWM and what the matching rules share: fresh noise of a picture's own, and the weight of a noise level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clinalign.generation.ddim import split_prediction
from clinalign.generation.noising import min_snr_weight
from clinalign.tuning.objectives.matching import SMALLEST_ERROR, error_size

GENTLE = torch.tensor([1.0, -0.5, 2.0, -1.5])


@pytest.fixture
def make(make_tuner: Callable[..., Any]) -> Callable[..., Any]:
    def build(**objective: Any) -> Any:
        return make_tuner({"objective": {"name": "awm", **objective}}, toy=True)

    return build


def test_the_noise_belongs_to_picture_step_and_epoch(make: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make()
    rollout, rows = drawn(tuner, GENTLE)
    noised = tuner.objective.noised(rollout, rows, rows.samples, rows.pictures)
    parts = [tuner.objective.noised(rollout, part, part.samples, part.pictures) for part in rows.split(3)]
    assert torch.equal(torch.cat([part.x_t for part in parts]), noised.x_t)
    noise = (noised.x_t - noised.alpha.sqrt() * noised.clean) / (1 - noised.alpha).sqrt()
    distinct = {tuple(round(float(x), 3) for x in row.flatten()[:4]) for row in noise}
    assert len(distinct) == len(rows) == 16
    later = drawn(tuner, GENTLE, epoch=2, rollout=rollout)[1]
    other = tuner.objective.noised(rollout, later, later.samples, later.pictures)
    same = [(int(p), int(s)) for p, s in zip(rows.pictures, rows.steps)]
    there = [(int(p), int(s)) for p, s in zip(later.pictures, later.steps)]
    assert not torch.equal(noised.x_t, other.x_t[[there.index(pair) for pair in same]])


def test_the_noise_levels_are_those_of_the_sampler(make: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make(timesteps=2)
    rollout, rows = drawn(tuner, GENTLE)
    assert all(len(set(steps)) == 2 for steps in rows.steps.reshape(4, 2).tolist())  # two of each picture, none twice
    noised = tuner.objective.noised(rollout, rows, rows.samples, rows.pictures)
    assert torch.equal(noised.alpha.flatten(), tuner.objective.schedule.alpha_t.float()[rows.steps])
    # the mean square of sqrt(a) x0 + sqrt(1 - a) n less sqrt(a) x0 is 1 - a: 256 numbers, so within a third
    spread = (noised.x_t - noised.alpha.sqrt() * noised.clean).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(spread, 1 - noised.alpha.flatten(), rtol=0.35, atol=1e-4)
    assert len(drawn(make(timesteps=99), GENTLE)[1]) == 4 * 4  # never more than there are


def test_the_target_leads_back_to_the_picture(make: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make()
    rollout, rows = drawn(tuner, GENTLE)
    noised = tuner.objective.noised(rollout, rows, rows.samples, rows.pictures)
    clean, _ = split_prediction(noised.target, noised.x_t, noised.alpha, tuner.generator.prediction_type)
    torch.testing.assert_close(clean, rollout.clean[rows.samples], rtol=0, atol=1e-5)
    assert float(tuner.objective.clean_error(noised, noised.target).abs().max()) < 1e-5


def test_weights_of_noise_levels(make: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make()
    rollout, rows = drawn(tuner, GENTLE)
    rule, kind = tuner.objective, tuner.generator.prediction_type
    noised = rule.noised(rollout, rows, rows.samples, rows.pictures)
    prediction = noised.target + 0.5
    # a prediction that is wrong by 0.5 everywhere
    torch.testing.assert_close(rule.weighed_error(noised, prediction, "none"), torch.full((16,), 0.25))
    wanted = 0.25 * min_snr_weight(noised.alpha, 5.0, kind)
    torch.testing.assert_close(rule.weighed_error(noised, prediction, "snr"), wanted)
    # v wrong by 0.5 is x0 wrong by s = sqrt(1 - a) / 2: a mean square of s^2 over a mean size of s
    assert kind == "v_prediction"
    size = 0.5 * (1 - noised.alpha).sqrt().flatten()
    torch.testing.assert_close(rule.weighed_error(noised, prediction, "clean"), size, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        rule.weighed_error(noised, prediction, "clean", torch.full((16,), 2.0)), size**2 / 2, rtol=1e-3, atol=1e-5
    )


def test_an_error_of_nothing_is_divided_by_the_floor() -> None:
    assert error_size(torch.zeros(2, 1, 2, 2)).tolist() == pytest.approx([SMALLEST_ERROR] * 2)
    assert not error_size(torch.ones(1, 1, 1, 1, requires_grad=True)).requires_grad


def test_in_the_first_step_the_old_policy_is_the_current_one(
    make: Callable[..., Any], drawn: Callable[..., Any]
) -> None:
    tuner = make()
    log = tuner.objective.terms(*drawn(tuner, GENTLE)).log
    assert log["ratio/mean"].tolist() == [1.0] * 16
    assert not log["ratio/worst"].any()


@pytest.mark.parametrize("weight", ["clean", "snr", "none"])
def test_later_steps_are_compared_with_the_epochs_beginning(
    make: Callable[..., Any], drawn: Callable[..., Any], perturb: Callable[..., None], weight: str
) -> None:
    tuner = make(weight=weight)
    perturb(tuner, 0.1)  # what earlier epochs did
    rollout, rows = drawn(tuner, GENTLE, update=1, updates=2)  # pictures 1 and 3, and the weights remembered
    assert set(rows.pictures.tolist()) == {1, 3}
    rule = tuner.objective
    noised = rule.noised(rollout, rows, rows.samples, rows.pictures)
    with torch.no_grad():
        size = error_size(rule.clean_error(noised, rule.predict(noised)))
        before = rule.weighed_error(noised, rule.predict(noised), weight, size)
        still = rule.terms(rollout, rows).log["ratio/worst"]
        assert not still.any()
        perturb(tuner, 0.3)
        after = rule.weighed_error(noised, rule.predict(noised), weight, size)  # l = -w error, both of the same size
        found = rule.terms(rollout, rows).log
    torch.testing.assert_close(found["ratio/mean"], (before - after).exp())
    assert float((before - after).abs().max()) > 1e-3
