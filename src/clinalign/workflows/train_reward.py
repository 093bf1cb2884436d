"""Train a reward, or on the ``judge`` split an evaluator, from a prepared dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinalign.core.errors import UserError, nearest
from clinalign.workflows.train_attributes import train_attributes
from clinalign.workflows.train_consistency import train_consistency
from clinalign.workflows.train_posture import train_posture
from clinalign.workflows.train_realism import train_realism
from clinalign.workflows.train_region import train_region

TRAINERS: dict[str, Callable[..., dict[str, Any]]] = {
    "attributes": train_attributes,
    "consistency": train_consistency,
    "posture": train_posture,
    "realism": train_realism,
    "region": train_region,
}


def train_reward(kind: str, data: Path | str, out: Path | str, split: str = "train", **settings: Any) -> dict[str, Any]:
    """Train the reward ``kind`` (``clinalign train reward KIND``).

    Args:
        kind: A name in :data:`TRAINERS`.
        data: Prepared dataset.
        out: Folder to make: ``model.safetensors``, ``card.json``, ``metrics.json``.
        split: ``train`` for a reward, ``judge`` for an evaluator.
        **settings: Further arguments of the kind's trainer.

    Returns:
        The metrics that are also in ``out/metrics.json``; ``summary`` says them in a line.

    Raises:
        UserError: For an unknown kind, and what its trainer raises.
    """
    if kind not in TRAINERS:
        raise UserError(f"unknown kind of reward '{kind}': {nearest(kind, TRAINERS)}")
    return TRAINERS[kind](data, out, split, **settings)
