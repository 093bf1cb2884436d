"""Generated images that are too near to one training image, and how often a real stranger is.

What is too near is read off real people that training never saw: the threshold is the distance that a stated share
(1 %) of them falls below. Two kinds of nearness:

- *near duplicates*: the distance to the nearest training image, divided by the mean distance to the nearest ten
  held-out images of other patients. A plain distance would accuse every picture of a common look; the division asks for
  one that is far nearer to a training image than pictures of its look are to strangers. Carlini et al. ("Extracting
  training data from diffusion models", USENIX Security 2023, section 4.2) divide by the mean over training images; here
  held-out ones take their place, so that an image which training holds many times cannot hide itself.
- *re-identification*: the distance to the nearest training patient for an encoder that was trained to recognise
  patients. The threshold is that of an open-set search: the share of strangers that are matched to anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from clinalign.core.errors import UserError
from clinalign.core.neighbours import nearest_neighbours
from clinalign.evaluation.floor import group_halves
from clinalign.evaluation.intervals import Estimate
from clinalign.evaluation.privacy.crowding import crowding
from clinalign.evaluation.privacy.shares import codes_of, paired_interval, share_interval

FALSE_ALARMS = 0.01  # share of real strangers that fall below the threshold
MINIMUM_STRANGERS = 20


class Nearness(NamedTuple):
    """How near N images are to a training image.

    Attributes:
        value: ``(N,)`` what is compared with a threshold; smaller is nearer.
        row: ``(N,)`` the nearest training image.
    """

    value: torch.Tensor
    row: torch.Tensor


@dataclass(frozen=True)
class Threshold:
    """What nearness real strangers do not reach but in ``rate`` of the cases.

    Attributes:
        value: From all of them.
        halves: From either half of their patients, to be used on the other half: strangers judged by a threshold
            that was made from themselves would pass by construction.
        half_of: Group to the half that it is in.
        rate: Share that falls below.
        strangers: Number of images behind it.
    """

    value: float
    halves: tuple[float, float]
    half_of: dict[str, int]
    rate: float
    strangers: int


def relative_nearness(
    queries: torch.Tensor,
    query_groups: Sequence[str],
    train: torch.Tensor,
    held_out: torch.Tensor,
    held_out_groups: Sequence[str],
) -> Nearness:
    """Divide the distance to the nearest training image by that to held-out ones; see the top of this file.

    Args:
        queries: ``(N, D)`` features of generated images, or of the held-out images themselves.
        query_groups: Group of each; held-out images of that group do not count.
        train: ``(M, D)``.
        held_out: ``(H, D)``.
        held_out_groups: Group of each.
    """
    nearest = nearest_neighbours(queries, train)
    crowded = crowding(queries, query_groups, held_out, held_out_groups)
    return Nearness(nearest.distance[:, 0] / crowded, nearest.row[:, 0])


def plain_nearness(queries: torch.Tensor, train: torch.Tensor) -> Nearness:
    """Return the distance of ``(N, D)`` queries to the nearest of ``(M, D)`` training images."""
    nearest = nearest_neighbours(queries, train)
    return Nearness(nearest.distance[:, 0], nearest.row[:, 0])


def calibrate(values: torch.Tensor, groups: Sequence[str], rate: float = FALSE_ALARMS, seed: int = 0) -> Threshold:
    """Choose the threshold that a share ``rate`` of real strangers falls below.

    Args:
        values: ``(H,)`` nearness of held-out real images to the training set.
        groups: Their patients or lesions.
        rate: Of false alarms, above 0 and below 1.
        seed: Of the halves.

    Raises:
        UserError: With fewer strangers than can show such a rate at all.
    """
    if not 0 < rate < 1:
        raise UserError(f"a false-alarm rate of {rate:g}: write a share above 0 and below 1, such as 0.01")
    if len(values) < MINIMUM_STRANGERS:
        raise UserError(f"{len(values)} held-out images: a threshold needs at least {MINIMUM_STRANGERS}")
    first, second = group_halves(groups, seed)
    half_of = {groups[row]: number for number, half in enumerate((first, second)) for row in half.tolist()}
    cuts = [float(torch.quantile(values[rows].double(), rate)) for rows in (slice(None), first, second)]
    return Threshold(cuts[0], (cuts[1], cuts[2]), half_of, rate, len(values))


def below(values: torch.Tensor, threshold: Threshold, groups: Sequence[str] | None = None) -> torch.Tensor:
    """Return ``(N,)`` float64, 1 where an image is nearer than the threshold.

    Args:
        values: ``(N,)`` nearness.
        threshold: See :func:`calibrate`.
        groups: Of held-out real images: each is then judged by the half that it is not in.
    """
    if groups is None:
        return (values < threshold.value).double()
    cuts = [threshold.halves[1 - threshold.half_of[group]] for group in groups]
    return (values < torch.tensor(cuts, dtype=torch.float64)).double()


def alarm_estimate(alarms: torch.Tensor, query_groups: Sequence[str], train_groups: Sequence[str]) -> Estimate:
    """Estimate the share of alarms ``(N,)``; ``train_groups`` are those of each image's nearest training image."""
    return share_interval(alarms, codes_of(query_groups), codes_of(train_groups))


def alarm_change(
    before: torch.Tensor,
    after: torch.Tensor,
    query_groups: Sequence[str],
    train_groups: Sequence[str],
) -> Estimate:
    """Estimate the change of the share of alarms of the same cases, in the same order."""
    return paired_interval(after - before, codes_of(query_groups), codes_of(train_groups))


def closest_pairs(nearness: Nearness, most: int = 12) -> list[int]:
    """Return the rows of the images that are nearest, each training image once, nearest first."""
    chosen: dict[int, int] = {}
    for row in nearness.value.argsort(stable=True).tolist():
        chosen.setdefault(int(nearness.row[row]), row)
        if len(chosen) == most:
            break
    return list(chosen.values())
