"""What every kind of ``train reward`` shares: its splits and backbones, its checks, and how its result is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from clinalign.core.errors import UserError, nearest
from clinalign.core.files import write_json
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.augment import RECIPES
from clinalign.networks.fit import FitResult
from clinalign.networks.network_folder import CARD_FILE

SPLITS = ("train", "judge")
# The two that learn most in the time on two cores, of two families, so that the evaluator does not share the reward's
# blind spots.
DEFAULT_BACKBONE = {"train": "test_resnet", "judge": "test_byobnet"}


class TrainedNetwork(Protocol):
    """A network that keeps a card and writes itself as a folder."""

    card: dict[str, Any]

    @property
    def identity(self) -> str:
        """Kind and weights hash."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and card."""
        ...


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


def augmentation_of(dataset: PreparedDataset) -> str:
    """Return the augmentation recipe of the dataset's modality, ``none`` where there is none."""
    return dataset.modality if dataset.modality in RECIPES else "none"


def how_long(result: FitResult) -> dict[str, Any]:
    """Return epochs, best epoch and seconds of a training, for its metrics."""
    return {
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 1),
    }


def save_trained(
    model: TrainedNetwork, out: Path, dataset: PreparedDataset, split: str, measured: dict[str, Any], **further: Any
) -> dict[str, Any]:
    """Write the network with its card, and ``metrics.json``.

    Args:
        model: The trained network.
        out: Folder to make.
        dataset: What it learned from.
        split: And which part of it.
        measured: Metrics on the test split.
        **further: More entries of the card: settings, history, calibration; ``metrics`` where the card's differ.

    Returns:
        The metrics, with the network's identity.
    """
    model.card = {
        "split": split,
        "dataset": dataset.fingerprint,
        "source": dataset.info.get("source"),
        "modality": dataset.modality,
        "metrics": measured,
        "intended_use": "reward or evaluator for research on synthetic images; not for diagnosis",
        **further,
    }
    model.save(out)
    metrics = {**measured, "identity": model.identity}
    write_json(out / "metrics.json", metrics)
    return metrics
