"""Does the picture fit its text? What an image-text model says of images and reports.

Kernels take cosines or unit vectors; weights ``(B, N)`` are resampling counts (see
:mod:`clinalign.evaluation.intervals`). Undefined values are NaN, never 0, and an entry of them is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.text_flips import KINDS, Flip, Flipper, text_flips
from clinalign.evaluation.alignment import auroc, image_text_score
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.intervals import Estimate, bootstrap, mean_interval, weighted_mean
from clinalign.networks.image_text import ImageTextModel
from clinalign.networks.pair_texts import case_flips

TOP = (1, 5, 10)


@dataclass(frozen=True)
class PairScores:
    """What a model says of N images and their texts, before any mean.

    Attributes:
        cosine: ``(N,)`` of each image with its own text, in ``[-1, 1]``; NaN where the text is empty.
        mismatched: ``(N,)`` with the text of another case, drawn among those with another text; NaN where none has.
        rank: ``(N,)`` place of the own text among all distinct texts, from 1, ties counting half; NaN where the text is
            empty.
        wins: Kind of flip to ``(N,)`` shares of an image's flips of that kind that score below the true text (ties
            count half), NaN where it has none.
        blind: The same with the mean of all image embeddings in place of the image's own: what the text alone decides.
        flips: Kind to the number of triples (image, true text, flipped text).
        evidence: ``(N, K)`` cosine with a finding named minus cosine without, less what the mean of all image
            embeddings gives (so that the pull of the texts themselves is taken off); NaN where it was not flipped.
        present: ``(N, K)`` bool, whether the finding is there.
        findings: The K findings.
        candidates: Number of distinct texts that retrieval chooses from.
        truncated: Number of images whose text lost its end.
    """

    cosine: torch.Tensor
    mismatched: torch.Tensor
    rank: torch.Tensor
    wins: dict[str, torch.Tensor]
    blind: dict[str, torch.Tensor]
    flips: dict[str, int]
    evidence: torch.Tensor
    present: torch.Tensor
    findings: tuple[str, ...]
    candidates: int
    truncated: int


def win_share(true: torch.Tensor, flipped: torch.Tensor) -> torch.Tensor:
    """Return the ``(N,)`` share of ``flipped`` ``(N, F)`` (NaN: none) below ``true`` ``(N,)``; ties count half.

    NaN for a row without a flip.
    """
    known = ~flipped.isnan()
    won = (true[:, None] > flipped).double() + 0.5 * (true[:, None] == flipped).double()
    return torch.where(known, won, 0.0).sum(1) / known.sum(1)


def text_rank(cosines: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return the ``(N,)`` place of text ``own`` ``(N,)`` in each row of ``cosines`` ``(N, T)``, from 1; ties half."""
    true = cosines.gather(1, own[:, None])
    return 0.5 + (cosines > true).double().sum(1) + 0.5 * (cosines == true).double().sum(1)


def matched_auroc(matched: torch.Tensor, mismatched: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return ``(B,)`` chances that a matched pair outscores a mismatched one, of any image; both ``(N,)``, NaN unknown.

    Args:
        matched: Cosines of images with their own texts.
        mismatched: Cosines of the same images with others' texts.
        weights: ``(B, N)``.
    """
    scores = torch.cat([matched, mismatched])
    labels = torch.cat([torch.ones(len(matched)), torch.zeros(len(mismatched))]).bool()
    return auroc(scores, labels, ~scores.isnan(), torch.cat([weights, weights], dim=1))


def finding_auroc(evidence: torch.Tensor, present: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return ``(B,)`` means over findings of the AUROC of evidence where the finding is there against where it is not.

    A share of wins owes much to which text is the more usual one. Here a model that does not look is at 0.5.

    Args:
        evidence: ``(N, K)``, NaN unknown; see :class:`PairScores`.
        present: ``(N, K)`` bool.
        weights: ``(B, N)``.
    """
    known = ~evidence.isnan()
    each = [auroc(evidence[:, k], present[:, k], known[:, k], weights) for k in range(evidence.shape[1])]
    return torch.stack(each).nanmean(0)


def score_pairs(
    model: ImageTextModel,
    images: torch.Tensor,
    cases: Sequence[Case],
    flipper: Flipper = text_flips,
    seed: int = 0,
) -> PairScores:
    """Ask ``model`` about ``images`` ``(N, 3, H, W)`` in ``[0, 1]``, their texts, others' texts and flipped texts.

    The flips and the mismatched texts depend on the seed and the case, never on the model, so that two models are asked
    the same.
    """
    with torch.no_grad():
        seen = model.embed_images(images)
    return score_embedded(model, seen, cases, flipper, seed)


def score_embedded(
    model: ImageTextModel, seen: torch.Tensor, cases: Sequence[Case], flipper: Flipper = text_flips, seed: int = 0
) -> PairScores:
    """Do what :func:`score_pairs` does for images that ``model`` has embedded already as ``seen`` ``(N, D)``."""
    seen = seen.double().cpu()
    numbers: dict[str, int] = {}
    own = torch.tensor([numbers.setdefault(case.text, len(numbers)) for case in cases])
    candidates = len(numbers)
    found = [case_flips(case, flipper, seed) for case in cases]
    table = [[numbers.setdefault(flip.text, len(numbers)) for flip in flips] for flips in found]
    with torch.no_grad():
        read = model.embed_texts(list(numbers)).double().cpu()
    empty = torch.tensor([not case.text.strip() for case in cases])
    cosine = image_text_score(seen, read[own]).masked_fill(empty, torch.nan)
    rank = torch.cat(
        [text_rank(part @ read[:candidates].T, o) for part, o in zip(torch.split(seen, 512), torch.split(own, 512))]
    )
    anyone = seen.mean(0, keepdim=True).expand_as(seen)
    wins, blind, counts = {}, {}, {}
    for kind in KINDS:
        rows = [[n for n, flip in zip(row, flips) if flip.kind == kind] for row, flips in zip(table, found)]
        if any(rows):
            counts[kind] = sum(len(row) for row in rows)
            wins[kind] = win_share(cosine, _scores_of(seen, read, rows))
            blind[kind] = win_share(image_text_score(anyone, read[own]), _scores_of(anyone, read, rows))
    findings = tuple(sorted({flip.about for flips in found for flip in flips if flip.kind in ("removed", "added")}))
    shape = (len(cases), len(findings))
    truth = torch.tensor([[_side(flips, name) for name in findings] for flips in found]).reshape(shape)
    wrong = torch.tensor([[_text_about(row, flips, name) for name in findings] for row, flips in zip(table, found)])
    return PairScores(
        cosine,
        _mismatched(seen, read, own, cases, seed).masked_fill(empty, torch.nan),
        rank.masked_fill(empty, torch.nan),
        wins,
        blind,
        counts,
        _evidence(seen - anyone, read, own, wrong.reshape(shape).long(), truth),
        truth > 0,
        findings,
        candidates,
        sum(model.truncates([case.text for case in cases])),
    )


def pair_entries(
    scores: PairScores,
    identity: str,
    *,
    groups: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Turn scores into entries of ``metrics.json``.

    Args:
        scores: Of :func:`score_pairs`.
        identity: The model's.
        groups: Patient, lesion or case of each image: what the bootstrap draws.
        replicates: Resamples.
        seed: Same seed, same entries.

    Returns:
        ``alignment/clip_score`` (mean cosine of an image and its text), ``alignment/flipped_accuracy/KIND`` (share of
        (image, true text, flipped text) triples whose true text scores higher, averaged within an image first;
        ``flips`` counts the triples, ``blind`` is what the text alone would reach), ``alignment/flipped_accuracy`` (the
        mean over the kinds, so that a preference for short texts gains nothing), ``alignment/finding_auroc`` (see
        :func:`finding_auroc`), ``alignment/recall_at_1``,
        ``_5``, ``_10`` (image-to-text retrieval: share of images whose own text is among the nearest 1, 5, 10 of
        ``candidates`` distinct texts, so that another image's copy of the text is right too; ``chance`` is what
        guessing reaches; left out where there are no more texts than that) and ``alignment/matched_auroc``. Each has
        ``evaluator``.
    """

    def mean(values: torch.Tensor) -> Estimate:
        return mean_interval(values, groups=groups, replicates=replicates, seed=seed)

    everyone = torch.ones(1, len(scores.cosine), dtype=torch.float64)
    found: Entries = {"alignment/clip_score": mean(scores.cosine).to_json() | {"truncated": scores.truncated}}
    if scores.wins:
        found["alignment/flipped_accuracy"] = bootstrap(
            lambda weights: _mean_of_means(scores.wins, weights),
            len(scores.cosine),
            groups=groups,
            replicates=replicates,
            seed=seed,
            counted=int((~torch.stack([*scores.wins.values()]).isnan()).any(0).sum()),
        ).to_json() | {
            "flips": sum(scores.flips.values()),
            "blind": float(_mean_of_means(scores.blind, everyone)),
        }
    for kind, values in scores.wins.items():
        told = {"flips": scores.flips[kind], "blind": float(scores.blind[kind].nanmean())}
        found[f"alignment/flipped_accuracy/{kind}"] = mean(values).to_json() | told
    if scores.findings:
        found["alignment/finding_auroc"] = bootstrap(
            lambda weights: finding_auroc(scores.evidence, scores.present, weights),
            len(scores.cosine),
            groups=groups,
            replicates=replicates,
            seed=seed,
            counted=int((~scores.evidence.isnan()).any(1).sum()),
        ).to_json()
    for top in TOP:
        if scores.candidates > top:
            told = {"candidates": scores.candidates, "chance": top / scores.candidates}
            found[f"alignment/recall_at_{top}"] = mean(hits(scores, top)).to_json() | told
    known = int((~scores.cosine.isnan()).sum())
    found["alignment/matched_auroc"] = bootstrap(
        lambda weights: matched_auroc(scores.cosine, scores.mismatched, weights),
        len(scores.cosine),
        groups=groups,
        replicates=replicates,
        seed=seed,
        counted=known,
    ).to_json()
    return {
        key: {**entry, "evaluator": identity}
        for key, entry in found.items()
        if not any(math.isnan(number) for number in (entry["value"], *entry["ci95"]))
    }


def pair_changes(
    before: PairScores,
    after: PairScores,
    identity: str,
    *,
    groups: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Return what changed between two sets of images of the same cases in the same order, paired.

    Returns:
        ``change/alignment/flipped_accuracy`` (over the kinds of flips, as in :func:`pair_entries`) and
        ``change/alignment/recall_at_1``, ``_5``, ``_10``; each with ``evaluator``.
    """
    found: Entries = {}
    if after.wins:
        gains = {kind: after.wins[kind] - before.wins[kind] for kind in after.wins}
        found["change/alignment/flipped_accuracy"] = bootstrap(
            lambda weights: _mean_of_means(gains, weights),
            len(after.cosine),
            groups=groups,
            replicates=replicates,
            seed=seed,
            counted=int((~torch.stack([*gains.values()]).isnan()).any(0).sum()),
        ).to_json()
    for top in TOP:
        if after.candidates > top:
            gain = hits(after, top) - hits(before, top)
            found[f"change/alignment/recall_at_{top}"] = mean_interval(
                gain, groups=groups, replicates=replicates, seed=seed
            ).to_json()
    return {key: {**entry, "evaluator": identity} for key, entry in found.items()}


def hits(scores: PairScores, top: int) -> torch.Tensor:
    """Return ``(N,)`` 1 where the own text is among the ``top`` nearest, 0 where not, NaN where it is empty."""
    return torch.where(scores.rank.isnan(), torch.nan, (scores.rank <= top).double())


def image_text_entries(
    model: ImageTextModel,
    images: torch.Tensor,
    cases: Sequence[Case],
    *,
    flipper: Flipper = text_flips,
    groups: Sequence[str] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Measure ``images`` against the texts of their ``cases``; see :func:`score_pairs` and :func:`pair_entries`."""
    groups = [case.group_id or case.case_id for case in cases] if groups is None else groups
    scores = score_pairs(model, images, cases, flipper, seed)
    return pair_entries(scores, model.identity, groups=groups, replicates=replicates, seed=seed)


def _mean_of_means(kinds: Mapping[str, torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over kinds of their means over images, ``(B,)``; a kind without weight is left out."""
    return torch.stack([weighted_mean(values, weights) for values in kinds.values()]).nanmean(0)


def _side(flips: Sequence[Flip], name: str) -> int:
    """Return 1 where the finding ``name`` was removed (it is there), -1 where it was added, 0 where neither."""
    kinds = {flip.kind for flip in flips if flip.about == name}
    return 1 if "removed" in kinds else -1 if "added" in kinds else 0


def _text_about(texts: Sequence[int], flips: Sequence[Flip], name: str) -> int:
    """Return the number of the text in which the finding ``name`` was removed or added, -1 where there is none."""
    found = [n for n, flip in zip(texts, flips) if flip.about == name and flip.kind in ("removed", "added")]
    return found[0] if found else -1


def _evidence(
    seen: torch.Tensor, read: torch.Tensor, own: torch.Tensor, wrong: torch.Tensor, truth: torch.Tensor
) -> torch.Tensor:
    """Return the product with each finding named minus without, ``(N, K)``; NaN where ``truth`` ``(N, K)`` is 0."""
    mine = (read[own] * seen).sum(1, keepdim=True)
    others = [(read[column] * seen).sum(1) for column in wrong.clamp_min(0).T]
    if not others:
        return torch.empty(truth.shape, dtype=torch.float64)
    return ((mine - torch.stack(others, dim=1)) * truth).masked_fill(truth == 0, torch.nan)


def _scores_of(seen: torch.Tensor, read: torch.Tensor, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the cosine of each image with each of its texts, ``(N, F)``; NaN fills up."""
    most = max(len(row) for row in rows)
    table = torch.tensor([[*row, *[-1] * (most - len(row))] for row in rows])
    each = torch.stack([image_text_score(seen, read[column.clamp_min(0)]) for column in table.T], dim=1)
    return each.masked_fill(table < 0, torch.nan)


def _mismatched(
    seen: torch.Tensor, read: torch.Tensor, own: torch.Tensor, cases: Sequence[Case], seed: int
) -> torch.Tensor:
    """Return the cosine of each image with the text of a random case that has another text; NaN where none has."""
    other = torch.full_like(own, -1)
    for row, case in enumerate(cases):
        choices = torch.nonzero(own != own[row]).flatten()
        if len(choices):
            random = np.random.default_rng(derive_seed(seed, "mismatched", case.case_id))
            other[row] = own[choices[random.integers(len(choices))]]
    return image_text_score(seen, read[other.clamp_min(0)]).masked_fill(other < 0, torch.nan)
