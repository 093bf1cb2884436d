"""What every kind of ``train reward`` asks of its split and its output folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clinalign.core.errors import UserError, nearest
from clinalign.networks.network_folder import CARD_FILE

SPLITS = ("train", "judge")


def check_split(split: str) -> None:
    """Refuse a split that neither rewards nor evaluators are trained on.

    Raises:
        UserError: Naming the nearest one.
    """
    if split not in SPLITS:
        raise UserError(f"cannot train on split '{split}': {nearest(split, SPLITS)} ('judge' is for evaluators)")


def check_names(what: str, given: Iterable[str], known: Iterable[str], also: Iterable[str] = ()) -> None:
    """Refuse a setting that a training does not have.

    Args:
        what: What is trained.
        given: Names of the settings given.
        known: Names that are taken.
        also: Further names to suggest: arguments of the command itself.

    Raises:
        UserError: Naming the nearest.
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise UserError(f"training {what} has no setting '{name}': {nearest(name, [*names, *also])}")


def check_free(out: Path) -> None:
    """Refuse to write over anything but an earlier reward.

    Raises:
        UserError: When ``out`` is a file or holds something else.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / CARD_FILE).is_file()):
        raise UserError(f"{out} exists and is not a trained reward: choose another --out")
