"""Arms of one seed share what they can: real rows in one order, slots of one class."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from clinalign.augmentation.arms import ARMS, COMPARISONS, choose_arms
from clinalign.augmentation.batches import balanced_rows, class_shares, natural_rows, stream
from clinalign.augmentation.learn import LearnSettings, Material, plan_rows
from clinalign.core.errors import UserError
from clinalign.networks.fit import Labelled

STRATA = [("NV", "NV,<=30")] * 90 + [("NV", "NV,>70")] * 10 + [("MEL", "MEL")] * 4
ADDED = [(104 + number, "MEL") for number in range(20)]


def test_a_stream_goes_through_all_rows_before_it_repeats_one() -> None:
    rows = stream([5, 6, 7], 8, 0).tolist()
    assert sorted(rows[:3]) == sorted(rows[3:6]) == [5, 6, 7]
    assert rows == stream([5, 6, 7], 8, 0).tolist() != stream([5, 6, 7], 8, 3).tolist()
    with pytest.raises(UserError, match="nothing to train on"):
        stream([], 3, 0)


def test_added_images_leave_the_order_of_the_real_ones_alone() -> None:
    plain = natural_rows(100, [], 1000, 7)
    mixed = natural_rows(100, list(range(100, 125)), 1000, 7)
    assert torch.equal(mixed[mixed < 100], plain[:800])
    assert int((mixed >= 100).sum()) == 200  # a fifth of all images, a fifth of all slots
    assert {int((mixed[start : start + 50] >= 100).sum()) for start in range(0, 1000, 50)} == {10}  # spread evenly


def test_balanced_slots_keep_their_class_when_images_are_added() -> None:
    plain = balanced_rows(STRATA, [], 4000, 1)
    mixed = balanced_rows(STRATA, ADDED, 4000, 1, share=0.5)
    shown = torch.tensor([name == "MEL" for name, _ in STRATA] + [True] * 20)
    assert torch.equal(shown[plain], shown[mixed])
    same = mixed < 104
    assert torch.equal(plain[same], mixed[same])
    assert 0.47 < float(shown[plain].double().mean()) < 0.53
    assert 0.46 < float((~same).sum() / shown[plain].sum()) < 0.54


def test_cells_of_a_class_are_drawn_by_the_root_of_their_size() -> None:
    rows = balanced_rows(STRATA, [], 8000, 2)
    found = Counter(STRATA[row][1] for row in rows.tolist())
    assert found["NV,<=30"] / found["NV,>70"] == pytest.approx(3.0, rel=0.1)  # the root of 90 / 10


def test_class_shares_are_those_of_the_end() -> None:
    labels = torch.eye(2)
    assert class_shares(torch.tensor([1, 1, 1, 1, 0, 0, 0, 1]), labels).tolist() == [0.75, 0.25]


def material() -> Material:
    count = len(STRATA) + len(ADDED) + 6
    labels = torch.zeros(count, 2)
    images = Labelled(torch.zeros(count, 3, 4, 4, dtype=torch.uint8), labels, labels == 0)
    return Material(images, STRATA, {"tuned": ADDED, "base": ADDED[:3]}, {"tuned": list(range(124, 130))})


def test_every_arm_takes_the_same_steps_and_only_its_own_images() -> None:
    settings = LearnSettings(steps=40, batch_size=8, first_share=0.25)
    rows = {name: plan_rows(arm, material(), settings, 3) for name, arm in ARMS.items() if name != "tstr_base"}
    assert {tuple(each.shape) for each in rows.values()} == {(40, 8)}
    for name in ("real", "classical", "balanced"):
        assert int(rows[name].max()) < 104
    assert torch.equal(rows["real"], rows["classical"])
    for name in ("base", "base_balanced"):
        assert 104 <= int(rows[name].max()) < 107
    for name in ("tuned", "tuned_balanced"):
        assert 107 <= int(rows[name].max()) < 124
    for name, plain in (("tuned_first", "classical"), ("tuned_first_balanced", "balanced")):
        assert int(rows[name][:10].min()) >= 104
        assert int(rows[name][:10].max()) >= 124  # pictures of every class come first too
        assert torch.equal(rows[name][10:].flatten(), rows[plain].flatten()[:240])
    assert int(rows["tstr_tuned"].min()) >= 124
    with pytest.raises(UserError, match="nothing to train on"):
        plan_rows(ARMS["tstr_base"], material(), settings, 3)


def test_arms_by_name() -> None:
    assert [arm.name for arm in choose_arms(["tuned", "real"])] == ["real", "tuned"]
    assert len(choose_arms([])) == len(ARMS)
    assert {name for pair in COMPARISONS for name in pair} <= set(ARMS)
    with pytest.raises(UserError, match="there is no such arm, did you mean 'tuned_balanced'"):
        choose_arms(["tuned_balance"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 3}, "--steps 3: write at least 10"),
        ({"batch_size": 1}, "--train-batch 1"),
        ({"synthetic_share": 0.0}, "--synthetic-share 0"),
        ({"first_share": 1.0}, "first_share 1"),
        ({"backbone": "test_resnett"}, "unknown backbone 'test_resnett'"),
    ],
)
def test_settings_that_train_nothing(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LearnSettings(**settings)  # type: ignore[arg-type]
