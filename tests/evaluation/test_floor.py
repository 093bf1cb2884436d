"""The real-against-real floor."""

from __future__ import annotations

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.floor import FIDELITY_METRICS, floor_values, group_halves


def test_halves_share_no_group_and_miss_no_unit() -> None:
    groups = [f"lesion{i // 3}" for i in range(31)]
    first, second = group_halves(groups, seed=0)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(31))
    assert not {groups[i] for i in first.tolist()} & {groups[i] for i in second.tolist()}
    assert abs(len(first) - len(second)) <= 3  # one lesion


def test_the_floor_and_what_is_compared_with_it_have_one_n() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 4, generator=generator), torch.randn(500, 4, generator=generator)
    floor, generated, n = floor_values(x, y, [str(i) for i in range(80)])
    assert n == 40
    fid, _, precision, *_ = range(len(FIDELITY_METRICS))
    # one distribution: the generator sits on the floor, which is far above the 0 of infinitely many images
    assert floor[fid] > 0.15
    assert generated[fid] == pytest.approx(float(floor[fid]), rel=0.5)  # four splits, each with a spread of about 40 %
    assert generated[precision] == pytest.approx(float(floor[precision]), abs=0.15)


def test_a_bad_generator_is_above_the_floor() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 4, generator=generator), 2 + torch.randn(80, 4, generator=generator)
    floor, generated, _ = floor_values(x, y, [str(i) for i in range(80)])
    assert generated[0] > 10 * floor[0]


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="at least 2 patients or lesions, got 1"):
        group_halves(["a", "a"], seed=0)
    with pytest.raises(
        UserError, match="more than 5 images in each half, got 4: give at least 12 real and 6 generated"
    ):
        floor_values(torch.rand(8, 2), torch.rand(9, 2), [str(i) for i in range(8)])
