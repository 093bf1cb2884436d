"""What further evaluators tell beyond one score an image: retrieval and flipped texts, and where findings lie.

What they need of an image is small (an embedding, a few counts) and is kept; the picture is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from clinalign.core.types import Case, Reward
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.image_text import pair_changes, pair_entries, score_embedded
from clinalign.evaluation.intervals import mean_interval
from clinalign.evaluation.regions import clause_counts, region_entries, region_shares
from clinalign.rewards.consistency import ConsistencyReward
from clinalign.rewards.region import RegionReward

Detail = Callable[[torch.Tensor, Sequence[Case]], torch.Tensor]


def detail_of(scorer: Reward) -> Detail | None:
    """Return what maps images ``(B, 3, H, W)`` and their cases to what is kept of them, ``(B, ...)`` on the CPU."""
    if isinstance(scorer, ConsistencyReward):
        model = scorer.model
        return lambda images, cases: model.embed_images(images).cpu()
    if isinstance(scorer, RegionReward):
        segmenter = scorer.segmenter
        return lambda images, cases: clause_counts(segmenter, images, cases)
    return None


def detail_entries(
    scorer: Reward, kept: torch.Tensor, cases: Sequence[Case], groups: Sequence[str], **resampling: Any
) -> Entries:
    """Return the entries that follow from what was kept of N images.

    Args:
        scorer: A scorer that has a detail.
        kept: ``(N, ...)`` of :func:`detail_of`.
        cases: Their cases.
        groups: What the bootstrap draws.
        **resampling: ``replicates`` and ``seed``.
    """
    if isinstance(scorer, RegionReward):
        return region_entries(kept, scorer.segmenter.identity, groups=groups, **resampling)
    assert isinstance(scorer, ConsistencyReward)
    scores = score_embedded(scorer.model, kept, cases, scorer.flipper, resampling["seed"])
    entries = pair_entries(scores, scorer.model.identity, groups=groups, **resampling)
    entries.pop("alignment/clip_score", None)  # the scorer's own mean, which may be of another score
    return entries


def detail_changes(
    scorer: Reward,
    before: torch.Tensor,
    after: torch.Tensor,
    cases: Sequence[Case],
    groups: Sequence[str],
    **resampling: Any,
) -> Entries:
    """Return the paired changes, of images of the same ``cases`` in the same order; see :func:`detail_entries`."""
    if isinstance(scorer, RegionReward):
        entries: Entries = {}
        new, old = region_shares(after), region_shares(before)
        for name, shares in new.items():
            if not shares.isnan().all():
                change = mean_interval(shares - old[name], groups=groups, **resampling)
                entries[f"change/alignment/{name}"] = {**change.to_json(), "evaluator": scorer.segmenter.identity}
        return entries
    assert isinstance(scorer, ConsistencyReward)
    scores = [score_embedded(scorer.model, kept, cases, scorer.flipper, resampling["seed"]) for kept in (before, after)]
    return pair_changes(scores[0], scores[1], scorer.model.identity, groups=groups, **resampling)
