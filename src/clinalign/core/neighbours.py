"""Nearest neighbours between two sets of features, in blocks: no matrix of all pairs is ever held.

Here, because evaluation and augmentation both search for copies and neither imports the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from clinalign.core.errors import UserError


class Neighbours(NamedTuple):
    """The k nearest references of N queries, nearest first.

    Attributes:
        distance: ``(N, k)`` float64 Euclidean distances; infinite where fewer than k references are allowed.
        row: ``(N, k)`` int64 rows of the references; meaningless where the distance is infinite.
    """

    distance: torch.Tensor
    row: torch.Tensor


def nearest_neighbours(
    queries: torch.Tensor,
    references: torch.Tensor,
    k: int = 1,
    *,
    query_groups: Sequence[str] | None = None,
    reference_groups: Sequence[str] | None = None,
    rows: int = 1024,
    columns: int = 8192,
) -> Neighbours:
    """Find the ``k`` nearest of ``references`` ``(M, D)`` to each of ``queries`` ``(N, D)``.

    The search multiplies in float32, where the distance of an exact copy would be a rounding error and not 0; the
    distances of those found are then computed again, in float64 and from their difference.

    Args:
        queries: ``(N, D)``.
        references: ``(M, D)``.
        k: How many; at most M.
        query_groups: Group of each query. With ``reference_groups``, references of a query's own group do not count.
        reference_groups: Group of each reference.
        rows: Queries at once; does not change the result.
        columns: References at once; does not change the result.

    Returns:
        Distances and rows.

    Raises:
        UserError: When the widths differ, or there are fewer than ``k`` references.
    """
    if queries.ndim != 2 or references.ndim != 2 or queries.shape[1] != references.shape[1]:
        shapes = f"{tuple(queries.shape)} and {tuple(references.shape)}"
        raise UserError(f"features of shape {shapes}: both must be (N, D), same D")
    if not 1 <= k <= len(references):
        raise UserError(f"{k} nearest of {len(references)} images: give from 1 to as many as there are")
    own, other = _codes(query_groups, reference_groups)
    centre = references.double().mean(0)  # distances do not change, but the products below lose fewer digits
    x, y = (queries.double() - centre).float(), (references.double() - centre).float()
    x_square, y_square = x.square().sum(1), y.square().sum(1)
    distances, found = [], []
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        best = torch.empty((len(x[part]), 0))
        place = torch.empty((len(x[part]), 0), dtype=torch.long)
        for first in range(0, len(y), columns):
            block = slice(first, first + columns)
            square = x_square[part, None] + y_square[block] - 2 * x[part] @ y[block].T
            if own is not None and other is not None:
                square.masked_fill_(own[part, None] == other[block], torch.inf)
            nearest = square.topk(min(k, square.shape[1]), largest=False)
            best, place = torch.cat([best, nearest.values], 1), torch.cat([place, nearest.indices + first], 1)
            kept = best.topk(min(k, best.shape[1]), largest=False)
            best, place = kept.values, place.gather(1, kept.indices)
        exact = _exact(queries[part], references, place).masked_fill(best.isinf(), torch.inf)
        exact, order = exact.sort(dim=1, stable=True)
        distances.append(exact)
        found.append(place.gather(1, order))
    if not distances:
        return Neighbours(torch.empty((0, k), dtype=torch.float64), torch.empty((0, k), dtype=torch.long))
    return Neighbours(torch.cat(distances), torch.cat(found))


def _codes(
    queries: Sequence[str] | None, references: Sequence[str] | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Number the groups of both sides alike; ``None`` where a side has none."""
    if queries is None or references is None:
        return None, None
    _, codes = np.unique(np.asarray([*queries, *references]), return_inverse=True)
    numbers = torch.from_numpy(codes)
    return numbers[: len(queries)], numbers[len(queries) :]


def _exact(queries: torch.Tensor, references: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return the ``(n, k)`` float64 distances of each query to its references, one neighbour at a time."""
    queries = queries.double()
    columns = [(queries - references[place[:, j]].double()).norm(dim=1) for j in range(place.shape[1])]
    return torch.stack(columns, dim=1)
