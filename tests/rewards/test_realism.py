"""The realism reward, with a classifier whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, Reward
from clinalign.networks.realism import REAL, RealismClassifier
from clinalign.networks.spoil import KINDS
from clinalign.rewards import load_reward
from clinalign.rewards.realism import RealismReward


def classifier(slope: float = 8.0) -> RealismClassifier:
    """Its logit is ``slope`` times (mean brightness - 0.5)."""
    model = RealismClassifier([REAL], 16, "test_byobnet")
    model.raw_logits = lambda images: slope * (images.mean((1, 2, 3))[:, None] - 0.5)  # type: ignore[method-assign]
    return model


def test_it_is_the_log_probability_of_real_bounded_above() -> None:
    images = torch.full((4, 3, 16, 16), 0.5)
    images[0], images[1], images[3] = 1.0, 0.6, 0.0
    result = RealismReward(classifier(), clip=0.1)(images, [Case("1", "")] * 4)
    expected = [math.log(0.9), math.log(1 / (1 + math.exp(-0.8))), math.log(0.5), -math.log(1 + math.exp(4.0))]
    assert result.values.tolist() == pytest.approx(expected, abs=1e-6)
    assert result.valid.all()
    assert isinstance(RealismReward(classifier()), Reward)


def test_it_is_differentiable_in_the_images() -> None:
    images = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    RealismReward(classifier())(images, [Case("1", "")]).values.sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, torch.full_like(images, 8.0 * 0.5 / images.numel()))


def test_its_own_wrong_pictures_are_the_spoilt_kinds() -> None:
    images = torch.rand(4, 3, 16, 16)
    worse = RealismReward(classifier()).worse_images(images, np.random.default_rng(0))
    assert tuple(worse) == KINDS
    assert all(copies.shape == images.shape and not torch.equal(copies, images) for copies in worse.values())


def test_what_is_wrong_is_told() -> None:
    with pytest.raises(UserError, match=r"clip of reward 'realism' must lie between 0 and 0.5, got 0.5"):
        RealismReward(classifier(), clip=0.5)
    with pytest.raises(UserError, match="reward 'realism' needs the folder of its trained weights"):
        load_reward("realism")
    with pytest.raises(UserError, match="reward 'realism' has no setting 'clipp': did you mean 'clip'"):
        load_reward("realism", "nowhere", {"clipp": 0.1})
