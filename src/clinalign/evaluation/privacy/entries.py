"""The privacy family as entries of ``metrics.json``: what a set of images gives away, and what tuning changed in that.

An entry is ``{"value", "ci95", "n", "extractor", ...}`` like any other. Held-out real images can be put in the place of
generated ones; what they give is the null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from clinalign.core.neighbours import nearest_neighbours
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.intervals import Estimate
from clinalign.evaluation.privacy import membership
from clinalign.evaluation.privacy.crowding import crowding
from clinalign.evaluation.privacy.duplicates import (
    Nearness,
    Threshold,
    alarm_change,
    alarm_estimate,
    below,
    calibrate,
    plain_nearness,
    relative_nearness,
)
from clinalign.evaluation.privacy.matching import keep_rates
from clinalign.evaluation.privacy.nearest_train import (
    NearestTrain,
    compare_sides,
    one_of_each,
    ratio_change,
    ratio_estimate,
    share_change,
    share_estimate,
    surround,
)

LOSS = "the generator's denoising error"


@dataclass(frozen=True)
class RealSet:
    """Real images on one side of the split.

    Attributes:
        features: ``(M, D)``.
        groups: Patient or lesion of each.
        strata: Kind of each, see :mod:`~clinalign.evaluation.privacy.matching`; empty: all alike.
    """

    features: torch.Tensor
    groups: list[str]
    strata: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """Stratum of each image."""
        return self.strata or [""] * len(self.groups)


@dataclass(frozen=True)
class Reference:
    """What images are compared with. Make it with :func:`open_reference`.

    Attributes:
        train: What the generator was trained on.
        held_out: What neither it nor the extractor was trained on.
        identity: The extractor's.
        near: Threshold of near duplicates.
        match: Threshold of re-identification; ``None`` where the extractor was not trained to recognise patients.
        crowded: ``(M + H,)`` how crowded it is around each real image, training images first.
        counts: ``(M + H,)`` how much each counts in an attack, so that members and others are of the same kinds.
        permutations: Of the sides.
        replicates: Bootstrap resamples of the areas.
        seed: Of everything drawn.
    """

    train: RealSet
    held_out: RealSet
    identity: str
    near: Threshold
    match: Threshold | None
    crowded: torch.Tensor
    counts: torch.Tensor
    permutations: int
    replicates: int
    seed: int

    @property
    def real_groups(self) -> list[str]:
        """Groups of training images, then of held-out ones."""
        return [*self.train.groups, *self.held_out.groups]

    @property
    def is_member(self) -> torch.Tensor:
        """``(M + H,)`` bool."""
        return torch.arange(len(self.crowded)) < len(self.train.groups)


@dataclass(frozen=True)
class LossAttack:
    """Scores of real images by the generator's loss.

    Attributes:
        scores: ``(L,)``.
        member: ``(L,)`` bool.
        groups: L patients or lesions.
    """

    scores: torch.Tensor
    member: torch.Tensor
    groups: list[str]


@dataclass(frozen=True)
class Looked:
    """What N images gave away.

    Attributes:
        groups: Of the cases that they were drawn for.
        nearest: Nearer to training or to held-out images.
        near: Nearness relative to strangers.
        duplicates: ``(N,)`` 1 where it is below the threshold.
        match: Nearness to the nearest training patient, ``None`` without an encoder for it.
        matched: ``(N,)`` 1 where it is below the threshold.
        equal_size: Shares matched to a training and to a held-out patient, out of equally many.
        scores: ``(M + H,)`` of the attack from pictures, on the reference's real images.
        loss: Of the attack from the model, ``None`` where there is no model.
    """

    groups: list[str]
    nearest: NearestTrain
    near: Nearness
    duplicates: torch.Tensor
    match: Nearness | None
    matched: torch.Tensor | None
    equal_size: tuple[float, float] | None
    scores: torch.Tensor
    loss: LossAttack | None = field(default=None)


def open_reference(
    train: RealSet,
    held_out: RealSet,
    identity: str,
    *,
    recognises: bool = False,
    permutations: int = 500,
    replicates: int = 1000,
    seed: int = 0,
) -> Reference:
    """Read the thresholds off the held-out images.

    Args:
        train: Images that the generator was trained on.
        held_out: Images of other patients that neither it nor the extractor was trained on.
        identity: The extractor's.
        recognises: It was trained to recognise patients, so that re-identification can be measured.
        permutations: Of the sides.
        replicates: Bootstrap resamples of the areas under the curve.
        seed: Same seed, same numbers.

    Raises:
        UserError: With too few held-out images.
    """
    own = (held_out.features, held_out.groups)
    near = relative_nearness(*own, train.features, *own)
    match = plain_nearness(held_out.features, train.features) if recognises else None
    real, groups = torch.cat([train.features, held_out.features]), [*train.groups, *held_out.groups]
    return Reference(
        train,
        held_out,
        identity,
        calibrate(near.value, held_out.groups, seed=seed),
        None if match is None else calibrate(match.value, held_out.groups, seed=seed),
        crowding(real, groups, *own),
        torch.cat(keep_rates(train.kinds, held_out.kinds)),
        permutations,
        replicates,
        seed,
    )


def look(
    features: torch.Tensor,
    groups: Sequence[str],
    reference: Reference,
    *,
    strangers: bool = False,
    loss: LossAttack | None = None,
) -> Looked:
    """Look at N images.

    Args:
        features: ``(N, D)`` by the reference's extractor.
        groups: Group of the case that each was drawn for.
        reference: Real images.
        strangers: The images are held-out real ones of the reference: their thresholds come from other patients.
        loss: What the generator's loss gave.

    Raises:
        UserError: With too few real images, or a group on both sides.
    """
    train, held_out, groups = reference.train, reference.held_out, list(groups)
    own = groups if strangers else None
    sides = surround(
        features,
        groups,
        train.features,
        train.groups,
        held_out.features,
        held_out.groups,
        reference.seed,
        (train.kinds, held_out.kinds),
    )
    near = relative_nearness(features, groups, train.features, held_out.features, held_out.groups)
    match = None if reference.match is None else plain_nearness(features, train.features)
    return Looked(
        groups,
        compare_sides(sides, reference.permutations, reference.seed),
        near,
        below(near.value, reference.near, own),
        match,
        None if match is None or reference.match is None else below(match.value, reference.match, own),
        None if match is None else _equal_size(features, groups, reference),
        _attack(features, groups, reference, strangers),
        loss,
    )


def _attack(features: torch.Tensor, groups: Sequence[str], reference: Reference, strangers: bool) -> torch.Tensor:
    """Score the reference's real images; strangers, who are among them, do not find themselves."""
    real = torch.cat([reference.train.features, reference.held_out.features])
    if not strangers:
        return membership.picture_scores(real, reference.crowded, features)
    found = nearest_neighbours(real, features, query_groups=reference.real_groups, reference_groups=groups)
    return -found.distance[:, 0] / reference.crowded


def _equal_size(features: torch.Tensor, groups: Sequence[str], reference: Reference) -> tuple[float, float] | None:
    """Return the shares matched to training and to held-out patients, equally many of each, with one image each."""
    if reference.match is None:
        return None
    sides = reference.train, reference.held_out
    most = min(len(set(side.groups)) for side in sides)
    shares = []
    for side in sides:
        rows = one_of_each(side.groups, reference.seed, most)
        names = [side.groups[row] for row in rows.tolist()]
        found = nearest_neighbours(features, side.features[rows], query_groups=groups, reference_groups=names)
        shares.append(float((found.distance[:, 0] < reference.match.value).double().mean()))
    return shares[0], shares[1]


def privacy_entries(looked: Looked, reference: Reference) -> Entries:
    """Return ``privacy/...``; which keys there are, and what they mean, is in docs/privacy.md."""
    extractor = {"extractor": reference.identity}
    sizes = {"n_train": looked.nearest.train_groups, "n_held_out": looked.nearest.held_out_groups}
    share = share_estimate(looked.nearest).to_json() | {"p_value": looked.nearest.p_value}
    entries: Entries = {
        "privacy/nearest_train_share": share | sizes | extractor,
        "privacy/distance_ratio": ratio_estimate(looked.nearest).to_json() | sizes | extractor,
        "privacy/near_duplicates": _alarms(looked.duplicates, looked.near, looked.groups, reference.near, reference),
    }
    if looked.match is not None and looked.matched is not None and reference.match is not None:
        entry = _alarms(looked.matched, looked.match, looked.groups, reference.match, reference)
        if looked.equal_size is not None:
            entry |= dict(zip(("equal_size_train", "equal_size_held_out"), looked.equal_size, strict=True))
        entries["privacy/reidentified"] = entry
    auc = membership.auc_estimate(
        looked.scores, reference.is_member, reference.real_groups, counts=reference.counts, **_resampling(reference)
    )
    entries["privacy/membership_auc"] = auc.to_json() | _members(reference.is_member) | extractor
    if looked.loss is not None:
        loss = looked.loss
        auc = membership.auc_estimate(loss.scores, loss.member, loss.groups, **_resampling(reference))
        entries["privacy/membership_auc_loss"] = auc.to_json() | _members(loss.member) | {"extractor": LOSS}
    return entries


def privacy_changes(before: Looked, after: Looked, reference: Reference) -> Entries:
    """Return ``change/privacy/...``, after minus before over the same cases; that of the ratio is relative."""
    estimates: dict[str, Estimate] = {
        "nearest_train_share": share_change(before.nearest, after.nearest),
        "distance_ratio": ratio_change(before.nearest, after.nearest),
        "near_duplicates": alarm_change(
            before.duplicates, after.duplicates, after.groups, _names(after.near, reference)
        ),
        "membership_auc": membership.auc_change(
            before.scores,
            after.scores,
            reference.is_member,
            reference.real_groups,
            counts=reference.counts,
            **_resampling(reference),
        ),
    }
    if before.matched is not None and after.matched is not None and after.match is not None:
        names = _names(after.match, reference)
        estimates["reidentified"] = alarm_change(before.matched, after.matched, after.groups, names)
    entries: Entries = {
        f"change/privacy/{key}": estimate.to_json() | {"extractor": reference.identity}
        for key, estimate in estimates.items()
    }
    if before.loss is not None and after.loss is not None:
        loss = after.loss
        change = membership.auc_change(
            before.loss.scores, loss.scores, loss.member, loss.groups, **_resampling(reference)
        )
        entries["change/privacy/membership_auc_loss"] = change.to_json() | {"extractor": LOSS}
    return entries


def _alarms(
    alarms: torch.Tensor, nearness: Nearness, groups: Sequence[str], threshold: Threshold, reference: Reference
) -> dict[str, Any]:
    """The entry of a share of alarms."""
    return {
        **alarm_estimate(alarms, groups, _names(nearness, reference)).to_json(),
        "threshold": threshold.value,
        "false_alarms": threshold.rate,
        "strangers": threshold.strangers,
        "extractor": reference.identity,
    }


def _names(nearness: Nearness, reference: Reference) -> list[str]:
    """Group of the training image that each image is nearest to."""
    return [reference.train.groups[row] for row in nearness.row.tolist()]


def _members(member: torch.Tensor) -> dict[str, int]:
    """How many images are on either side of an attack."""
    return {"members": int(member.sum()), "non_members": int((~member).sum())}


def _resampling(reference: Reference) -> dict[str, Any]:
    """The bootstrap's arguments."""
    return {"replicates": reference.replicates, "seed": reference.seed}
