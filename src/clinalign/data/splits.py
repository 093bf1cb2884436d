"""Splits by patient or lesion: no group on two sides, rare labels spread over all sides, the same for the same seed.

The method is iterative stratification (Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML
PKDD 2011), dealt out in groups instead of single cases.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed

SPLITS = ("train", "validation", "judge", "test")
"""``train``: base model and rewards. ``validation``: choices. ``judge``: evaluators only. ``test``: final numbers."""

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.55, "validation": 0.05, "judge": 0.25, "test": 0.15}


def assign_splits(
    group_ids: Sequence[str],
    labels: Sequence[Collection[str]],
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> list[str]:
    """Deal out groups to splits so that each label is spread over the splits as the cases are.

    Args:
        group_ids: Patient or lesion of each case.
        labels: Labels of each case whose share should be alike in all splits (diagnosis, findings, age band, ...).
        fractions: Share of the cases of each split; the shares sum to 1, and a split with share 0 gets no case.
        seed: Decides between groups that fit equally well.

    Returns:
        The split of each case.

    Raises:
        UserError: Without a group id for every case, with fewer groups than splits, or with impossible fractions.
    """
    check_fractions(fractions)
    missing = sum(not group for group in group_ids)
    if missing:
        raise UserError(
            f"{missing} of {len(group_ids)} cases have no group id (patient or lesion): without it images of one "
            "person would lie on two sides of a split; give every case one"
        )
    sides = [split for split in SPLITS if fractions.get(split, 0) > 0]
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(group_ids):
        members[group].append(index)
    if len(members) < len(sides):
        raise UserError(f"{len(members)} groups (patients or lesions) cannot fill {len(sides)} splits: give more cases")
    names = sorted(members)
    np.random.default_rng(derive_seed("splits", seed)).shuffle(names)
    content = {name: Counter(label for index in members[name] for label in labels[index]) for name in names}
    dealt = _deal(names, {name: len(members[name]) for name in names}, content, [fractions[side] for side in sides])
    chosen = [""] * len(group_ids)
    for name, side in dealt.items():
        for index in members[name]:
            chosen[index] = sides[side]
    check_groups(group_ids, chosen)
    return chosen


def _deal(
    names: Sequence[str], sizes: Mapping[str, int], content: Mapping[str, Counter[str]], shares: Sequence[float]
) -> dict[str, int]:
    """Deal out the groups ``names`` (in random order), rarest label first; return the side of each."""
    weights = np.asarray(shares, dtype=float)
    totals: Counter[str] = Counter()
    for labels in content.values():
        totals.update(labels)
    wanted = {label: weights * count for label, count in totals.items()}
    room = weights * sum(sizes.values())
    holders: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for label in content[name]:
            holders[label].append(name)
    sides: dict[str, int] = {}

    def place(name: str, side: int) -> None:
        sides[name] = side
        room[side] -= sizes[name]
        for label, count in content[name].items():
            wanted[label][side] -= count

    for label in sorted(totals, key=lambda word: (totals[word], word)):
        free = [name for name in holders[label] if name not in sides]
        # Large groups first: they are the hardest to balance. The sort is stable, so ties keep the random order.
        for name in sorted(free, key=lambda word: -content[word][label]):
            place(name, int(np.lexsort((-room, -wanted[label]))[0]))
    for name in names:
        if name not in sides:
            place(name, int(np.argmax(room)))
    _fill_empty(sides, sizes, len(shares))
    return sides


def _fill_empty(sides: dict[str, int], sizes: Mapping[str, int], count: int) -> None:
    """Give each side that got no group (few, large groups) the smallest group of the side with the most groups."""
    for side in range(count):
        number = Counter(sides.values())
        if number[side] == 0:
            rich = number.most_common(1)[0][0]
            sides[min((name for name in sides if sides[name] == rich), key=lambda name: (sizes[name], name))] = side


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raise :class:`UserError` unless ``fractions`` are shares of our splits that sum to 1, with some for ``train``."""
    unknown = [split for split in fractions if split not in SPLITS]
    if unknown:
        raise UserError(f"unknown split '{unknown[0]}' in fractions: known: {', '.join(SPLITS)}")
    values = list(fractions.values())
    if any(not value >= 0 for value in values) or abs(sum(values) - 1) > 1e-6 or not fractions.get("train", 0) > 0:
        raise UserError(f"fractions {', '.join(f'{value:g}' for value in values)}: shares must sum to 1, train above 0")


def check_groups(group_ids: Sequence[str], splits: Sequence[str]) -> None:
    """Raise :class:`UserError` when a group lies on two sides.

    Args:
        group_ids: Patient or lesion of each case.
        splits: Split of each case.
    """
    torn = torn_groups(group_ids, splits)
    if torn:
        group, sides = next(iter(torn.items()))
        raise UserError(
            f"{len(torn)} groups lie on two sides, first '{group}' in {' and '.join(sorted(sides))}: "
            "put all images of a patient or lesion into one split"
        )


def torn_groups(group_ids: Sequence[str], splits: Sequence[str]) -> dict[str, set[str]]:
    """Return the groups that lie in more than one split, with their splits."""
    sides: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(group_ids, splits, strict=True):
        sides[group].add(split)
    return {group: found for group, found in sides.items() if len(found) > 1}
