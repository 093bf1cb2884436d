from __future__ import annotations

import pytest
import torch

from clinalign.evaluation.privacy.shares import (
    cluster_variance,
    effective_images,
    paired_interval,
    share_interval,
    two_way_variance,
    wilson,
)


def test_wilson_against_published_ends() -> None:
    # Newcombe, Stat Med 17, 1998, table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert wilson(hits / n, n) == pytest.approx((low, high), abs=1e-4)


def test_images_in_clusters_are_worth_as_many_as_there_are_clusters() -> None:
    values = torch.tensor([0.0, 1.0] * 10).repeat_interleave(5)
    clusters, single = torch.arange(20).repeat_interleave(5), torch.arange(100)
    assert effective_images(values, single, single) == pytest.approx(100)
    assert effective_images(values, clusters, single) == pytest.approx(20)
    assert effective_images(values, single, clusters) == pytest.approx(20)
    assert effective_images(values, clusters, clusters) == pytest.approx(20)  # one tie, told twice


def test_crossed_ties_add_up() -> None:
    g = torch.Generator().manual_seed(0)
    first, second = torch.arange(12).repeat_interleave(12), torch.arange(12).repeat(12)
    values = torch.randn(12, generator=g)[first] + torch.randn(12, generator=g)[second]
    both = two_way_variance(values, first, second)
    apart = cluster_variance(values, first) + cluster_variance(values, second)
    assert both == pytest.approx(apart - cluster_variance(values, torch.arange(144)))
    assert both > max(cluster_variance(values, first), cluster_variance(values, second))


def test_a_share_of_nothing_has_a_width_all_the_same() -> None:
    none = share_interval(torch.zeros(100), torch.arange(100), torch.arange(100))
    assert (none.value, none.ci95[0], none.n) == (0.0, 0.0, 100)
    assert none.ci95[1] == pytest.approx(0.037, abs=1e-3)
    crowded = share_interval(torch.zeros(100), torch.arange(100), torch.zeros(100, dtype=torch.long))
    assert crowded.ci95[1] > 0.7  # all hundred around one training image


def test_the_interval_of_a_difference_is_paired() -> None:
    same = paired_interval(torch.zeros(50), torch.arange(50), torch.arange(50))
    assert (same.value, same.ci95) == (0.0, (0.0, 0.0))
    some = paired_interval(torch.tensor([0.0] * 40 + [1.0] * 10), torch.arange(50), torch.arange(50))
    assert some.value == pytest.approx(0.2)
    assert some.ci95[0] == pytest.approx(0.2 - 1.96 * (0.2 * 0.8 / 50) ** 0.5, abs=1e-4)
