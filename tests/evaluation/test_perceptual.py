"""LPIPS over pairs, with a distance that can be worked out by hand."""

from __future__ import annotations

import pytest
import torch

from clinalign.evaluation.perceptual import across_prompt_pairs, lpips_entries


class Brightness:
    """How far apart two pictures are in mean brightness."""

    def identity(self, size: int) -> str:
        return f"brightness:size={size}"

    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first.mean((1, 2, 3)) - second.mean((1, 2, 3))).abs()


def grey(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4)


def test_within_prompts_and_against_real_pictures_of_the_prompt() -> None:
    entries = lpips_entries(
        Brightness(), grey(0, 51, 255, 255), ["a", "a", "b", "b"],
        grey(0, 204, 102), ["a", "b", "c"], replicates=50,
    )  # fmt: skip
    assert entries["diversity/lpips"]["value"] == pytest.approx((51 / 255 + 0) / 2)  # a: 51 apart, b: copies
    near = entries["fidelity/lpips"]  # a: 0 and 51 from 0; b: both 51 from 204; nothing of c was drawn
    assert near["value"] == pytest.approx(((0 + 51) / 2 + 51) / 2 / 255)
    assert (near["n"], near["prompts"], near["pairs"]) == (4, 2, 4)
    assert near["extractor"] == "brightness:size=4"


def test_what_has_fewer_than_two_prompts_is_left_out() -> None:
    assert lpips_entries(Brightness(), grey(0, 9, 9), ["a", "a", "b"], replicates=50) == {}
    only = lpips_entries(Brightness(), grey(0, 9, 9), ["a", "b", "c"], grey(1, 2), ["a", "c"], replicates=50)
    assert set(only) == {"fidelity/lpips"}


def test_pairs_across_are_bounded_and_never_within() -> None:
    pairs = across_prompt_pairs(["a"] * 6 + ["b"] * 2, ["a"] * 5 + ["b"], most=12)
    assert torch.bincount(pairs.prompt).tolist() == [12, 2]
    assert int(pairs.first.max()) <= 7
    assert int(pairs.second.max()) <= 5
    assert len({*zip(pairs.first.tolist(), pairs.second.tolist())}) == 14
