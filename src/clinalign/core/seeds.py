"""Seeds that belong to a sample, not to a batch, a process or the time of day."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch

Key = int | str


def derive_seed(*keys: Key) -> int:
    """Return a 63-bit seed that depends only on ``keys``.

    Sample k of a run is drawn from ``derive_seed(run seed, epoch, prompt id, member)``, so it is the same whatever the
    batch size or the number of processes.

    Args:
        *keys: Integers and strings; order matters and ``1`` differs from ``"1"``.

    Returns:
        An integer in ``[0, 2**63)``.
    """
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seeded_noise(seeds: Iterable[int], shape: tuple[int, ...], draws: int = 1) -> torch.Tensor:
    """Draw standard normal noise, each sample from its own seed, on the CPU.

    Args:
        seeds: One seed for each of the N samples.
        shape: Shape of one draw, for example ``(C, H, W)``.
        draws: How many draws to take from each sample's stream (initial noise and one for each stochastic step).

    Returns:
        ``(N, draws, *shape)`` float32.
    """
    rows = [torch.randn((draws, *shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows) if rows else torch.empty((0, draws, *shape))
