"""Several models as one cautious reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.rewards import load_reward
from clinalign.rewards.ensemble import EnsembleReward


class Linear:
    """Scores ``weight`` times the mean of the picture."""

    name = "linear"

    def __init__(self, weight: float, broken: tuple[int, ...] = ()) -> None:
        self.weight, self.broken = weight, broken
        self.identity = f"linear:{weight}:{broken}"

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        values = self.weight * images.mean(dim=(1, 2, 3))
        valid = torch.ones(len(images), dtype=torch.bool)
        valid[list(self.broken)] = False
        return RewardResult(torch.where(valid, values, torch.nan), valid)


CASES = [Case("a", "x"), Case("b", "x")]
GREY = torch.full((2, 3, 4, 4), 0.5)


def test_mean_minus_k_std() -> None:
    members = [Linear(1.0), Linear(2.0), Linear(6.0)]  # scores 0.5, 1, 3: mean 1.5, variance (1 + 0.25 + 2.25) / 3
    std = (3.5 / 3) ** 0.5
    for k in (0.0, 1.0, 2.0):
        result = EnsembleReward(members, k)(GREY, CASES)
        assert result.values.tolist() == pytest.approx([1.5 - k * std] * 2)
    assert result.parts["mean"].tolist() == pytest.approx([1.5] * 2)
    assert result.parts["spread"].tolist() == pytest.approx([std] * 2)


def test_members_that_agree_lose_nothing_and_keep_a_gradient() -> None:
    one, same = Linear(2.0), Linear(2.0, broken=(1,))
    images = GREY.clone().requires_grad_()
    result = EnsembleReward([one, same])(images, CASES)
    assert float(result.values[0].detach()) == pytest.approx(1.0)
    result.values[result.valid].sum().backward()
    assert images.grad is not None
    assert images.grad[0] == pytest.approx(torch.full((3, 4, 4), 2.0 / 48))  # the root's gradient at 0 is no NaN
    assert not images.grad[1].any()


def test_valid_only_where_all_members_are() -> None:
    result = EnsembleReward([Linear(1.0), Linear(2.0, broken=(1,))])(GREY, CASES)
    assert result.valid.tolist() == [True, False]
    assert result.parts["spread"].isnan().tolist() == [False, True]
    assert torch.isfinite(result.values).all()


def test_the_gradient_is_that_of_finite_differences() -> None:
    ensemble = EnsembleReward([Linear(1.0), Linear(2.5), Linear(3.0)], k=0.7)
    images = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: ensemble(given, CASES).values, images)


def test_the_identity_names_members_and_k_and_not_their_order() -> None:
    one, two, three = Linear(1.0), Linear(2.0), Linear(3.0)
    whole = EnsembleReward([one, two]).identity
    assert EnsembleReward([two, one]).identity == whole
    assert len({whole, EnsembleReward([one, three]).identity, EnsembleReward([one, two], 0.5).identity}) == 3


@pytest.mark.parametrize(
    ("members", "k", "message"),
    [
        ([Linear(1.0)], 1.0, "two members or more, got 1"),
        ([Linear(1.0), Linear(1.0)], 1.0, "the same model, which agrees with itself"),
        ([Linear(1.0), Linear(2.0)], -1.0, "k of reward 'ensemble' must be a number of 0 or more, got -1"),
        ([Linear(1.0), Linear(2.0)], "much", "k of reward 'ensemble' must be"),
    ],
)
def test_what_is_no_ensemble(members: list[Any], k: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EnsembleReward(members, k)


def test_from_folders(tiny: Any) -> None:
    settings = {
        "of": "attributes",
        "members": [str(tiny.reward), str(tiny.evaluator)],
        "k": 0.5,
        "score": "probability",
    }
    ensemble = load_reward("ensemble", None, settings)
    single = [load_reward("attributes", folder, {"score": "probability"}) for folder in (tiny.reward, tiny.evaluator)]
    names = single[0].classifier.attribute_names  # type: ignore[attr-defined]
    cases = [Case(str(number), "x", dict.fromkeys(names, number % 2)) for number in range(4)]
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = torch.stack([reward(images, cases).values for reward in single])
    expected = scores.mean(0) - 0.5 * scores.std(0, correction=0)
    torch.testing.assert_close(ensemble(images, cases).values, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": ["a", "b"]}, "needs the kind of its members: give it settings.of"),
        ({"of": "atributes", "members": ["a", "b"]}, "unknown reward 'atributes': did you mean 'attributes'"),
        ({"of": "ensemble", "members": ["a", "b"]}, "cannot be made of ensembles"),
        ({"of": "attributes", "members": "a"}, "must be a list of folders, got a"),
        ({"of": "attributes", "members": ["a", "b"], "scor": 1}, "reward 'attributes' has no setting 'scor'"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_reward("ensemble", None, settings)
    with pytest.raises(UserError, match="takes a list of folders as its members, and no path"):
        load_reward("ensemble", Path("somewhere"), {"of": "attributes"})
