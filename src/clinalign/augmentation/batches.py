"""Which rows a classifier sees in which step, for every arm, so that arms of one seed share all that they can.

A plan is ``(steps, batch size)`` row numbers over real images followed by generated ones. The order of the real rows
depends on the seed alone: an arm with generated images sees the same real rows in the same order as the arm without.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed

Stratum = tuple[str, str]  # class and cell


def stream(rows: Sequence[int], length: int, seed: int) -> torch.Tensor:
    """Return ``(length,)`` of ``rows``: all in a random order, then all again in another, and so on.

    Raises:
        UserError: When there is no row.
    """
    if not rows:
        raise UserError("nothing to train on: no image in this part of the plan")
    members = torch.tensor(list(rows))
    generator = torch.Generator().manual_seed(seed)
    rounds = [members[torch.randperm(len(members), generator=generator)] for _ in range(-(-length // len(members)))]
    return torch.cat(rounds)[:length] if rounds else members[:0]


def natural_rows(real: int, generated: Sequence[int], slots: int, seed: int) -> torch.Tensor:
    """Return ``(slots,)`` rows as frequent as they are in the data, generated ones spread evenly among the real.

    Args:
        real: Number of real images; their rows are ``0 .. real - 1``.
        generated: Rows of the generated images; may be empty.
        slots: Steps times batch size.
        seed: Of the order.
    """
    share = len(generated) / (real + len(generated))
    before = (torch.arange(slots + 1, dtype=torch.float64) * share + 1e-9).floor()
    is_generated = before[1:] > before[:-1]
    rows = torch.empty(slots, dtype=torch.long)
    wanted = int(is_generated.sum())
    rows[~is_generated] = stream(range(real), slots - wanted, derive_seed(seed, "real"))
    if wanted:
        rows[is_generated] = stream(generated, wanted, derive_seed(seed, "generated"))
    return rows


def balanced_rows(
    real: Sequence[Stratum], generated: Sequence[tuple[int, str]], slots: int, seed: int, share: float = 0.5
) -> torch.Tensor:
    """Return ``(slots,)`` rows with each class as often, and its cells by the square root of their real images.

    With generated images the slots and their strata are the same; in a cell that has some, a slot becomes a generated
    image with probability ``share``. So the classes are as frequent with as without them, and what remains of a
    difference is due to the images.

    Args:
        real: Class and stratum of each real image.
        generated: Row and stratum of each generated image; may be empty.
        slots: Steps times batch size.
        seed: Of slots and orders.
        share: Of the slots of a filled cell that go to generated images.
    """
    members: dict[Stratum, list[int]] = defaultdict(list)
    for row, stratum in enumerate(real):
        members[stratum].append(row)
    made: dict[str, list[int]] = defaultdict(list)
    for row, name in generated:
        made[name].append(row)
    order = sorted(members)
    classes = Counter(class_name for class_name, _ in order)
    roots = {each: math.sqrt(len(members[each])) for each in order}
    totals = {name: sum(roots[each] for each in order if each[0] == name) for name in classes}
    weights = torch.tensor([roots[each] / totals[each[0]] / len(classes) for each in order], dtype=torch.float64)
    generator = torch.Generator().manual_seed(derive_seed(seed, "slots"))
    drawn = torch.multinomial(weights, slots, replacement=True, generator=generator)
    coin = torch.rand(slots, generator=generator) < share
    rows = torch.empty(slots, dtype=torch.long)
    for number, each in enumerate(order):
        here = drawn == number
        rows[here] = stream(members[each], int(here.sum()), derive_seed(seed, "stratum", *each))
        swapped = here & coin
        if made[each[1]] and bool(swapped.any()):
            rows[swapped] = stream(made[each[1]], int(swapped.sum()), derive_seed(seed, "generated", *each))
    return rows


def class_shares(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the ``(K,)`` share of each class among the rows of a plan, over its second half.

    The second half is what the network ends on, also where generated images come first.

    Args:
        rows: ``(slots,)``.
        labels: ``(N, K)`` of all images.
    """
    return labels[rows[len(rows) // 2 :]].mean(0)
