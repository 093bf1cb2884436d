"""Nearer to training or to held-out images: closed form, null with its coverage, planted memory, wrong input."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.privacy.nearest_train import (
    NearestTrain,
    Sides,
    _permuted,
    _scores,
    compare_sides,
    one_of_each,
    ratio_change,
    ratio_estimate,
    share_change,
    share_estimate,
    surround,
)


def around(world: Any, seed: int = 0) -> Sides:
    t, tg, h, hg, y, groups = world
    return surround(y, groups, t, tg, h, hg, seed)


def compared(world: Any, permutations: int = 60) -> NearestTrain:
    return compare_sides(around(world), permutations)


def test_the_share_by_hand() -> None:
    # four training groups, two held out: a training image is kept with chance 1/2. Order: T T H ...
    is_train = torch.tensor([True, True, True, True, False, False])
    group = torch.tensor([[0, 1, 4, 2, 3, 5]])
    logs = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]], dtype=torch.float64)
    none = torch.zeros(6, dtype=torch.long)
    sides = Sides(logs, group, is_train, none, torch.tensor([-1]), torch.tensor([0]))
    share, ratio = _scores(sides, logs, is_train[None])
    assert share.item() == pytest.approx(1 - 0.5**2)  # lost only where neither of the first two was kept
    nearest_train = 0.5 * 0 + 0.25 * 1 + 0.125 * 3 + 0.0625 * 4 + 0.0625 * 5  # the rest counts as the last distance
    assert ratio.item() == pytest.approx(nearest_train - 2)


def test_the_share_is_the_mean_over_random_subsets_of_the_larger_side(people: Any) -> None:
    world = people(3, train=120, held_out=40, memorised=0.2)
    exact = float(compared(world, 2).share.mean())
    chance, shares = torch.Generator().manual_seed(0), []
    for _ in range(200):
        rows = torch.randperm(120, generator=chance)[:40]
        to_train = torch.cdist(world.generated, world.train[rows]).min(1).values
        shares.append((to_train < torch.cdist(world.generated, world.held_out).min(1).values).double().mean())
    # Monte Carlo error of 200 subsets is about 0.003, and thinning by chance differs from a fixed size by about 1/120
    assert exact == pytest.approx(float(torch.stack(shares).mean()), abs=0.02)


def test_without_memory_the_share_is_a_half_and_the_interval_covers_it(people: Any) -> None:
    found = [compared(people(seed)) for seed in range(60)]
    estimates = [share_estimate(each) for each in found]
    assert sum(e.value for e in estimates) / 60 == pytest.approx(0.5, abs=0.03)
    assert sum(e.ci95[0] <= 0.5 <= e.ci95[1] for e in estimates) >= 0.88 * 60  # 95 % less 2.5 standard errors
    assert sum(each.p_value <= 0.05 for each in found) <= 0.12 * 60
    ratios = [ratio_estimate(each) for each in found]
    assert sum(r.ci95[0] <= 1 <= r.ci95[1] for r in ratios) >= 0.88 * 60


@pytest.mark.slow
@pytest.mark.parametrize("setting", [{}, {"held_out": 80}, {"train": 40, "held_out": 90}, {"per_case": 2}])
def test_coverage_with_equal_and_unequal_sides_and_several_images_a_case(people: Any, setting: dict[str, int]) -> None:
    found = [compared(people(1000 + seed, **setting), 100) for seed in range(150)]
    estimates = [share_estimate(each) for each in found]
    covered = sum(e.ci95[0] <= 0.5 <= e.ci95[1] for e in estimates) / 150
    assert 0.91 <= covered <= 1  # two standard errors of 150 worlds are 0.036
    assert sum(each.p_value <= 0.05 for each in found) / 150 <= 0.09


def test_memory_is_found(people: Any) -> None:
    found = compared(people(0, generated=60, memorised=0.6), 200)
    estimate = share_estimate(found)
    assert estimate.ci95[0] > 0.5
    assert found.p_value < 0.01
    assert ratio_estimate(found).ci95[1] < 1
    assert (found.train_groups, found.held_out_groups, estimate.n) == (80, 50, 60)


def test_a_generator_that_copies_held_out_people_is_not_accused(people: Any) -> None:
    world = people(0, generated=60, memorised=0.6)
    t, tg, h, hg, y, groups = world
    found = compare_sides(surround(y, groups, h, hg, t, tg), 200)  # the sides exchanged
    assert share_estimate(found).ci95[1] < 0.5
    assert found.p_value > 0.9


def test_ten_pictures_of_one_patient_are_one_piece_of_evidence(people: Any) -> None:
    t, tg, h, hg, _, _ = people(0)
    crowd = t[5] + 0.01 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    alone = share_estimate(compare_sides(surround(crowd, [f"q{i}" for i in range(40)], t, tg, h, hg), 100))
    spread = share_estimate(compared((t, tg, h, hg, t[:40] + 0.01, [f"q{i}" for i in range(40)])))
    assert alone.ci95[1] - alone.ci95[0] > 2 * (spread.ci95[1] - spread.ci95[0])


def test_what_tuning_changed_is_paired(people: Any) -> None:
    t, tg, h, hg, before, groups = people(0, generated=60)
    after = before.clone()
    after[:20] = t[:20] + 0.01
    old, new = compared((t, tg, h, hg, before, groups), 150), compared((t, tg, h, hg, after, groups), 150)
    same = share_change(old, old)
    assert (same.value, same.ci95) == (0.0, (0.0, 0.0))
    worse = share_change(old, new)
    assert worse.value == pytest.approx(float(new.share.mean() - old.share.mean()))
    assert worse.ci95[0] > 0
    assert ratio_change(old, new).ci95[1] < 0
    apart = [share_estimate(each) for each in (old, new)]
    widths = [e.ci95[1] - e.ci95[0] for e in apart]
    assert worse.ci95[1] - worse.ci95[0] < (widths[0] ** 2 + widths[1] ** 2) ** 0.5


@pytest.mark.slow
def test_the_change_of_a_tuning_that_remembers_nothing_covers_zero(people: Any) -> None:
    covered = 0
    for seed in range(100):
        t, tg, h, hg, before, groups = people(seed)
        after = before + 0.5 * torch.randn(before.shape, generator=torch.Generator().manual_seed(seed))
        old, new = (compared((t, tg, h, hg, y, groups), 100) for y in (before, after))
        change = share_change(old, new)
        covered += change.ci95[0] <= 0 <= change.ci95[1]
    assert covered >= 0.9 * 100


def test_the_case_of_the_prompt_does_not_count(people: Any) -> None:
    t, tg, h, hg, _, _ = people(0)
    drawn_like_their_case = h[:40] + 0.01
    named = compare_sides(surround(drawn_like_their_case, hg[:40], t, tg, h, hg), 50)
    unnamed = compare_sides(surround(drawn_like_their_case, ["x"] * 40, t, tg, h, hg), 50)
    assert float(unnamed.share.mean()) == pytest.approx(0, abs=1e-6)
    assert 0.3 < float(named.share.mean()) < 0.7


def test_one_image_of_each_patient() -> None:
    groups = ["a", "a", "b", "a", "c"]
    rows = one_of_each(groups, 0).tolist()
    assert sorted(groups[row] for row in rows) == ["a", "b", "c"]
    assert one_of_each(groups, 0).tolist() == rows
    assert len(one_of_each(groups, 0, most=2)) == 2
    assert {one_of_each(groups, seed)[0].item() for seed in range(20)} >= {0, 1}  # not always the first


def two_kinds(seed: int, strata: bool) -> NearestTrain:
    """Two diagnoses far apart; training has mostly the first, and all generated images are of it."""
    g = torch.Generator().manual_seed(seed)

    def draw(first: int, second: int) -> torch.Tensor:
        return torch.cat([torch.randn(first, 4, generator=g), 20 + torch.randn(second, 4, generator=g)])

    t, h, y = draw(70, 20), draw(20, 40), draw(50, 0)
    kinds = (["a"] * 70 + ["b"] * 20, ["a"] * 20 + ["b"] * 40)
    names = [[f"{side}{i}" for i in range(len(each))] for side, each in (("t", t), ("h", h), ("q", y))]
    return compare_sides(surround(y, names[2], t, names[0], h, names[1], strata=kinds if strata else None), 60)


def test_sides_of_another_mixture_are_compared_kind_by_kind() -> None:
    # without strata the test cries memory where there is only another mixture; with them it does not
    blind, fair = ([two_kinds(seed, strata) for seed in range(25)] for strata in (False, True))
    assert sum(each.p_value <= 0.05 for each in blind) >= 18
    assert sum(each.p_value <= 0.05 for each in fair) <= 4
    assert sum(float(each.share.mean()) for each in fair) / 25 == pytest.approx(0.5, abs=0.04)
    assert sum(e.ci95[0] <= 0.5 <= e.ci95[1] for e in map(share_estimate, fair)) >= 21


def test_leaving_out_the_prompts_own_case_does_not_tip_the_balance_in_a_small_kind() -> None:
    # ten kinds of five training and five held-out patients; strangers of each kind look for their like among the rest
    shares = []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        kind = torch.arange(10).repeat_interleave(5)
        t, h = (30.0 * kind[:, None] + torch.randn(50, 3, generator=g) for _ in range(2))
        names = [[f"{side}{i}" for i in range(50)] for side in "th"]
        kinds = [str(int(number)) for number in kind]
        sides = surround(h, names[1], t, names[0], h, names[1], strata=(kinds, kinds))
        found = compare_sides(sides, 40)
        shares.append(float(found.share.mean()))
        assert float(found.null_share.mean()) == pytest.approx(0.5, abs=0.05)
    # five against four would give 0.556
    assert sum(shares) / 20 == pytest.approx(0.5, abs=0.025)


def test_labels_are_permuted_within_their_stratum(people: Any) -> None:
    t, tg, h, hg, y, groups = people(0)
    kinds = (["a"] * 30 + ["b"] * 50, ["b"] * 40 + ["a"] * 10)
    sides = surround(y, groups, t, tg, h, hg, strata=kinds)
    (labels,) = _permuted(sides, 5, 0)
    for stratum in (0, 1):
        rows = sides.stratum == stratum
        assert set(labels[:, rows].sum(1).tolist()) == {int(sides.is_train[rows].sum())}
    assert not torch.equal(labels[0], labels[1])


def test_a_patient_on_both_sides_and_too_few_patients_are_refused(people: Any) -> None:
    t, tg, h, hg, y, groups = people(0)
    with pytest.raises(UserError, match="1 patients or lesions are in the training set and among the held-out"):
        surround(y, groups, t, tg, h, ["t3", *hg[1:]])
    with pytest.raises(UserError, match="80 in training and 5 held out"):
        surround(y, groups, t, tg, h[:5], hg[:5])
    with pytest.raises(UserError, match="10 pairs are alike: 20 are needed"):
        surround(y, groups, t, tg, h, hg, strata=(["a"] * 80, ["a"] * 10 + ["b"] * 40))
