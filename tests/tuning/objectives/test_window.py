"""Where the window lies, and that with every step in it the rule is DDPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clinalign.core.objective_config import DdpoWindowConfig
from clinalign.tuning.objectives.window import window_at

SMALL = {
    "rollout.images_per_prompt": 2,
    "rollout.prompts_per_epoch": 2,
    "rollout.steps": 3,
    "train.learning_rate": 1e-2,
}


def windows(steps: int, epochs: int, seed: int = 0, **keys: Any) -> list[list[int]]:
    section = DdpoWindowConfig(**keys)
    return [list(window_at(section, steps, epoch, seed)) for epoch in range(1, epochs + 1)]


def test_slide_goes_on_a_step_every_interval_and_begins_again() -> None:
    # six steps, the last ignored: a window of three has the places 0, 1 and 2
    found = windows(6, 7, window=3, move="slide", interval=2)
    assert found == [[0, 1, 2]] * 2 + [[1, 2, 3]] * 2 + [[2, 3, 4]] * 2 + [[0, 1, 2]]
    assert windows(6, 4, window=3, move="slide", interval=1, ignore_last=0)[-1] == [3, 4, 5]


def test_backward_keeps_the_last_steps_and_reaches_further_back() -> None:
    found = windows(6, 9, window=2, move="backward", interval=2)
    assert found == [[3, 4]] * 2 + [[2, 3, 4]] * 2 + [[1, 2, 3, 4]] * 2 + [[0, 1, 2, 3, 4]] * 3


def test_decay_stays_half_as_long_at_each_place() -> None:
    # five steps usable, window 2: places 0 to 3, of 4, 2, 1 and (never less than) 1 epochs, and then again
    found = windows(6, 9, window=2, move="decay", interval=4)
    assert found == [[0, 1]] * 4 + [[1, 2]] * 2 + [[2, 3]] + [[3, 4]] + [[0, 1]]


def test_random_is_anywhere_and_depends_on_seed_and_epoch_alone() -> None:
    found = windows(6, 60, window=2, move="random", interval=99)
    starts = {window[0] for window in found}
    assert starts == {0, 1, 2, 3}  # sixty draws miss one of four places with a chance of 4 * 0.75^60 = 1e-7
    assert all(window == [window[0], window[0] + 1] for window in found)
    assert found == windows(6, 60, window=2, move="random", interval=1)
    assert found != windows(6, 60, seed=1, window=2, move="random")


@pytest.mark.parametrize("move", ["slide", "random", "backward", "decay"])
def test_a_window_that_is_too_large_is_all_there_is(move: Any) -> None:
    assert windows(4, 3, window=9, move=move, interval=1) == [[0, 1, 2]] * 3
    assert windows(4, 1, window=9, move=move, ignore_last=0) == [[0, 1, 2, 3]]


def test_only_the_window_has_noise_and_is_kept(make_tuner: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make_tuner({"objective": {"name": "ddpo_window", "window": 2, "interval": 1}}, toy=True)
    sampler = tuner.objective.sampler(2)
    everywhere = tuner.generator.schedule(4, 1.0).sigma
    assert sampler.schedule.sigma.tolist() == [0.0, float(everywhere[1]), float(everywhere[2]), 0.0]
    assert sampler.keep == range(1, 3)
    rollout, rows = drawn(tuner, torch.tensor([1.0, -1.0]), epoch=2)
    assert rollout.latents.shape[1] == 3
    assert rollout.log_probs.isfinite().all()
    assert rows.steps.reshape(2, 2).sort().values.tolist() == [[1, 2], [1, 2]]


def test_with_every_step_in_it_it_is_ddpo(make_tuner: Callable[..., Any]) -> None:
    everything = {"name": "ddpo_window", "window": 3, "ignore_last": 0, "clip_range": 0.1}
    plain, window = make_tuner(SMALL), make_tuner({**SMALL, "objective": everything})
    before = {name: value.detach().clone() for name, value in plain.parameters.items()}
    for _ in range(2):
        wanted, found = plain.step().metrics, window.step().metrics
        assert {k: v for k, v in found.items() if not k.startswith("seconds/")} == {
            k: v for k, v in wanted.items() if not k.startswith("seconds/")
        }
    for name, value in plain.parameters.items():
        assert torch.equal(window.parameters[name], value)
    assert any(not torch.equal(value, before[name]) for name, value in plain.parameters.items())
