"""How crowded it is around an image: what a distance to one neighbour is to be compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clinalign.core.neighbours import nearest_neighbours

AROUND = 10  # strangers that say how crowded a place is


def crowding(
    queries: torch.Tensor,
    query_groups: Sequence[str],
    strangers: torch.Tensor,
    stranger_groups: Sequence[str],
    around: int = AROUND,
) -> torch.Tensor:
    """Return how crowded it is around each query: ``(N,)`` mean distance to the nearest strangers of other groups.

    Args:
        queries: ``(N, D)``.
        query_groups: Group of each.
        strangers: ``(H, D)`` held-out real images.
        stranger_groups: Group of each.
        around: Neighbours of the mean.
    """
    found = nearest_neighbours(
        queries, strangers, min(around, len(strangers)), query_groups=query_groups, reference_groups=stranger_groups
    )
    return torch.where(found.distance.isinf(), torch.nan, found.distance).nanmean(1).clamp_min(1e-12)
