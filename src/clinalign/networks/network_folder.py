"""A trained network as a folder: its weights, and a card that says what it is and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from clinalign import __version__
from clinalign.core.errors import UserError
from clinalign.core.files import folder_in_progress, write_json

WEIGHTS_FILE, CARD_FILE = "model.safetensors", "card.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def hash_weights(module: nn.Module) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of all weights and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def save_network(
    folder: Path, module: nn.Module, card: Mapping[str, Any], extra: Callable[[Path], None] | None = None
) -> dict[str, Any]:
    """Write ``folder/model.safetensors`` and ``folder/card.json``, whole or not at all.

    Args:
        folder: An existing one is replaced as a whole.
        module: Its ``state_dict`` is written.
        card: Plain values; ``kind`` (what ``train reward`` calls it) and ``identity`` are needed.
        extra: Writes further files (a tokenizer) into the folder that it is given, under the same promise.

    Returns:
        The card as it was written: with ``weights_hash`` and the version of clinalign.
    """
    written = {**card, "weights_hash": hash_weights(module), "clinalign": __version__}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with folder_in_progress(folder) as temporary:
        save_file(state, str(temporary / WEIGHTS_FILE))
        write_json(temporary / CARD_FILE, written)
        if extra is not None:
            extra(temporary)
    return written


def read_card(folder: Path | str, kind: str = "") -> dict[str, Any]:
    """Read the card of a network's folder.

    Args:
        folder: Written by :func:`save_network`.
        kind: The kind that it must be of; any when empty.

    Raises:
        UserError: When a part is missing or damaged, only a pickle is there (never loaded: it can run code), or the
            network is of another kind.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no network in {folder}: make one with 'clinalign train reward {kind or 'KIND'}'")
    missing = [name for name in (WEIGHTS_FILE, CARD_FILE) if not (folder / name).is_file()]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles and WEIGHTS_FILE in missing:
        raise UserError(
            f"{folder / pickles[0]} is a pickle, which can run code when opened: only safetensors is loaded"
        )
    if missing:
        raise UserError(f"{folder} is not a trained network: {' and '.join(missing)} missing")
    try:
        card: dict[str, Any] = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        found = str(card["kind"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / CARD_FILE} cannot be read: train it again with 'clinalign train reward'") from error
    if kind and found != kind:
        raise UserError(f"{folder} holds a network of kind '{found}', and '{kind}' is needed: give another folder")
    return card


def fill_network(module: nn.Module, folder: Path, card: Mapping[str, Any]) -> None:
    """Load the weights of ``folder`` into ``module``, asserting that they are those of the card.

    Raises:
        UserError: When they are damaged, do not fit, or are others.
    """
    try:
        module.load_state_dict(load_file(str(folder / WEIGHTS_FILE)))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise UserError(f"cannot read the weights in {folder} ({type(error).__name__}): train it again") from error
    if hash_weights(module) != card.get("weights_hash"):
        raise UserError(f"the weights in {folder} are not those that its card describes: train the network again")
