"""Diversity within a prompt."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.evaluation.diversity import (
    feature_distances,
    ms_ssim,
    ms_ssim_identity,
    ms_ssim_scales,
    prompt_means,
    text_ids,
    within_prompt_pairs,
)


def test_pairs_stay_within_a_prompt_and_single_images_have_none() -> None:
    pairs = within_prompt_pairs(["a", "b", "a", "c", "b", "a"])
    found = {(first, second) for first, second in zip(pairs.first.tolist(), pairs.second.tolist())}
    assert found == {(0, 2), (0, 5), (2, 5), (1, 4)}
    assert pairs.prompt.tolist() == [0, 0, 0, 1]
    assert pairs.images == 5


def test_many_pairs_are_drawn_down_the_same_way_each_time() -> None:
    pairs = within_prompt_pairs(["a"] * 20 + ["b"] * 3, most=10)
    assert torch.bincount(pairs.prompt).tolist() == [10, 3]
    assert torch.equal(pairs.first, within_prompt_pairs(["a"] * 20 + ["b"] * 3, most=10).first)


def test_feature_distance_by_hand_and_each_prompt_weighs_the_same() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [0.0, 1.0], [0.0, 4.0]])
    pairs = within_prompt_pairs(["a", "a", "b", "b", "b"])
    assert feature_distances(features, pairs).tolist() == [5, 0, 3, 3]
    assert prompt_means(feature_distances(features, pairs), pairs).tolist() == [5, 2]


@pytest.mark.parametrize(("size", "scales"), [(11, 1), (32, 2), (64, 3), (128, 4), (160, 4), (176, 5), (256, 5)])
def test_the_scales_follow_the_size_and_the_identity_says_so(size: int, scales: int) -> None:
    assert ms_ssim_scales(size) == scales
    assert f"scales={scales}" in ms_ssim_identity(size)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(ms_ssim(images, within_prompt_pairs(["a", "a"]))).all()


def test_at_full_size_it_is_the_published_measure() -> None:
    images = torch.rand(2, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    images[1] = 0.7 * images[0] + 0.3 * images[1]
    expected = multiscale_structural_similarity_index_measure(images[:1], images[1:], data_range=1.0)
    assert ms_ssim(images, within_prompt_pairs(["a", "a"])).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_same_image_scores_one_and_likeness_orders_the_rest() -> None:
    base = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    images = torch.stack([base, base, base, 0.8 * base + 0.2 * other, base, other])
    same, near, far = ms_ssim(images, within_prompt_pairs(["a", "a", "b", "b", "c", "c"]), batch_size=2).tolist()
    assert same == pytest.approx(1.0, abs=1e-5)  # float32
    assert same > near > far


def test_a_prompt_is_its_whole_text() -> None:
    long = "word " * 200
    ids = text_ids([Case("1", long + "left"), Case("2", long + "right"), Case("3", long + "left")])
    assert ids[0] == ids[2] != ids[1]


def test_no_pairs_no_values() -> None:
    pairs = within_prompt_pairs(["a", "b"])
    assert len(ms_ssim(torch.rand(2, 3, 32, 32), pairs)) == 0
    assert len(prompt_means(torch.empty(0), pairs)) == 0


def test_tiny_images_are_refused() -> None:
    with pytest.raises(UserError, match="at least 11 px, got 8 px"):
        ms_ssim_scales(8)
