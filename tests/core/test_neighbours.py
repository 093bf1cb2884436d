from __future__ import annotations

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.neighbours import nearest_neighbours
from clinalign.evaluation.privacy.crowding import crowding


def test_the_same_as_all_distances_sorted_whatever_the_blocks() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(37, 5, generator=g), torch.randn(53, 5, generator=g)
    expected = torch.cdist(x.double(), y.double()).sort(dim=1)
    for rows, columns in ((1000, 1000), (8, 7), (1, 2)):
        found = nearest_neighbours(x, y, 4, rows=rows, columns=columns)
        torch.testing.assert_close(found.distance, expected.values[:, :4])
        assert torch.equal(found.row, expected.indices[:, :4])


def test_a_copy_far_from_the_origin_is_at_distance_zero() -> None:
    y = 1000 + torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    found = nearest_neighbours(y[[7]], y)
    assert found.distance.item() == 0  # and not the rounding error of float32 products, which is about 0.1 here
    assert found.row.item() == 7


def test_images_of_ones_own_patient_do_not_count() -> None:
    y = torch.tensor([[0.0], [1.0], [5.0]])
    found = nearest_neighbours(torch.tensor([[0.0]]), y, 3, query_groups=["a"], reference_groups=["a", "b", "a"])
    assert found.row[0, 0] == 1
    assert found.distance[0].tolist() == [1.0, torch.inf, torch.inf]


def test_how_crowded_a_place_is() -> None:
    strangers, query = torch.tensor([[1.0], [2.0], [4.0], [9.0]]), torch.tensor([[0.0]])
    assert crowding(query, ["q"], strangers, ["a", "b", "c", "d"], around=3).item() == pytest.approx(7 / 3)
    assert crowding(query, ["a"], strangers, ["a", "b", "c", "d"], around=3).item() == pytest.approx(5)


def test_wrong_shapes_and_numbers() -> None:
    with pytest.raises(UserError, match="same D"):
        nearest_neighbours(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UserError, match="3 nearest of 2 images"):
        nearest_neighbours(torch.zeros(2, 3), torch.zeros(2, 3), 3)
