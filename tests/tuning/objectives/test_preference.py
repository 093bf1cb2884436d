"""Preference pairs by hand, and the loss on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from clinalign.rewards.sanity import SanityReward
from clinalign.tuning.objectives.preference import pair_up, preference_loss

GENTLE = torch.tensor([1.0, -0.5, 2.0, -1.5])


def pairs(values: list[float], group: int, count: int, inactive: tuple[int, ...] = ()) -> list[tuple[int, int]]:
    active = torch.ones(len(values), dtype=torch.bool)
    active[list(inactive)] = False
    return pair_up(torch.tensor(values), active, group, count)


def test_best_with_worst_and_second_best_with_second_worst() -> None:
    #          0    1    2     3     4
    values = [0.1, 2.0, -1.0, 0.5, -0.3]
    assert pairs(values, 5, 1) == [(1, 2)]
    assert pairs(values, 5, 2) == [(1, 2), (3, 4)]
    assert pairs(values, 5, 9) == [(1, 2), (3, 4)]  # the one in the middle is left over


def test_pairs_stay_within_their_group() -> None:
    assert pairs([0.0, 1.0, 9.0, 5.0], 2, 2) == [(1, 0), (2, 3)]
    assert pairs([0.0, 1.0, 9.0], 2, 2) == [(1, 0)]  # one alone has nobody to be compared with


def test_ties_give_no_pair() -> None:
    assert pairs([1.0, 1.0, 1.0, 1.0], 4, 2) == []
    assert pairs([1.0, 0.0, 0.0, -1.0], 4, 2) == [(0, 3)]  # the two in the middle are equal


def test_pictures_without_a_signal_are_left_out() -> None:
    values = [3.0, 2.0, 1.0, 0.0]
    assert pairs(values, 4, 2, inactive=(0,)) == [(1, 3)]
    assert pairs(values, 4, 2, inactive=(0, 3)) == [(1, 2)]
    assert pairs(values, 4, 2, inactive=(0, 1, 3)) == []


def test_the_loss_by_hand() -> None:
    better, worse = torch.tensor([0.0, -0.1, 0.1, 0.3]), torch.tensor([0.0, 0.1, -0.1, 0.3])
    # -log sigmoid(-B (better - worse)) with B 5: at 0, at a gain of 0.2 (better matched) and at a loss of 0.2
    wanted = [math.log(2), math.log1p(math.exp(-1.0)), math.log1p(math.exp(1.0)), math.log(2)]
    torch.testing.assert_close(preference_loss(better, worse, 5.0), torch.tensor(wanted))


def test_the_untouched_policy_loses_log_2_a_pair(make_tuner: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make_tuner({"objective": {"name": "preference", "timesteps": 3}})
    rollout, rows = drawn(tuner, GENTLE)
    assert rows.pictures.tolist() == [[2, 3]] * 3 + [[0, 1]] * 3  # two pairs at three noise levels each
    assert torch.equal(rows.samples, rows.pictures)
    terms = tuner.objective.terms(rollout, rows)
    torch.testing.assert_close(terms.loss.detach(), torch.full((6,), math.log(2)))
    assert not terms.log["preference/margin"].any()
    assert not terms.log["kl_trained"].any()


def test_both_pictures_of_a_pair_get_the_same_noise(
    make_tuner: Callable[..., Any], drawn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = make_tuner({"objective": {"name": "preference"}}, toy=True)
    rollout, rows = drawn(tuner, GENTLE)
    sides: list[Any] = []
    noised = tuner.objective.noised
    monkeypatch.setattr(tuner.objective, "noised", lambda *given: (sides.append(noised(*given)), sides[-1])[1])
    tuner.objective.terms(rollout, rows)
    better, worse = sides
    assert torch.equal(better.clean, rollout.clean[rows.samples[:, 0]])
    assert torch.equal(worse.clean, rollout.clean[rows.samples[:, 1]])
    noise = [(side.x_t - side.alpha.sqrt() * side.clean) / (1 - side.alpha).sqrt() for side in sides]
    # float32 differences of numbers near 3, divided by sqrt(1 - a), which is 0.04 in the last step
    torch.testing.assert_close(noise[0], noise[1], rtol=0, atol=1e-4)


def test_a_small_step_prefers_the_better_picture(
    make_tuner: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any]
) -> None:
    tuner = make_tuner({"objective": {"name": "preference", "beta": 50.0}}, toy=True)
    rollout, rows = drawn(tuner, GENTLE)
    _, found = gradients(tuner, rollout, rows)
    with torch.no_grad():
        tuner.parameters["shift"].sub_(found["shift"], alpha=0.01 / float(found["shift"].norm()))
        terms = tuner.objective.terms(rollout, rows)
    assert float(terms.loss.mean()) < math.log(2)
    assert float(terms.log["preference/margin"].mean()) > 0.0


def test_pairs_are_dealt_to_the_steps_of_an_epoch(make_tuner: Callable[..., Any], drawn: Callable[..., Any]) -> None:
    tuner = make_tuner({"objective": {"name": "preference", "timesteps": 1}}, toy=True)
    eight = torch.cat([GENTLE, -GENTLE])
    rollout, everything = drawn(tuner, eight)
    halves = [drawn(tuner, eight, update=update, updates=2, rollout=rollout)[1] for update in (0, 1)]
    assert everything.pictures.tolist() == [[2, 3], [0, 1], [7, 6], [5, 4]]
    assert [half.pictures.tolist() for half in halves] == [[[2, 3], [7, 6]], [[0, 1], [5, 4]]]
    assert [half.count for half in halves] == [2, 2]


@pytest.mark.parametrize("silent", [True, False])
def test_an_epoch_without_a_pair_trains_nothing(make_tuner: Callable[..., Any], silent: bool) -> None:
    changes = {"objective": {"name": "preference"}, "rollout.images_per_prompt": 4 if silent else 1,
               "rollout.prompts_per_epoch": 4}  # fmt: skip
    level = SanityReward("level", lambda images: torch.full((len(images),), 0.7))
    tuner = make_tuner(changes, level if silent else None, toy=True)
    row = tuner.step().metrics
    assert row["grad_norm"] == row["loss"] == 0.0
    assert not tuner.parameters["shift"].any()
