from __future__ import annotations

from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.privacy.duplicates import (
    Nearness,
    alarm_change,
    alarm_estimate,
    below,
    calibrate,
    closest_pairs,
    plain_nearness,
    relative_nearness,
)


def test_nearness_by_hand() -> None:
    train, strangers = torch.tensor([[3.0], [10.0]]), torch.arange(10.0)[:, None] + 4
    near = relative_nearness(torch.tensor([[0.0]]), ["q"], train, strangers, [f"h{i}" for i in range(10)])
    assert near.value.item() == pytest.approx(3 / 8.5)
    assert near.row.item() == 0
    assert plain_nearness(torch.tensor([[9.0]]), train) == (torch.tensor([1.0]), torch.tensor([1]))


def test_real_strangers_are_accused_as_often_as_stated(people: Any) -> None:
    shares = []
    for seed in range(10):
        t, _, h, hg, _, _ = people(seed, held_out=200)
        values = relative_nearness(h, hg, t, h, hg).value
        threshold = calibrate(values, hg, 0.05, seed)
        assert float((values < threshold.value).double().mean()) == pytest.approx(0.05, abs=0.01)
        shares.append(float(below(values, threshold, hg).mean()))
    # by the half that they are not in: no share by construction, but the same in the mean
    assert sum(shares) / 10 == pytest.approx(0.05, abs=0.015)
    assert len(set(shares)) > 1


def test_a_generator_that_remembers_nobody_is_accused_no_more(people: Any) -> None:
    alarms = []
    for seed in range(10):
        t, _, h, hg, y, groups = people(seed, held_out=200, generated=100)
        threshold = calibrate(relative_nearness(h, hg, t, h, hg).value, hg, 0.05)
        alarms.append(below(relative_nearness(y, groups, t, h, hg).value, threshold))
    assert float(torch.cat(alarms).mean()) == pytest.approx(0.05, abs=0.03)


def test_blurred_pictures_are_not_near_duplicates(people: Any) -> None:
    # every picture is the mean look: near to many people, a copy of none
    t, _, h, hg, _, _ = people(0, held_out=200)
    mean = t.mean(0) + 0.05 * torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    threshold = calibrate(relative_nearness(h, hg, t, h, hg).value, hg)
    near = relative_nearness(mean, ["q"] * 50, t, h, hg)
    assert float(below(near.value, threshold).mean()) <= 0.02


def test_copies_are_found_and_the_worst_comes_first(people: Any) -> None:
    t, tg, h, hg, y, groups = people(0, held_out=200)
    y[[3, 8, 9]] = t[[11, 40, 40]] + torch.tensor([[0.03], [0.01], [0.02]])
    threshold = calibrate(relative_nearness(h, hg, t, h, hg).value, hg)
    near = relative_nearness(y, groups, t, h, hg)
    alarms = below(near.value, threshold)
    assert alarms[[3, 8, 9]].all()
    assert closest_pairs(near, 2) == [8, 3]  # each training image once
    estimate = alarm_estimate(alarms, groups, [tg[row] for row in near.row.tolist()])
    assert estimate.value == pytest.approx(float(alarms.mean()))
    assert estimate.ci95[0] > 0
    assert estimate.n == 40


def test_many_copies_of_one_patient_make_a_wide_interval() -> None:
    alarms = torch.tensor([1.0] * 20 + [0.0] * 80)
    names = [f"q{i}" for i in range(100)]
    one = alarm_estimate(alarms, names, ["t0"] * 20 + [f"t{i}" for i in range(1, 81)])
    many = alarm_estimate(alarms, names, [f"t{i}" for i in range(100)])
    assert one.ci95[1] - one.ci95[0] > 2 * (many.ci95[1] - many.ci95[0])


def test_the_change_of_alarms() -> None:
    before, after = torch.zeros(60), torch.tensor([1.0] * 12 + [0.0] * 48)
    names = [str(i) for i in range(60)]
    change = alarm_change(before, after, names, names)
    assert change.value == pytest.approx(0.2)
    assert change.ci95[0] > 0
    assert alarm_change(after, after, names, names).ci95 == (0.0, 0.0)


def test_a_list_shorter_than_asked_for() -> None:
    near = Nearness(torch.tensor([0.5, 0.1]), torch.tensor([7, 7]))
    assert closest_pairs(near, 12) == [1]


def test_rates_and_numbers_that_make_no_threshold() -> None:
    with pytest.raises(UserError, match="false-alarm rate of 1"):
        calibrate(torch.rand(50), [str(i) for i in range(50)], 1)
    with pytest.raises(UserError, match="5 held-out images: a threshold needs at least 20"):
        calibrate(torch.rand(5), list("abcde"))
