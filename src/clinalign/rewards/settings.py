"""Checking a reward's settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clinalign.core.errors import UserError, nearest


def check_settings(reward: str, settings: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise a :class:`UserError` that names the nearest legal word when ``settings`` holds an unknown key."""
    known = tuple(known)
    for key in settings:
        if key not in known:
            hint = nearest(key, known) if known else "it has none"
            raise UserError(f"reward '{reward}' has no setting '{key}': {hint}")


def need_path(reward: str, path: Path | None) -> Path:
    """Return ``path``.

    Raises:
        UserError: When there is none.
    """
    if path is None:
        raise UserError(f"reward '{reward}' needs the folder of its trained weights: give it a 'path'")
    return path


def refuse_path(reward: str, path: Path | None) -> None:
    """Raise a :class:`UserError` when a reward without weights is given a folder."""
    if path is not None:
        raise UserError(f"reward '{reward}' has no weights: leave out its path {path}")
