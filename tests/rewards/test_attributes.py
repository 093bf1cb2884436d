"""The attribute reward, with a classifier whose answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.types import Case, Reward
from clinalign.networks.classifier import AttributeClassifier
from clinalign.rewards import REWARDS, load_reward
from clinalign.rewards.attributes import AttributeReward


def classifier(logits: list[float]) -> AttributeClassifier:
    """Answers ``logits`` for hair, ink and MEL, plus the image's mean: an image of 0 gives exactly ``logits``."""
    model = AttributeClassifier(["hair", "ink", "MEL"], 8, "test_byobnet")
    answers = torch.tensor(logits)
    model.raw_logits = lambda images: answers + images.mean(dim=(1, 2, 3))[:, None]  # type: ignore[method-assign]
    return model


def case(**attributes: int | None) -> Case:
    return Case("1", "", attributes)


BLACK = torch.zeros(1, 3, 8, 8)


def test_hard_is_the_share_of_labels_that_are_met() -> None:
    reward = AttributeReward(classifier([2.0, -1.0, 3.0]))
    result = reward(BLACK.expand(2, 3, 8, 8), [case(hair=1, ink=1, MEL=1), case(hair=1, ink=0, MEL=1)])
    assert result.values.tolist() == pytest.approx([2 / 3, 1.0])
    assert result.values.dtype == torch.float32
    assert {name: part.tolist() for name, part in result.parts.items()} == {
        "hair": [1.0, 1.0],
        "ink": [0.0, 1.0],
        "MEL": [1.0, 1.0],
    }


def test_an_unknown_label_counts_neither_for_nor_against() -> None:
    reward = AttributeReward(classifier([2.0, -1.0, 3.0]))
    result = reward(BLACK, [case(hair=1, ink=None)])  # MEL is not even named
    assert result.values.tolist() == [1.0]
    assert result.parts["ink"].isnan().all()
    assert result.parts["MEL"].isnan().all()


def test_a_case_without_a_known_label_is_masked_and_not_zero() -> None:
    result = AttributeReward(classifier([2.0, -1.0, 3.0]))(BLACK, [case(hair=None, smile=1)])
    assert result.valid.tolist() == [False]


def test_probability_and_log_likelihood_by_hand() -> None:
    logits = [math.log(4), math.log(1 / 3), 50.0]  # probabilities .8, .25 and all but 1
    labels = case(hair=1, ink=0, MEL=0)  # right with .8, right with .75, wrong with all but 1
    soft = AttributeReward(classifier(logits), "probability", clip=0.05)(BLACK, [labels])
    assert soft.values.item() == pytest.approx((0.8 + 0.75 + 0.05) / 3, rel=1e-5)
    likelihood = AttributeReward(classifier(logits), "log_likelihood", clip=0.05)(BLACK, [labels])
    assert likelihood.values.item() == pytest.approx((math.log(0.8) + math.log(0.75) + math.log(0.05)) / 3, rel=1e-5)


@pytest.mark.parametrize(("score", "moves"), [("hard", False), ("probability", True), ("log_likelihood", True)])
def test_soft_scores_have_gradients(score: str, moves: bool) -> None:
    images = BLACK.clone().requires_grad_()
    result = AttributeReward(classifier([0.5, 0.5, 0.5]), score)(images, [case(hair=1)])
    assert result.values.requires_grad == moves


def test_a_subset_of_attributes_may_count() -> None:
    reward = AttributeReward(classifier([2.0, -1.0, 3.0]), attributes=["ink"])
    assert reward(BLACK, [case(hair=1, ink=1)]).values.tolist() == [0.0]


def test_identity_tells_settings_and_weights() -> None:
    model = AttributeClassifier(["hair", "ink"], 32, "test_byobnet")
    first, second = AttributeReward(model), AttributeReward(model, "probability")
    assert isinstance(first, Reward)
    assert first.identity != second.identity
    assert first.model_identity == second.model_identity == model.identity


def test_batches_do_not_change_scores() -> None:
    torch.manual_seed(0)
    model, images = AttributeClassifier(["hair"], 32, "test_byobnet"), torch.rand(5, 3, 32, 32)
    cases = [case(hair=1)] * 5
    whole = AttributeReward(model, "probability")(images, cases).values
    parts = AttributeReward(model, "probability", batch_size=2)(images, cases).values
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)  # float32 sums in another order


def test_it_is_loaded_by_name_from_a_folder(tmp_path: Path) -> None:
    AttributeClassifier(["hair"], 32, "test_byobnet").save(tmp_path / "r")
    reward = load_reward("attributes", tmp_path / "r", {"score": "probability"})
    assert reward(torch.rand(2, 3, 16, 16), [case(hair=1)] * 2).values.shape == (2,)


def test_messages(tmp_path: Path) -> None:
    model = classifier([0.0, 0.0, 0.0])
    with pytest.raises(UserError, match="unknown score 'sharp'"):
        AttributeReward(model, "sharp")
    with pytest.raises(UserError, match=r"clip .* between 0 and 0\.5"):
        AttributeReward(model, clip=0.5)
    with pytest.raises(UserError, match=r"batch_size .* 1 or more"):
        AttributeReward(model, batch_size=0)
    with pytest.raises(UserError, match="does not see 'har': did you mean 'hair'"):
        AttributeReward(model, attributes=["har"])
    with pytest.raises(UserError, match="at least one attribute"):
        AttributeReward(model, attributes=[])
    with pytest.raises(UserError, match="needs the folder"):
        load_reward("attributes")
    with pytest.raises(UserError, match="no setting 'scor': did you mean 'score'"):
        load_reward("attributes", tmp_path, {"scor": "hard"})
    with pytest.raises(UserError, match=r"unknown reward 'atributes': did you mean 'attributes'\?"):
        load_reward("atributes")


def test_the_classifier_is_frozen() -> None:
    reward = AttributeReward(classifier([0.0, 0.0, 0.0]))
    assert not any(parameter.requires_grad for parameter in reward.classifier.parameters())
    assert not reward.classifier.training
    assert isinstance(reward.classifier, nn.Module)


def test_names() -> None:
    assert {"attributes", "brightness", "compressibility"} <= set(REWARDS.names())
