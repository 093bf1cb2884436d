"""The KL to the anchor: the same figure for every update rule, and the controller of its weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from clinalign.core.seeds import derive_seed
from clinalign.tuning.divergence import KlWeight, choose_kl_rows, sum_kl
from clinalign.tuning.rollout import Rollout, roll_out

IMAGES, STEPS = 4, 4
SAMPLES = torch.arange(IMAGES).repeat_interleave(STEPS)
AT = torch.arange(STEPS).repeat(IMAGES)
SEEDS = [derive_seed(7, row) for row in range(IMAGES * STEPS)]


def draw(tuner: Any, epoch: int = 1) -> Rollout:
    return roll_out(tuner.generator, tuner.requests(1)[:IMAGES], tuner.objective.sampler(epoch), IMAGES)


def measured(tuner: Any, rollout: Rollout, micro_batch: int = 16) -> tuple[float, int]:
    return sum_kl(
        tuner.generator, rollout, SAMPLES, AT, SEEDS, tuner.objective.sampler(1), tuner.noisy, micro_batch, tuner.anchor
    )


def test_it_starts_at_zero_and_counts_two_passes(make_tuner: Callable[..., Any]) -> None:
    for kind in ("lora", "full"):
        tuner = make_tuner({"generator.adapter.kind": kind, "rollout.guidance": 3.0})
        total, spent = measured(tuner, draw(tuner))
        assert total == 0.0
        assert spent == 2 * 2 * IMAGES * STEPS  # policy and anchor, guidance
        assert all(parameter.requires_grad for parameter in tuner.parameters.values())  # peft freezes what it turns off


def test_it_is_the_closed_form(make_tuner: Callable[..., Any]) -> None:
    # The toy policy predicts v = (t / 1000)^3 shift, so that x0 moves by -sqrt(1 - a_t) dv and eps by sqrt(a_t) dv, and
    # the mean of the step by sqrt(a_s) times the first and sqrt(1 - a_s - sigma^2) times the second: whatever the
    # picture and the noise are. One of four channels is moved, so the mean over elements is a quarter of its square.
    tuner = make_tuner(toy=True)
    rollout = draw(tuner)
    assert measured(tuner, rollout)[0] == 0.0
    with torch.no_grad():
        tuner.parameters["shift"][1] = 0.5
    schedule = tuner.noisy
    moved = 0.5 * (schedule.timesteps / 1000) ** 3
    before, after = schedule.alpha_t, schedule.alpha_s
    mean = moved * ((1 - after - schedule.sigma**2).sqrt() * before.sqrt() - after.sqrt() * (1 - before).sqrt())
    by_hand = float((mean**2 / (2 * schedule.sigma**2) / 4).sum()) * IMAGES
    assert by_hand > 1e-3
    for micro_batch in (16, 3):
        assert measured(tuner, rollout, micro_batch)[0] == pytest.approx(by_hand, rel=1e-4)  # float32


def test_it_is_the_same_whatever_rule_and_noise_drew_the_pictures(
    make_tuner: Callable[..., Any], perturb: Callable[..., None]
) -> None:
    figures = []
    clean = torch.randn((IMAGES, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    for changes in (
        {},
        {"objective": {"name": "ddpo_window", "window": 2}},
        {"objective": {"name": "awm"}, "rollout.eta": 0.0},
        {"objective": {"name": "draft"}, "rollout.eta": 0.5},
    ):
        tuner = make_tuner(changes)
        perturb(tuner, 0.05)
        figures.append(measured(tuner, replace(draw(tuner), clean=clean))[0])
    assert figures[0] > 1e-3
    assert figures[1:] == [figures[0]] * 3


def test_the_anchor_of_full_weights_is_a_copy_that_is_put_back(
    make_tuner: Callable[..., Any], gradients: Callable[..., Any], drawn: Callable[..., Any]
) -> None:
    tuner = make_tuner({"generator.adapter.kind": "full", "objective.kl": 0.5})
    rollout, rows = drawn(tuner, torch.tensor([1.0, -0.5, 2.0, -1.5]))
    with torch.no_grad():
        for parameter in tuner.parameters.values():
            parameter.mul_(1.05)
    moved = {name: parameter.clone() for name, parameter in tuner.parameters.items()}
    log, _ = gradients(tuner, rollout, rows, 5)
    assert log.values["kl_trained"] > 0.0
    for name, parameter in tuner.parameters.items():
        assert torch.equal(parameter, moved[name])


def test_rows_are_distinct_pairs_and_no_more_than_there_are() -> None:
    samples, steps = choose_kl_rows(0, 1, 16, 4, 10)
    assert len(set(zip(samples.tolist(), steps.tolist()))) == 10
    assert samples.max() < 16
    assert steps.max() < 4
    assert len(choose_kl_rows(0, 1, 3, 2, 64)[0]) == 6


def test_a_fixed_weight_stays() -> None:
    weight = KlWeight(0.3)
    for measured_kl in (0.0, 1.0, 100.0):
        weight.update(measured_kl)
        assert weight.weight == 0.3


@pytest.mark.parametrize(
    ("measured_kl", "factor"),
    [(0.02, 1.0), (0.022, 1.1), (0.019, 0.95), (0.024, 1.2), (0.5, 1.2), (0.016, 0.8), (0.0, 0.8)],
)
def test_a_target_moves_the_weight_by_a_fifth_at_most(measured_kl: float, factor: float) -> None:
    weight = KlWeight(0.5, target=0.02)
    weight.update(measured_kl)
    assert weight.weight == pytest.approx(0.5 * factor)
    weight.update(measured_kl)
    assert weight.weight == pytest.approx(0.5 * factor**2)


@pytest.mark.parametrize("target", [1e-9, 1e9])
def test_the_weight_is_logged_used_and_saved(make_tuner: Callable[..., Any], target: float) -> None:
    changes = {"objective.kl": 0.5, "objective.kl_target": target, "train.learning_rate": 0.05}
    tuner = make_tuner(changes, toy=True)
    # nothing has moved in the first epoch, so the weight falls; then it rises above the low target
    weights = [tuner.step().metrics["kl_weight"] for _ in range(3)]
    second = 1.2 if target < 1 else 0.8
    assert weights == pytest.approx([0.5, 0.5 * 0.8, 0.5 * 0.8 * second])
    tuner.save()
    assert json.loads((tuner.run.checkpoints / "epoch_00003" / "state.json").read_text(encoding="utf-8"))[
        "objective"
    ]["kl"] == tuner.objective.kl.weight  # fmt: skip
    again = make_tuner(changes, toy=True)
    assert again.objective.kl.weight == 0.5
    again.load(again.run.checkpoints / "epoch_00003")
    assert again.objective.kl.weight == tuner.objective.kl.weight != 0.5
    assert again.step().metrics["kl_weight"] == tuner.step().metrics["kl_weight"]


def test_without_a_weight_none_is_logged(make_tuner: Callable[..., Any]) -> None:
    assert "kl_weight" not in make_tuner(toy=True).step().metrics
