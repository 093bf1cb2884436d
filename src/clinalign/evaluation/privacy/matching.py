"""Making training and held-out images comparable: equally many of every kind.

A split by patient need not give both sides the same mixture: patients with many images, and with them their diagnoses,
tend to fall into the larger side. Then any picture of that diagnosis has its nearest real image there, and training
seems remembered though nothing is. So the two sides are compared within strata (diagnosis, findings, images a patient).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch


def keep_rates(train: Sequence[str], held_out: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``(M,)`` and ``(H,)`` float64 shares to keep so that either side has equally many of each stratum.

    Args:
        train: Stratum of each training image or patient.
        held_out: Of each held-out one. A stratum that only one side has is not kept at all.
    """
    counts = Counter(train), Counter(held_out)
    both = {name: min(counts[0][name], counts[1][name]) for name in counts[0] if name in counts[1]}
    first, second = (
        torch.tensor([both.get(name, 0) / count[name] for name in side], dtype=torch.float64)
        for side, count in zip((train, held_out), counts, strict=True)
    )
    return first, second


def matched(train: Sequence[str], held_out: Sequence[str]) -> int:
    """Return how many of one side can be matched with one of the other."""
    return int(sum((Counter(train) & Counter(held_out)).values()))
