"""Does each finding lie where the text says, and is it as large?

R: neither recipe has such a reward. A segmenter draws soft masks of the findings, and of the lung fields on films. A
clause of the text, "left", "lower zone", "small", scores

    r_clause = presence * share

in ``[0, 1]``: presence = min(1, mass / floor), so that a finding that is missing earns nothing; share = the part of
its mass that lies on the stated side or in the stated zone, or the soft membership of its area in the stated size (see
:mod:`clinalign.networks.region_places`). The score of a picture is the mean of its clauses, or their product. A text
that says nothing about place is not scored: its score is invalid, not zero.

It says nothing of findings that the text does not place, and nothing of whether there are others: that is what the
attribute reward is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinalign.core.errors import UserError, nearest
from clinalign.core.files import hash_json
from clinalign.core.types import Case, RewardResult
from clinalign.data.places import KINDS, contradicted, places_in
from clinalign.networks.region_places import score_clauses
from clinalign.networks.segmenter import Segmenter
from clinalign.rewards.settings import check_settings, need_path

COMBINE = ("mean", "product")


class RegionReward:
    """Agreement of where findings lie with what the text says; differentiable in the images.

    Args:
        segmenter: Trained; it is put into evaluation mode and frozen.
        combine: ``mean`` of the clauses, or ``product`` (all of them must be kept).
        regions: The findings that count; all that the segmenter sees by default.
        batch_size: Images at once.

    Raises:
        UserError: For an unknown way to combine or region, or a batch size below 1.
    """

    name = "region"

    def __init__(
        self,
        segmenter: Segmenter,
        combine: str = "mean",
        regions: Sequence[str] | None = None,
        batch_size: int = 64,
    ) -> None:
        if combine not in COMBINE:
            raise UserError(f"unknown combine '{combine}' of reward 'region': {nearest(combine, COMBINE)}")
        if batch_size < 1:
            raise UserError(f"batch_size of reward 'region' must be 1 or more, got {batch_size}")
        for region in regions or ():
            if region not in segmenter.regions:
                hint = nearest(region, segmenter.regions)
                raise UserError(f"the segmenter of reward 'region' does not see '{region}': {hint}")
        self.segmenter = segmenter.eval().requires_grad_(False)
        self.combine = combine
        self.regions = tuple(regions) if regions is not None else segmenter.regions
        self.batch_size = batch_size
        self.model_identity = segmenter.identity
        self.identity = f"region:{combine}:{hash_json([combine, self.regions], length=8)}:{self.model_identity}"

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` of any size against ``cases``.

        The parts ``side``, ``zone`` and ``size`` hold the mean of a picture's clauses of that kind, NaN without one.
        """
        maps = self.segmenter.maps(images, self.batch_size)
        places = [[place for place in places_in(case.text) if place.region in self.regions] for case in cases]
        clauses = score_clauses(maps, self.segmenter.regions, self.segmenter.rules, places)
        count = _mean(clauses.rows, torch.ones_like(clauses.scores), len(images)).bool()
        if self.combine == "mean":
            values = _mean(clauses.rows, clauses.scores, len(images))
        else:
            ones = maps.new_ones(len(images))
            values = ones.scatter_reduce(0, clauses.rows, clauses.scores, "prod")
        parts = {}
        for kind in KINDS:
            chosen = [index for index, name in enumerate(clauses.kinds) if name == kind]
            rows, scores = clauses.rows[chosen], clauses.scores[chosen].detach()
            stated = _mean(rows, torch.ones_like(scores), len(images)).bool()
            parts[kind] = _mean(rows, scores, len(images)).masked_fill(~stated, torch.nan)
        return RewardResult(torch.where(count, values, 0.0), count, parts)

    def wrong_cases(self, cases: Sequence[Case], random: np.random.Generator) -> list[Case | None]:
        """Return each case with its text's sides, zones and sizes made wrong; ``None`` where it states no place."""
        texts = [contradicted(case.text, random) for case in cases]
        return [None if text is None else replace(case, text=text) for case, text in zip(cases, texts, strict=True)]


def _mean(rows: torch.Tensor, values: torch.Tensor, count: int) -> torch.Tensor:
    """Return the ``(count,)`` mean of ``values`` ``(C,)`` over pictures ``rows`` ``(C,)``; 0 where there is none."""
    nothing = torch.zeros(count, device=values.device)
    total = nothing.index_add(0, rows, torch.ones_like(values))
    return nothing.index_add(0, rows, values) / total.clamp_min(1.0)


def region_reward(path: Path | None, settings: Mapping[str, Any], device: torch.device) -> RegionReward:
    """Build the reward from the folder of a segmenter; settings as in :class:`RegionReward`."""
    check_settings("region", settings, ("combine", "regions", "batch_size"))
    return RegionReward(Segmenter.load(need_path("region", path), device), **settings)
