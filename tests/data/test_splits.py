from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from clinalign.core.errors import UserError
from clinalign.data.splits import DEFAULT_FRACTIONS, assign_splits, check_groups, torn_groups


def lesions(count: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Lesions with one to four images each; one in fifty is rare."""
    rng = np.random.default_rng(seed)
    groups, labels = [], []
    for lesion in range(count):
        kind = ["rare"] if lesion % 50 == 0 else ["common"] if lesion % 2 else []
        for _ in range(int(rng.integers(1, 5))):
            groups.append(f"lesion {lesion}")
            labels.append(kind)
    return groups, labels


def test_no_lesion_lies_on_two_sides() -> None:
    groups, labels = lesions(500)
    assert torn_groups(groups, assign_splits(groups, labels)) == {}


def test_shares_and_labels_are_as_asked() -> None:
    groups, labels = lesions(1000)
    splits = assign_splits(groups, labels)
    sizes = Counter(splits)
    rare = Counter(split for split, kind in zip(splits, labels, strict=True) if kind == ["rare"])
    for split, share in DEFAULT_FRACTIONS.items():
        # 0.01: about 2500 cases dealt out in groups of at most four cannot miss a share by more.
        assert sizes[split] / len(splits) == pytest.approx(share, abs=0.01)
        # A random split would miss these 20 lesions in `validation` one time in three; 4 is the largest group.
        assert abs(rare[split] - share * sum(rare.values())) <= 4
        assert rare[split] > 0


def test_the_seed_decides_and_nothing_else() -> None:
    groups, labels = lesions(200)
    assert assign_splits(groups, labels, seed=3) == assign_splits(groups, labels, seed=3)
    assert assign_splits(groups, labels, seed=3) != assign_splits(groups, labels, seed=4)


def test_a_split_with_share_zero_gets_nothing_and_every_other_gets_something() -> None:
    fractions = {"train": 0.97, "validation": 0.0, "judge": 0.02, "test": 0.01}
    groups = [f"patient {number}" for number in range(6) for _ in range(10)]
    splits = assign_splits(groups, [[] for _ in groups], fractions)
    assert set(splits) == {"train", "judge", "test"}


def test_refuses_without_a_group_key() -> None:
    with pytest.raises(UserError, match="2 of 3 cases have no group id"):
        assign_splits(["a", "", ""], [[], [], []])


def test_refuses_fewer_groups_than_splits() -> None:
    with pytest.raises(UserError, match=r"2 groups .* cannot fill 4 splits"):
        assign_splits(["a", "a", "b"], [[], [], []])


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.5, "test": 0.4}, "must sum to 1"),
        ({"train": 1.5, "test": -0.5}, "must sum to 1"),
        ({"train": 0.0, "test": 1.0}, "train above 0"),
        ({"train": float("nan"), "test": 0.4}, "must sum to 1"),
        ({"trian": 1.0}, "unknown split 'trian'"),
    ],
)
def test_impossible_fractions_are_refused(fractions: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assign_splits(["a", "b"], [[], []], fractions)


def test_a_group_on_two_sides_is_named() -> None:
    with pytest.raises(UserError, match="1 groups lie on two sides, first 'b' in test and train"):
        check_groups(["a", "b", "b"], ["train", "train", "test"])
