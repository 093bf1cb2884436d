from __future__ import annotations

from typing import Any

import pytest
import torch

from clinalign.evaluation.privacy.crowding import crowding
from clinalign.evaluation.privacy.matching import keep_rates, matched
from clinalign.evaluation.privacy.membership import auc_change, auc_estimate, loss_scores, picture_scores


def attack(world: Any) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    t, tg, h, hg, y, _ = world
    real, groups = torch.cat([t, h]), [*tg, *hg]
    scores = picture_scores(real, crowding(real, groups, h, hg), y)
    return scores, torch.arange(len(real)) < len(t), groups


def test_scores_by_hand() -> None:
    real, generated = torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0]])
    assert picture_scores(real, torch.tensor([2.0, 2.0]), generated).tolist() == [-0.5, -1.5]
    # both levels count alike, though the second has errors a thousand times as large
    errors = torch.tensor([[0.1, 300.0], [0.2, 200.0], [0.3, 100.0]])
    torch.testing.assert_close(loss_scores(errors), torch.zeros(3, dtype=torch.float64))
    assert loss_scores(torch.tensor([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]])).tolist() == pytest.approx(
        [1, 0, -1], abs=1e-6
    )


def test_without_memory_the_attack_guesses_and_the_interval_says_so(people: Any) -> None:
    found = [auc_estimate(*attack(people(seed)), replicates=100) for seed in range(60)]
    assert sum(e.value for e in found) / 60 == pytest.approx(0.5, abs=0.02)
    assert sum(e.ci95[0] <= 0.5 <= e.ci95[1] for e in found) >= 0.88 * 60


def test_members_are_found_and_the_most_copied_first(people: Any) -> None:
    world = people(0, generated=80, memorised=0.9)
    world.generated[:30] = world.train[17] + 1e-4 * torch.randn(30, 6, generator=torch.Generator().manual_seed(2))
    scores, member, groups = attack(world)
    estimate = auc_estimate(scores, member, groups, replicates=200)
    assert estimate.ci95[0] > 0.5
    assert estimate.n == 130
    assert int(scores.argmax()) == 17


def test_photographs_of_one_patient_are_resampled_together(people: Any) -> None:
    scores, member, groups = attack(people(1))
    twice = torch.cat([scores] * 4), torch.cat([member] * 4)
    together = auc_estimate(*twice, groups * 4, replicates=300)
    alone = auc_estimate(scores, member, groups, replicates=300)
    apart = auc_estimate(*twice, [str(i) for i in range(len(groups) * 4)], replicates=300)
    width = {name: e.ci95[1] - e.ci95[0] for name, e in (("together", together), ("alone", alone), ("apart", apart))}
    assert together.value == pytest.approx(alone.value)
    assert width["together"] == pytest.approx(width["alone"], rel=0.3)
    assert width["apart"] < 0.7 * width["together"]


def test_the_change_of_an_attack_is_paired(people: Any) -> None:
    before, after = people(0, generated=80), people(0, generated=80, memorised=0.9)
    (old, member, groups), (new, _, _) = attack(before), attack(after)
    change = auc_change(old, new, member, groups, replicates=200)
    assert change.ci95[0] > 0
    assert auc_change(old, old, member, groups, replicates=50).ci95 == (0.0, 0.0)


def test_members_of_another_kind_do_not_count_more_than_others_of_it() -> None:
    # kind b scores high, and members are mostly of kind b: no memory, only another mixture
    g = torch.Generator().manual_seed(0)
    kind = ["b"] * 150 + ["a"] * 50 + ["b"] * 50 + ["a"] * 150
    scores = torch.randn(400, generator=g) + torch.tensor([3.0 if name == "b" else 0.0 for name in kind])
    member, names = torch.arange(400) < 200, [str(i) for i in range(400)]
    counts = torch.cat(keep_rates(kind[:200], kind[200:]))
    assert auc_estimate(scores, member, names, replicates=50).ci95[0] > 0.6
    fair = auc_estimate(scores, member, names, replicates=50, counts=counts)
    assert fair.ci95[0] < 0.5 < fair.ci95[1]
    assert auc_change(scores, -scores, member, names, 50, counts=counts).value == pytest.approx(1 - 2 * fair.value)


def test_how_many_of_each_kind_are_kept() -> None:
    first, second = keep_rates(["a", "a", "b", "c"], ["a", "b", "b", "b"])
    assert first.tolist() == [0.5, 0.5, 1, 0]
    torch.testing.assert_close(second, torch.tensor([1, 1 / 3, 1 / 3, 1 / 3], dtype=torch.float64))
    assert matched(["a", "a", "b", "c"], ["a", "b", "b", "b"]) == 2
