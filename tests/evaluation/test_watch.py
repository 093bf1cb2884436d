"""Watch metrics: known distances, nulls against real pictures, and the ways in which pictures get worse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError
from clinalign.evaluation.watch import (
    RealRange,
    describe,
    deviations,
    distance_to_real,
    join,
    mean_change,
    share_lost,
    standard_error,
)

PROMPTS, EACH, REAL_EACH = 8, 4, 16


def scenes(count: int, seed: int, brightness: float = 0.5) -> torch.Tensor:
    """Soft random pictures that differ in brightness and contrast, as photographs do."""
    chance = torch.Generator().manual_seed(seed)
    soft = F.avg_pool2d(torch.rand(count, 3, 20, 20, generator=chance), 5, stride=1)
    light = 0.05 * torch.randn(count, 1, 1, 1, generator=chance)
    contrast = 1.0 + 0.2 * torch.randn(count, 1, 1, 1, generator=chance)
    return (brightness + light + contrast * (soft - 0.5)).clamp(0, 1)


def embed(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1).float()


@pytest.fixture(scope="module")
def real() -> RealRange:
    prompts = [number for number in range(PROMPTS) for _ in range(REAL_EACH)]
    return RealRange.of(describe(scenes(PROMPTS * REAL_EACH, 0), embed), prompts, EACH)


def with_corner(images: torch.Tensor) -> torch.Tensor:
    images = images.clone()
    images[..., :4, :4] = 1.0
    return images


def with_grid(images: torch.Tensor) -> torch.Tensor:
    images = images.clone()
    images[..., ::2, ::2] += 0.15
    return images.clamp(0, 1)


def test_known_distances() -> None:
    grey, lighter = (describe(torch.full((2, 3, 8, 8), value)) for value in (0.25, 0.75))
    found = deviations(lighter, grey)
    assert float(found["intensity"]) == pytest.approx(0.5)  # every pixel has to move by so much
    assert float(found["layout"]) == pytest.approx(0.5)
    assert float(found["edges"]) == float(found["fine_detail"]) == 0.0
    ramps = [describe((step * torch.arange(8.0)).expand(2, 3, 8, 8)) for step in (0.01, 0.02)]
    assert float(deviations(ramps[1], ramps[0])["edges"]) == pytest.approx(0.6931, abs=1e-3)  # log 2
    assert float(deviations(ramps[0], ramps[1])["edges"]) == pytest.approx(0.6931, abs=1e-3)  # worse either way


def test_a_set_lies_at_no_distance_from_itself() -> None:
    pictures = describe(scenes(32, 1), embed)
    found = deviations(pictures, pictures)
    assert all(float(found[name]) == 0.0 for name in ("intensity", "edges", "fine_detail", "layout", "features"))


def test_features_of_prompts_that_differ_have_a_scale() -> None:
    prompts = [number for number in range(PROMPTS) for _ in range(REAL_EACH)]
    images = scenes(len(prompts), 0) + torch.tensor(prompts)[:, None, None, None] / 40.0
    assert RealRange.of(describe(images.clamp(0, 1), embed), prompts, EACH).limits["features"] > 0


def test_weights_count_pictures_as_often_as_they_say() -> None:
    one, other = describe(scenes(6, 2), embed), describe(scenes(9, 3), embed)
    weights = torch.tensor([[2.0, 0.0, 1.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    weighed, repeated = deviations(one, other, weights), deviations(one.take([0, 0, 2, 3, 5]), other)
    for name in ("intensity", "edges", "fine_detail", "layout", "features"):
        assert float(weighed[name]) == pytest.approx(float(repeated[name]), abs=1e-12)


def test_pictures_described_in_parts_are_those_described_at_once() -> None:
    images = scenes(10, 4)
    whole, parts = (
        describe(images, embed, batch_size=100),
        join([describe(images[:3], embed), describe(images[3:], embed)]),
    )
    assert torch.equal(whole.tiles, parts.tiles)
    assert whole.features is not None
    assert parts.features is not None
    assert torch.equal(whole.features, parts.features)


def test_fresh_real_pictures_stay_in_the_real_range(real: RealRange) -> None:
    levels = [real.levels(describe(scenes(PROMPTS * EACH, 100 + seed), embed)) for seed in range(40)]
    for name in real.limits:
        outside = sum(level[name] > 1.0 for level in levels)
        assert outside <= 6, name  # 2 of 40 are expected
        assert any(level[name] > 0.4 for level in levels), name  # and the range is no wider than it has to be


@pytest.mark.parametrize(
    ("worse", "metric", "others"),
    [
        (with_corner, "layout", ("fine_detail",)),
        (with_grid, "fine_detail", ("layout",)),
        (lambda images: F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False), "edges", ("intensity",)),
        (lambda images: (images + 0.2).clamp(0, 1), "intensity", ("edges",)),
        (lambda images: images[:1].repeat(32, 1, 1, 1), "features", ()),
    ],
)
def test_each_way_to_get_worse_shows_in_its_metric(
    real: RealRange, worse: Callable[[torch.Tensor], torch.Tensor], metric: str, others: tuple[str, ...]
) -> None:
    images = scenes(PROMPTS * EACH, 7)
    prompts = [str(number // EACH) for number in range(len(images))]
    before, now = describe(images, embed), describe(worse(images), embed)
    changes = real.changes(now, before, prompts)
    assert real.levels(before)[metric] < 1.5
    assert changes[metric].value > 2.0
    assert changes[metric].value > 3 * standard_error(changes[metric])
    assert all(abs(changes[other].value) < changes[metric].value / 2 for other in others)
    # the change is the difference of the levels
    assert changes[metric].value == pytest.approx(real.levels(now)[metric] - real.levels(before)[metric])


def test_other_pictures_of_the_same_kind_are_no_change(real: RealRange) -> None:
    prompts = [str(number // EACH) for number in range(PROMPTS * EACH)]
    sure = 0
    for seed in range(10):
        before, now = (describe(scenes(PROMPTS * EACH, 200 + 2 * seed + side)) for side in (0, 1))
        changes = real.changes(now, before, prompts)
        sure += sum(change.value > max(1.0, 3 * standard_error(change)) for change in changes.values())
    assert sure == 0


def test_the_unit_is_what_real_sets_reach() -> None:
    wide = scenes(PROMPTS * REAL_EACH, 0) + 0.2 * torch.randn(
        PROMPTS * REAL_EACH, 1, 1, 1, generator=torch.Generator().manual_seed(1)
    )
    prompts = [number for number in range(PROMPTS) for _ in range(REAL_EACH)]
    narrow, broad = (
        RealRange.of(describe(images), prompts, EACH) for images in (scenes(PROMPTS * REAL_EACH, 0), wide.clamp(0, 1))
    )
    assert broad.limits["intensity"] > 2 * narrow.limits["intensity"]  # a varied dataset forgives more


def test_without_two_real_pictures_of_a_prompt_there_is_no_range() -> None:
    with pytest.raises(UserError, match="two real images"):
        RealRange.of(describe(scenes(3, 0)), [0, 1, 2], 4)


def test_one_number_for_the_distance() -> None:
    assert distance_to_real({"edges": 3.0, "layout": 4.0}) == pytest.approx(12.5**0.5)
    assert distance_to_real({"edges": 3.0, "features": 2.0}) == 2.0
    assert distance_to_real({}) != distance_to_real({})  # NaN: nothing was compared


def test_lost_diversity_and_its_noise() -> None:
    before = torch.tensor([1.0, 2.0, 3.0, 2.0])
    half = share_lost(before / 2, before)
    assert half.value == pytest.approx(0.5)
    assert standard_error(half) == pytest.approx(0.0, abs=1e-12)  # every prompt lost the same share
    assert share_lost(before, before).value == 0.0
    assert share_lost(before * torch.tensor([0.2, 1.0, 1.0, 1.5]), before).value == pytest.approx(-0.025)


def test_a_paired_change_leaves_out_what_is_unknown() -> None:
    before = torch.tensor([0.0, 1.0, torch.nan, 2.0])
    change = mean_change(torch.tensor([1.0, torch.nan, 5.0, 3.0]), before, None)
    assert change.value == 1.0
