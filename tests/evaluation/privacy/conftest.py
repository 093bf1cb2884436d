"""People as points: three looks, training and held-out patients, and generators that remember or do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch


class World(NamedTuple):
    """Features and groups of training, held-out and generated images."""

    train: torch.Tensor
    train_groups: list[str]
    held_out: torch.Tensor
    held_out_groups: list[str]
    generated: torch.Tensor
    groups: list[str]


def draw_people(
    seed: int, train: int = 80, held_out: int = 50, generated: int = 40, memorised: float = 0.0, per_case: int = 1
) -> World:
    """Draw everybody from one distribution; a share of the generated images copies training images instead."""
    g = torch.Generator().manual_seed(seed)
    looks = 2 * torch.randn(3, 6, generator=g)

    def draw(count: int) -> torch.Tensor:
        return looks[torch.randint(0, 3, (count,), generator=g)] + torch.randn(count, 6, generator=g)

    t, h, cases = draw(train), draw(held_out), generated // per_case
    images = draw(cases).repeat_interleave(per_case, 0)
    images = images + (0.3 * torch.randn(images.shape, generator=g) if per_case > 1 else 0)
    copied = (torch.rand(cases, generator=g) < memorised).repeat_interleave(per_case)
    sources = torch.randint(0, train, (cases,), generator=g).repeat_interleave(per_case)
    images[copied] = t[sources[copied]] + 0.02 * torch.randn(int(copied.sum()), 6, generator=g)
    return World(
        t, [f"t{i}" for i in range(train)], h, [f"h{i}" for i in range(held_out)], images,
        [f"q{i // per_case}" for i in range(len(images))],
    )  # fmt: skip


@pytest.fixture(scope="session")
def people() -> Callable[..., World]:
    return draw_people
