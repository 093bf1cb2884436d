"""Does each finding lie where the text says, and is it as large? Measured by an evaluator's segmenter, decided hard.

A clause (side, zone or size of a finding) is fulfilled when the finding is there and the stated value is the likeliest
of its kind; a missing finding fulfils nothing. A picture counts by the share of its clauses, so that a long text weighs
no more than a short one; a text that says nothing about place is left out, never counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from clinalign.core.types import Case
from clinalign.data.places import KINDS, Place, places_in
from clinalign.evaluation.intervals import mean_interval
from clinalign.networks.region_places import Clauses, score_clauses
from clinalign.networks.segmenter import Segmenter

CHUNK = 256  # pictures whose maps are held at once


def clause_agreement(
    segmenter: Segmenter, images: torch.Tensor, places: Sequence[Sequence[Place]]
) -> tuple[list[tuple[int, str, str]], torch.Tensor]:
    """Decide every clause of every picture.

    Args:
        segmenter: The evaluator's.
        images: ``(N, 3, H, W)`` in ``[0, 1]``.
        places: What is stated of each, N long.

    Returns:
        C clauses as ``(picture, kind, region)``, and ``(C,)`` float32: 1 fulfilled, 0 not. On the CPU.
    """
    found: list[tuple[int, str, str]] = []
    decided = [torch.zeros(0)]
    with torch.no_grad():
        for start in range(0, len(images), CHUNK):
            maps = segmenter.maps(images[start : start + CHUNK])
            part: Clauses = score_clauses(
                maps, segmenter.regions, segmenter.rules, places[start : start + CHUNK], hard=True
            )
            rows = (part.rows + start).tolist()
            found += zip(rows, part.kinds, part.regions, strict=True)
            decided.append(part.scores.cpu())
    return found, torch.cat(decided)


def clause_counts(segmenter: Segmenter, images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
    """Return how many clauses each picture's text states and how many of them the picture fulfils.

    Args:
        segmenter: Trained on the split ``judge``, never the reward's.
        images: ``(N, 3, H, W)`` in ``[0, 1]``, generated or real.
        cases: What was asked for, N long.

    Returns:
        ``(N, 3, 2)`` float32 on the CPU: for side, zone and size (:data:`~clinalign.data.places.KINDS`) the number
        fulfilled and the number stated.
    """
    found, decided = clause_agreement(segmenter, images, [places_in(case.text) for case in cases])
    cells = torch.tensor([picture * len(KINDS) + KINDS.index(kind) for picture, kind, _ in found], dtype=torch.int64)
    counts = torch.zeros(len(images) * len(KINDS), 2)
    counts.index_add_(0, cells, torch.stack([decided, torch.ones(len(found))], dim=1))
    return counts.reshape(len(images), len(KINDS), 2)


def region_shares(counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the ``(N,)`` share of clauses fulfilled, NaN where none is stated, of all kinds and of each.

    Args:
        counts: Of :func:`clause_counts`.
    """
    table = {"agreement": counts.sum(1), **{kind: counts[:, k] for k, kind in enumerate(KINDS)}}
    return {
        f"region_{name}": torch.where(each[:, 1] > 0, each[:, 0] / each[:, 1].clamp_min(1), torch.nan).double()
        for name, each in table.items()
    }


def region_entries(
    counts: torch.Tensor,
    identity: str,
    *,
    groups: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Measure region agreement as entries of ``metrics.json``.

    Args:
        counts: ``(N, 3, 2)`` of :func:`clause_counts`.
        identity: The segmenter's.
        groups: Patient, lesion or case of each picture.
        replicates: Resamples.
        seed: Same seed, same entries.

    Returns:
        ``alignment/region_agreement`` (share of all stated clauses), ``alignment/region_side``, ``_zone``, ``_size``:
        each ``{"value", "ci95", "n", "clauses", "evaluator"}``, n the pictures whose text has such a clause. One that
        no text has is left out.

    Raises:
        UserError: With fewer than two cases or groups.
    """
    stated = dict(zip(("agreement", *KINDS), [counts[..., 1].sum(), *counts[..., 1].sum(0)], strict=True))
    entries: dict[str, dict[str, Any]] = {}
    for name, shares in region_shares(counts).items():
        if shares.isnan().all():
            continue
        estimate = mean_interval(shares, groups=groups, replicates=replicates, seed=seed)
        clauses = int(stated[name.removeprefix("region_")])
        entries[f"alignment/{name}"] = {**estimate.to_json(), "clauses": clauses, "evaluator": identity}
    return entries


def share_fulfilled(rows: Sequence[int], decided: torch.Tensor, count: int) -> torch.Tensor:
    """Return the ``(count,)`` share of each picture's clauses that are fulfilled, NaN where it has none.

    Args:
        rows: Picture of each of C clauses.
        decided: ``(C,)`` 0 or 1.
        count: Number of pictures.
    """
    index = torch.tensor(list(rows), dtype=torch.int64)
    total = torch.zeros(count).index_add(0, index, torch.ones(len(index)))
    right = torch.zeros(count).index_add(0, index, decided.float())
    return torch.where(total > 0, right / total.clamp_min(1.0), torch.nan)
