"""Are generated images nearer to training images than to equally many real images that training never saw?

A small distance to a training image says nothing by itself: real people look alike too. So each generated image is
offered two sets of strangers, training and held-out, of the same size and one image of each patient or lesion. A
generator that learnt the distribution and no person is nearer to either equally often.

Two sets of the same size: the larger one is thinned at random. The mean over all ways to thin it has a closed form.
Let the real images be sorted by their distance to a generated one, L_k the set of the k-th and r(L) the share of that
set which is kept (1 for the smaller). Then

    P(nearest kept is a training image) = sum_k prod_{i<k} (1 - r(L_i)) r(L_k) [L_k = train].

The test permutes which patient belongs to which set. Without memorisation every such labelling was equally likely, so
the p-value is exact up to the number of permutations, whatever the features and however many generated images crowd
around one patient. A bootstrap of the real images would not do: drawn with replacement it loses each image's nearest
neighbour in 37 % of the resamples, and pulls every share towards 1/2.

Where the sides differ in their mixture (see :mod:`~clinalign.evaluation.privacy.matching`), r depends on the stratum
too, and sides are permuted within strata.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from clinalign.core.errors import UserError
from clinalign.core.neighbours import nearest_neighbours
from clinalign.core.seeds import derive_seed
from clinalign.evaluation.intervals import Estimate
from clinalign.evaluation.privacy.matching import keep_rates, matched
from clinalign.evaluation.privacy.shares import Z95, both_codes, cluster_variance, codes_of, wilson

MINIMUM_GROUPS = 20  # patients or lesions on either side
MOST_LARGER = 4.0  # the larger side is first cut to so many times the smaller, at random: the lists below stay short
NEIGHBOURS = 48  # of each image that are looked at; at that ratio beyond 1 - 1e-4 of the sum above
_CHUNK = 2_000_000  # labels held at once


@dataclass(frozen=True)
class Sides:
    """Real images around generated ones.

    Attributes:
        distance: ``(N, K)`` to the K nearest real images of both sides, one of each group, the query's own left out.
        group: ``(N, K)`` number of their group.
        is_train: ``(G,)`` bool, side of each group.
        stratum: ``(G,)`` number of the stratum of each group.
        own: ``(N,)`` number of the group of the query's case among these, -1 where it is not one of them.
        query_codes: ``(N,)`` number of the case's group that each query was drawn for.
    """

    distance: torch.Tensor
    group: torch.Tensor
    is_train: torch.Tensor
    stratum: torch.Tensor
    own: torch.Tensor
    query_codes: torch.Tensor


@dataclass(frozen=True)
class NearestTrain:
    """What N images say.

    Attributes:
        share: ``(N,)`` chance that the nearest is a training image, sets being equal in size.
        log_ratio: ``(N,)`` log of the distance to the nearest training image over that to the nearest held-out one.
        null_share: ``(P,)`` mean shares with the sides permuted.
        null_log_ratio: ``(P,)`` mean log ratios with the sides permuted.
        query_codes: ``(N,)`` clusters of the images.
        tie_codes: ``(N,)`` clusters of the images that share their case and their nearest real one.
        train_groups: Training patients or lesions that were looked at.
        held_out_groups: Held-out ones.
    """

    share: torch.Tensor
    log_ratio: torch.Tensor
    null_share: torch.Tensor
    null_log_ratio: torch.Tensor
    query_codes: torch.Tensor
    tie_codes: torch.Tensor
    train_groups: int
    held_out_groups: int

    @property
    def p_value(self) -> float:
        """Chance of a share as large without memorisation (one-sided; Phipson and Smyth 2010 for the added 1)."""
        beyond = int((self.null_share >= float(self.share.mean()) - 1e-12).sum())
        return (1 + beyond) / (1 + len(self.null_share))


def one_of_each(groups: Sequence[str], seed: int, most: int | None = None) -> torch.Tensor:
    """Return sorted rows: one image of each group, drawn at random; of ``most`` groups at random where there are more.

    One lesion with ten photographs would otherwise have ten chances to be the nearest.
    """
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(derive_seed(seed, "one of each")))
    first: dict[str, int] = {}
    for row in order.tolist():
        first.setdefault(groups[row], row)
    return torch.tensor(sorted(list(first.values())[:most]))


def surround(
    queries: torch.Tensor,
    query_groups: Sequence[str],
    train: torch.Tensor,
    train_groups: Sequence[str],
    held_out: torch.Tensor,
    held_out_groups: Sequence[str],
    seed: int = 0,
    strata: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Sides:
    """Find the real images around each query.

    Args:
        queries: ``(N, D)`` features of generated images (or of held-out real ones, for the null).
        query_groups: Group of the case that each was drawn for; that group is left out on both sides, for a picture of
            a prompt may well look like the case that the prompt was written for.
        train: ``(M, D)`` features of training images.
        train_groups: Their patients or lesions.
        held_out: ``(H, D)`` features of real images that the generator never saw.
        held_out_groups: Theirs.
        seed: Same seed, same choice of one image a group.
        strata: Stratum of each training and of each held-out image; all alike without.

    Raises:
        UserError: With a group on both sides, or too few groups, or too few of one kind.
    """
    both = set(train_groups) & set(held_out_groups)
    if both:
        raise UserError(
            f"{len(both)} patients or lesions are in the training set and among the held-out images, first "
            f"'{min(both)}': memorisation cannot be told from likeness; split by patient"
        )
    counts = len(set(train_groups)), len(set(held_out_groups))
    if min(counts) < MINIMUM_GROUPS:
        raise UserError(
            f"privacy needs {MINIMUM_GROUPS} patients or lesions on either side, got {counts[0]} in training and "
            f"{counts[1]} held out: prepare more cases"
        )
    most = math.ceil(MOST_LARGER * min(counts))
    rows = [one_of_each(side, seed, most) for side in (train_groups, held_out_groups)]
    kinds = strata or ([""] * len(train), [""] * len(held_out))
    kind = [[names[row] for row in chosen.tolist()] for names, chosen in zip(kinds, rows, strict=True)]
    if matched(*kind) < MINIMUM_GROUPS:
        raise UserError(
            f"privacy compares patients or lesions of one kind, and {matched(*kind)} pairs are alike: "
            f"{MINIMUM_GROUPS} are needed"
        )
    kept = [rate > 0 for rate in keep_rates(*kind)]
    rows = [chosen[keep] for chosen, keep in zip(rows, kept, strict=True)]
    references = torch.cat([train[rows[0]], held_out[rows[1]]])
    names = [train_groups[row] for row in rows[0].tolist()] + [held_out_groups[row] for row in rows[1].tolist()]
    stratum = codes_of([kinds[0][row] for row in rows[0].tolist()] + [kinds[1][row] for row in rows[1].tolist()])
    found = nearest_neighbours(
        queries,
        references,
        min(NEIGHBOURS, len(references) - 1),  # less one: a query's own group is left out
        query_groups=query_groups,
        reference_groups=names,
    )
    is_train = torch.arange(len(references)) < len(rows[0])
    number = {name: row for row, name in enumerate(names)}
    own = torch.tensor([number.get(group, -1) for group in query_groups])
    return Sides(found.distance, found.row, is_train, stratum, own, codes_of(query_groups))


def compare_sides(sides: Sides, permutations: int = 500, seed: int = 0) -> NearestTrain:
    """Compute shares and log ratios, and what they are when the sides of the groups are permuted.

    Args:
        sides: See :func:`surround`.
        permutations: How many.
        seed: Same seed and same reference images, same permutations: those of two generators can be paired.
    """
    floor = 1e-3 * sides.distance[:, -1].median().clamp_min(1e-12)  # an exact copy: as near as can be told, not log 0
    logs = sides.distance.clamp_min(floor).log()
    share, ratio = _scores(sides, logs, sides.is_train[None])
    null_share, null_ratio = [], []
    for labels in _permuted(sides, permutations, seed):
        shares, ratios = _scores(sides, logs, labels)
        null_share.append(shares.mean(1))
        null_ratio.append(ratios.mean(1))
    train = int(sides.is_train.sum())
    return NearestTrain(
        share[0],
        ratio[0],
        torch.cat(null_share),
        torch.cat(null_ratio),
        sides.query_codes,
        both_codes(sides.query_codes, sides.group[:, 0]),
        train,
        len(sides.is_train) - train,
    )


def _permuted(sides: Sides, permutations: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield ``(B, G)`` permutations of the sides within the strata."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "sides"))
    rows = max(1, _CHUNK // max(1, sides.group.numel()))
    place = sides.stratum.argsort(stable=True)
    for start in range(0, permutations, rows):
        count = min(rows, permutations - start)
        drawn = torch.rand((count, len(place)), generator=generator, dtype=torch.float64)
        order = (sides.stratum + drawn).argsort(dim=1)
        labels = torch.empty((count, len(place)), dtype=torch.bool)
        labels[:, place] = sides.is_train[order]
        yield labels


def _scores(sides: Sides, logs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return shares and log ratios, ``(B, N)``, under ``(B, G)`` labels; see the top of this file.

    The log distance to the nearest kept image of one side is, in the mean over all ways to thin it, the sum over that
    side's j-th nearest of its r times the product of 1 - r over the nearer ones, times its log distance.
    """
    train = labels[:, sides.group]  # (B, N, K)
    chosen = _kept(sides, labels, train)
    weight = _passed(chosen) * chosen
    whole = weight.sum(2)
    # where none of those listed can be kept (their kind has nobody left on one side) nothing is known: a half
    share = torch.where(whole > 0, (weight * train).sum(2) / whole.clamp_min(1e-300), 0.5)
    mean_logs = []
    for side in (train, ~train):
        own = torch.where(side, chosen, 0.0)
        each = _passed(own) * own
        rest = (1 - each.sum(2)) * logs[..., -1]  # further than all that are listed
        mean_logs.append((each * logs).sum(2) + rest)
    return share, mean_logs[0] - mean_logs[1]


def _kept(sides: Sides, labels: torch.Tensor, train: torch.Tensor) -> torch.Tensor:
    """Return r of each neighbour, ``(B, N, K)``.

    A query's own group is not among its neighbours, so in its stratum one side has one group less for this query. With
    few groups of a kind that would tip the balance.
    """
    counts = [torch.bincount(sides.stratum[side], minlength=1 + int(sides.stratum.max())).double()
              for side in (sides.is_train, ~sides.is_train)]  # fmt: skip
    usual = [_rate(first, second) for first, second in (counts, counts[::-1])]
    kind = sides.stratum[sides.group]  # (N, K)
    chosen = torch.where(train, usual[0][kind], usual[1][kind])
    has = sides.own >= 0
    home = sides.stratum[sides.own.clamp_min(0)]
    trained = labels[:, sides.own.clamp_min(0)]  # (B, N): side of the query's own group
    left = [counts[0][home] - (trained & has).double(), counts[1][home] - (~trained & has).double()]
    here = [_rate(first, second)[..., None] for first, second in (left, left[::-1])]
    return torch.where((kind == home[:, None]) & has[:, None], torch.where(train, here[0], here[1]), chosen)


def _rate(count: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the share of ``count`` that leaves as many as there are on the smaller side; 0 of none."""
    return torch.minimum(count, other) / count.clamp_min(1)


def _passed(chosen: torch.Tensor) -> torch.Tensor:
    """Return the chance that none of the nearer ones was kept, ``(B, N, K)``."""
    return torch.cat([torch.ones_like(chosen[..., :1]), torch.cumprod(1 - chosen, dim=2)[..., :-1]], dim=2)


def share_estimate(found: NearestTrain) -> Estimate:
    """Estimate the mean share with Wilson's interval at the number of images that it is worth.

    That number follows from the spread under permutation, which knows how many generated images crowd around one
    patient; what images of one prompt share beyond that is added.
    """
    value = float(found.share.mean())
    variance = 4 * float(found.null_share.var(correction=0)) + _shared(found.share, found) / _room(value)
    return Estimate(value, wilson(value, 1 / variance), len(found.share))


def ratio_estimate(found: NearestTrain) -> Estimate:
    """Estimate the geometric mean of the ratio of distances; 1 without memorisation, below 1 nearer to training."""
    value = float(found.log_ratio.mean())
    half = Z95 * math.sqrt(_variance(found.log_ratio, found.null_log_ratio, found))
    return Estimate(math.exp(value), (math.exp(value - half), math.exp(value + half)), len(found.log_ratio))


def share_change(before: NearestTrain, after: NearestTrain) -> Estimate:
    """Estimate the change of the mean share; both were drawn for the same cases and compared with the same images."""
    difference, null = after.share - before.share, after.null_share - before.null_share
    value = float(difference.mean())
    half = Z95 * math.sqrt(_variance(difference, null, after))
    return Estimate(value, (value - half, value + half), len(difference))


def ratio_change(before: NearestTrain, after: NearestTrain) -> Estimate:
    """Estimate the relative change of the ratio of distances, ``after / before - 1``."""
    difference, null = after.log_ratio - before.log_ratio, after.null_log_ratio - before.null_log_ratio
    value = float(difference.mean())
    half = Z95 * math.sqrt(_variance(difference, null, after))
    return Estimate(math.expm1(value), (math.expm1(value - half), math.expm1(value + half)), len(difference))


def _variance(values: torch.Tensor, null: torch.Tensor, found: NearestTrain) -> float:
    """Return the variance of the mean of ``values``: of the sides' permutation, and of what prompts share beyond it."""
    drawn = cluster_variance(values, found.query_codes)
    return max(float(null.var(correction=0)) + _shared(values, found), drawn)


def _shared(values: torch.Tensor, found: NearestTrain) -> float:
    """Return what images of one case add to the variance of the mean beyond having one real image as their nearest."""
    return max(0.0, cluster_variance(values, found.query_codes) - cluster_variance(values, found.tie_codes))


def _room(share: float) -> float:
    """Return ``p (1 - p)``, kept away from 0."""
    return max(share * (1 - share), 1e-3)
