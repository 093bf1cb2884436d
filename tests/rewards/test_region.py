"""The region reward, with a segmenter that reads its masks off the colours of the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, Reward
from clinalign.networks.place_rules import PlaceRules
from clinalign.networks.segmenter import Segmenter
from clinalign.rewards import load_reward
from clinalign.rewards.region import RegionReward

RULES = PlaceRules(True, size_borders={"effusion": (0.1, 0.3)}, floors={"effusion": 0.01}, lung_area=0.4)
LEFT, RIGHT = (8, 28, 24, 36), (8, 28, 4, 16)  # the patient's, rows and columns


def segmenter() -> Segmenter:
    """Red is effusion, green and blue are the lungs of the patient's left and right."""
    model = Segmenter(["effusion", "lung_left", "lung_right"], 16, "test_byobnet", RULES)
    model.forward = lambda images: 40.0 * images - 20.0  # type: ignore[method-assign]
    return model


def film(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    picture = torch.zeros(3, 40, 40)
    picture[1, 5:35, 24:36] = 1.0
    picture[2, 5:35, 4:16] = 1.0
    for top, bottom, left, right in boxes:
        picture[0, top:bottom, left:right] = 1.0
    return picture


def case(text: str) -> Case:
    return Case("1", text, {"effusion": 1})


def test_the_stated_side_scores_and_the_other_does_not() -> None:
    reward = RegionReward(segmenter())
    images = torch.stack([film(LEFT), film(RIGHT), film()])
    result = reward(images, [case("Left effusion.")] * 3)
    assert result.values.tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-4)  # the third shows none at all
    assert result.values.dtype == torch.float32
    assert result.valid.all()
    assert result.parts["side"].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-4)
    assert result.parts["zone"].isnan().all()


def test_mean_and_product_of_the_clauses() -> None:
    images = film((5, 25, 24, 36))[None]  # half of it in the upper third
    text = [case("Effusion in the left upper zone.")]
    assert RegionReward(segmenter())(images, text).values.item() == pytest.approx(0.75, abs=1e-3)
    assert RegionReward(segmenter(), "product")(images, text).values.item() == pytest.approx(0.5, abs=1e-3)


def test_a_text_that_says_nothing_of_place_is_masked_and_not_zero() -> None:
    texts = ["Effusion.", "No left effusion.", "Nodule in the left upper zone.", "Left effusion."]
    result = RegionReward(segmenter())(film(LEFT).expand(4, 3, 40, 40), [case(text) for text in texts])
    assert result.valid.tolist() == [False, False, False, True]  # nodules are not among its regions


def test_images_can_be_improved_by_the_gradient() -> None:
    torch.manual_seed(0)
    images = (0.5 + 0.01 * torch.randn(1, 3, 40, 40)).requires_grad_()
    text = [case("Small effusion in the left lower zone.")]
    for combine in ("mean", "product"):
        reward = RegionReward(segmenter(), combine)
        before = reward(images, text)
        (slope,) = torch.autograd.grad(before.values.sum(), images)
        after = reward((images + 0.05 * slope.sign()).detach(), text)
        assert after.values.item() > 1.2 * before.values.item()


def test_wrong_cases_lower_the_score_and_cases_without_place_have_none() -> None:
    reward = RegionReward(segmenter())
    cases = [case("Large left effusion."), case("Effusion.")]
    wrong = reward.wrong_cases(cases, np.random.default_rng(0))
    assert wrong[1] is None
    assert wrong[0] is not None
    assert wrong[0].case_id == "1"
    images = film((5, 35, 24, 36))[None]
    assert reward(images, cases[:1]).values.item() > 0.9
    assert reward(images, [wrong[0]]).values.item() < 0.1


def test_some_regions_may_count_alone() -> None:
    reward = RegionReward(segmenter(), regions=["lung_left"])
    assert not reward(film(LEFT)[None], [case("Left effusion.")]).valid.any()


def test_it_is_loaded_by_name_with_its_identity(tmp_path: Path) -> None:
    Segmenter(["effusion"], 16, "test_byobnet").save(tmp_path / "r")
    reward = load_reward("region", tmp_path / "r", {"combine": "product"})
    assert isinstance(reward, Reward)
    assert reward.identity != load_reward("region", tmp_path / "r").identity
    assert reward.model_identity == load_reward("region", tmp_path / "r").model_identity  # type: ignore[attr-defined]
    result = reward(torch.rand(2, 3, 20, 20), [case("Left effusion.")] * 2)
    assert result.values.shape == (2,)
    assert ((result.values >= 0) & (result.values <= 1)).all()


def test_batches_do_not_change_scores() -> None:
    torch.manual_seed(0)
    model, images = Segmenter(["effusion"], 32, "test_byobnet"), torch.rand(5, 3, 32, 32)
    cases = [case("Left effusion.")] * 5
    whole, parts = (RegionReward(model, batch_size=size)(images, cases).values for size in (64, 2))
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)  # float32 sums in another order


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown combine 'men' of reward 'region': did you mean 'mean'"):
        RegionReward(segmenter(), "men")
    with pytest.raises(UserError, match="does not see 'efusion': did you mean 'effusion'"):
        RegionReward(segmenter(), regions=["efusion"])
    with pytest.raises(UserError, match=r"batch_size .* 1 or more"):
        RegionReward(segmenter(), batch_size=0)
    with pytest.raises(UserError, match="needs the folder"):
        load_reward("region")
    with pytest.raises(UserError, match="no setting 'combin': did you mean 'combine'"):
        load_reward("region", tmp_path, {"combin": "mean"})
    with pytest.raises(UserError, match="no network in"):
        load_reward("region", tmp_path / "none")
