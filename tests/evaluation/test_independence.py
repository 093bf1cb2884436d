"""The evaluator must not be the reward."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.independence import check_independence
from clinalign.networks.classifier import AttributeClassifier

REWARD = {"weights_hash": "aaa", "dataset": "data", "split": "train", "backbone": "resnet10t"}
EVALUATOR = {"weights_hash": "bbb", "dataset": "data", "split": "judge", "backbone": "mobilenetv3"}


def test_another_model_trained_on_the_judge_split_may_judge() -> None:
    assert check_independence(EVALUATOR, [REWARD]) == []


def test_the_cards_of_saved_classifiers_are_enough(tmp_path: Path) -> None:
    cards = []
    for seed, split in enumerate(("train", "judge")):
        torch.manual_seed(seed)
        model = AttributeClassifier(["hair"], image_size=32, backbone="resnet10t")
        model.card = {"split": split, "dataset": "fingerprint"}
        model.save(tmp_path / split)
        cards.append(AttributeClassifier.load(tmp_path / split).card)
    reward, evaluator = cards
    assert check_independence(evaluator, [reward]) == [
        "evaluator and reward share the backbone resnet10t: they may share its blind spots"
    ]
    with pytest.raises(UserError, match="the evaluator is the reward itself"):
        check_independence(reward, [reward])


def test_the_reward_itself_may_not() -> None:
    with pytest.raises(UserError, match="the evaluator is the reward itself"):
        check_independence(REWARD, [EVALUATOR, REWARD])


def test_nor_a_sister_trained_on_the_same_split() -> None:
    sister = EVALUATOR | {"split": "train"}
    with pytest.raises(UserError, match="both trained on split 'train' of the same dataset"):
        check_independence(sister, [REWARD])
    assert check_independence(sister | {"dataset": "elsewhere"}, [REWARD]) == []


def test_what_is_allowed_is_written_down() -> None:
    notes = check_independence(REWARD, [REWARD], allow=True)
    assert notes[0].startswith("not independent: the evaluator is the reward itself")


def test_a_shared_backbone_is_noted() -> None:
    notes = check_independence(EVALUATOR | {"backbone": "resnet10t"}, [REWARD])
    assert notes == ["evaluator and reward share the backbone resnet10t: they may share its blind spots"]


def test_a_card_that_cannot_tell_is_not_trusted() -> None:
    with pytest.raises(UserError, match="lacks split, weights_hash"):
        check_independence({"dataset": "data", "split": "judge"}, [REWARD | {"split": ""}])
