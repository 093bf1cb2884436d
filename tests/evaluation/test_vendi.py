"""The Vendi score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clinalign.evaluation.vendi import chosen_rows, prompt_sets, vendi, vendi_entries, vendi_influences


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_known_answers() -> None:
    """Copies are worth one, orthogonal images n, and two orthogonal kinds two, in any number alike."""
    assert float(vendi(torch.ones(7, 3))) == pytest.approx(1.0)
    assert float(vendi(torch.eye(5) * torch.tensor([1.0, 2, 3, 4, 5]))) == pytest.approx(5.0)  # lengths do not count
    assert float(vendi(torch.eye(2).repeat(4, 1))) == pytest.approx(2.0)
    three_to_one = torch.eye(2)[[0, 0, 0, 1]]
    assert float(vendi(three_to_one)) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_agrees_with_the_kernel_matrix_written_out() -> None:
    rows = normal(9, 4).numpy()
    kernel = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in rows] for a in rows]) / 9
    shares = np.linalg.eigvalsh(kernel)
    shares = shares[shares > 1e-12]
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert float(vendi(torch.from_numpy(rows))) == pytest.approx(expected, rel=1e-9)
    assert vendi_influences(torch.from_numpy(rows))[0] == pytest.approx(expected, rel=1e-9)


def test_the_influence_is_the_slope_when_one_image_gains_weight() -> None:
    rows = normal(12, 5)
    value, influence = vendi_influences(rows)
    many = rows.repeat_interleave(400, 0)
    more = torch.cat([many, rows[3:4].repeat(12, 1)])  # 12 of 4812: a share of 1/401
    assert float(vendi_of_covariance(more)) - value == pytest.approx(float(influence[3]) / 401, rel=0.02)


def vendi_of_covariance(rows: torch.Tensor) -> torch.Tensor:
    units = rows / rows.norm(dim=1, keepdim=True)
    shares = torch.linalg.eigvalsh(units.T @ units / len(units)).clamp(min=0)
    return (-torch.xlogy(shares, shares).sum()).exp()


def test_overall_and_within_a_prompt() -> None:
    """Two kinds of image; each prompt gives one kind only: varied overall, not at all within a prompt."""
    features = torch.eye(2)[torch.tensor([0, 0, 0, 1, 1, 1])]
    prompts, groups = ["a", "a", "a", "b", "b", "b"], [str(i) for i in range(6)]
    entries = vendi_entries(features, "f:1", groups=groups, prompt_features=features, prompt_ids=prompts, replicates=50)
    assert entries["diversity/vendi"]["value"] == pytest.approx(2.0)
    assert entries["diversity/vendi"]["extractor"] == "f:1:cosine"
    within = entries["diversity/vendi_within_prompt"]
    assert (within["value"], within["prompts"], within["members"], within["n"]) == (pytest.approx(1.0), 2, 3, 6)
    alone = vendi_entries(features, "f:1", groups=groups, prompt_features=features, prompt_ids=groups, replicates=50)
    assert set(alone) == {"diversity/vendi"}


def test_null_two_halves_of_one_set_score_alike_and_the_interval_says_so() -> None:
    x, y = normal(300, 6, 1), normal(300, 6, 2)
    entries = [
        vendi_entries(
            rows, "f", groups=[str(i) for i in range(300)], prompt_features=rows, prompt_ids=[], replicates=200
        )["diversity/vendi"]
        for rows in (x, y)
    ]
    assert entries[0]["ci95"][0] < entries[1]["value"] < entries[0]["ci95"][1] + 0.05
    collapsed = torch.cat([x[:30]] * 10) * torch.tensor([5.0, 1, 1, 1, 1, 1])
    assert float(vendi(collapsed)) < entries[0]["ci95"][0]


def test_the_number_of_images_is_fixed_so_that_sets_compare() -> None:
    assert len(chosen_rows(2000)) == 500
    assert chosen_rows(2000).tolist() == chosen_rows(2000).tolist()
    assert chosen_rows(20).tolist() == list(range(20))
    prompts, table = prompt_sets(["a", "b", "a", "a", "b", "c", "a"])
    assert prompts == ["a", "b"]  # two of each are four images, as are four of one; the fewer members come first
    assert table.tolist() == [[0, 2], [1, 4]]
