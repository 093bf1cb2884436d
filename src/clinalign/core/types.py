"""The nouns that every layer shares: a case, a reward's result, and the protocols of plug-ins.

Images travel between layers as float32 tensors of shape ``(N, 3, H, W)`` with values in ``[0, 1]``; grey films repeat
their one channel three times. Whoever needs another range, size or channel count converts at its own door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch


@dataclass(frozen=True)
class Case:
    """One record of a prepared dataset.

    Attributes:
        case_id: Unique name of the case; statistics and seeds are keyed by it or by ``text_id``, never by the text.
        text: Prompt or report.
        attributes: Attribute name to ``1`` (present), ``0`` (absent) or ``None`` (unknown, never counted as absent).
        group_id: Patient or lesion; a group never lies on two sides of a split.
        split: ``train``, ``validation``, ``judge`` (evaluators only) or ``test``.
        subgroups: Subgroup column (``age_band``, ``sex``, ``site``, ``view``, ...) to value, ``None`` when unknown.
        image: Path of the image file, or ``None`` for a case that is only a prompt.
    """

    case_id: str
    text: str
    attributes: Mapping[str, int | None] = field(default_factory=dict)
    group_id: str = ""
    split: str = ""
    subgroups: Mapping[str, str | None] = field(default_factory=dict)
    image: Path | None = None


@dataclass(frozen=True)
class RewardResult:
    """Scores of a batch of images.

    Attributes:
        values: ``(N,)`` float32 scores; the entries that are not valid carry no meaning.
        valid: ``(N,)`` bool; a failed or unknown score is masked here and counted, never set to zero.
        parts: Named components of the score, each ``(N,)`` float32, for the log. May be empty.
    """

    values: torch.Tensor
    valid: torch.Tensor
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)


@runtime_checkable
class Reward(Protocol):
    """Scores images against their cases. Register one with ``clinalign.rewards.REWARDS`` or an entry point."""

    name: str
    identity: str  # what it is exactly: kind and hash of weights and settings; recorded in every run

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` against ``cases`` (length N)."""
        ...


class WeightedRewards(Reward, Protocol):
    """Several rewards as one weighted sum; its parts hold each reward's own score by name, NaN where not valid."""

    rewards: dict[str, Reward]
    weights: dict[str, float]


@runtime_checkable
class Extractor(Protocol):
    """Maps images to feature vectors for fidelity and diversity metrics."""

    identity: str  # extractor id, weights hash and preprocessing; numbers of different identity are never compared

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to ``(N, D)`` float32 features."""
        ...
