"""Precision, recall, density and coverage."""

from __future__ import annotations

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.manifold import manifold_scores, neighbour_radius


def test_worked_by_hand() -> None:
    """Real 0, 1, 3 and generated 1.5, 10, 11 on a line, k=1.

    Real radii: 1, 1, 2 (balls [-1, 1], [0, 2], [1, 5]). Generated radii: 8.5, 1, 1 (balls [-7, 10], [9, 11], [10, 12]).
    1.5 lies in two real balls, 10 and 11 in none. Every real point lies in [-7, 10]. The balls of 1 and 3 hold 1.5.
    """
    x, y = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[1.5], [10.0], [11.0]])
    scores = manifold_scores(x, y, k=1)
    assert scores.precision.tolist() == [1, 0, 0]
    assert scores.recall.tolist() == [1, 1, 1]
    assert scores.density.tolist() == [2, 0, 0]
    assert scores.coverage.tolist() == [0, 1, 1]


def brute_force(x: list[list[float]], y: list[list[float]], k: int) -> list[float]:
    """A second implementation, pair by pair in plain Python."""

    def distance(a: list[float], b: list[float]) -> float:
        return float(sum((p - q) ** 2 for p, q in zip(a, b)) ** 0.5)

    def radius(points: list[list[float]], i: int) -> float:
        return sorted(distance(points[i], other) for j, other in enumerate(points) if j != i)[k - 1]

    r_x, r_y = [radius(x, i) for i in range(len(x))], [radius(y, j) for j in range(len(y))]
    inside = [[distance(a, b) <= r for b in y] for a, r in zip(x, r_x)]
    precision = sum(any(row[j] for row in inside) for j in range(len(y))) / len(y)
    recall = sum(any(distance(a, b) <= r for b, r in zip(y, r_y)) for a in x) / len(x)
    density = sum(map(sum, inside)) / (k * len(y))
    coverage = sum(map(any, inside)) / len(x)
    return [precision, recall, density, coverage]


@pytest.mark.parametrize("rows", [7, 1024])
def test_agrees_with_brute_force(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator)
    y = 0.7 * torch.randn(31, 3, generator=generator) + 0.5
    ours = [float(score.mean()) for score in manifold_scores(x, y, k=5, rows=rows)]
    assert ours == pytest.approx(brute_force(x.tolist(), y.tolist(), 5), abs=1e-12)


def test_precision_and_recall_agree_with_torch_fidelity() -> None:
    theirs = pytest.importorskip("torch_fidelity.metric_prc", reason="torch-fidelity is an extra")
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(60, 4, generator=generator), torch.randn(60, 4, generator=generator) + 0.8
    expected = theirs.calculate_precision_recall_full(y, x, neighborhood=3)
    scores = manifold_scores(x, y, k=3)
    assert (float(scores.precision.mean()), float(scores.recall.mean())) == pytest.approx(expected, abs=1e-6)


def test_one_image_repeated_is_precise_and_not_diverse() -> None:
    """Mode collapse: precision stays high while recall and coverage fall to nothing."""
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    y = x[x.norm(dim=1).argmin()] + 1e-3 * torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    precision, recall, _, coverage = (float(score.mean()) for score in manifold_scores(x, y))
    assert precision > 0.99
    assert recall < 0.02
    assert coverage < 0.2


def test_one_distribution_has_density_one_and_high_coverage() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = manifold_scores(torch.randn(400, 4, generator=generator), torch.randn(400, 4, generator=generator), k=5)
    assert float(scores.density.mean()) == pytest.approx(1.0, abs=0.1)  # expected 1; 0.03 is its spread over seeds
    assert float(scores.coverage.mean()) == pytest.approx(1 - 0.5**5, abs=0.04)  # Naeem et al., equation 8


def test_an_image_is_not_its_own_neighbour() -> None:
    assert neighbour_radius(torch.tensor([[0.0], [2.0], [5.0]]), k=1).tolist() == [2, 2, 3]
    assert neighbour_radius(torch.tensor([[0.0], [0.0], [5.0]]), k=1, rows=2).tolist() == [0, 0, 5]


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="k=5 needs more than 5 images on each side, got 5 and 9"):
        manifold_scores(torch.rand(5, 2), torch.rand(9, 2))
    with pytest.raises(UserError, match="same D"):
        manifold_scores(torch.rand(9, 2), torch.rand(9, 3))
