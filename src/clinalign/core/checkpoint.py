"""Training state on disk: safetensors and JSON, never a pickle; a folder appears whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from clinalign.core.files import folder_in_progress

_STATE, _INFO = "state.safetensors", "state.json"


def save_state(folder: Path, tensors: Mapping[str, torch.Tensor], info: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able values as one folder, atomically.

    Args:
        folder: Final name, for example ``RUN/checkpoints/epoch_0010``.
        tensors: Tensors by name.
        info: Counters, statistics, versions.
    """
    with folder_in_progress(folder) as partial:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial / _STATE)
        (partial / _INFO).write_text(json.dumps(info, indent=2), encoding="utf-8")


def load_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what :func:`save_state` wrote."""
    return load_file(folder / _STATE), json.loads((folder / _INFO).read_text(encoding="utf-8"))


def latest_state(parent: Path) -> Path | None:
    """Return the checkpoint folder with the highest number, or ``None``."""
    found = [
        (int(match.group(1)), folder)
        for folder in (parent.iterdir() if parent.is_dir() else ())
        if (match := re.fullmatch(r"[a-z]+_(\d+)", folder.name)) and (folder / _INFO).exists()
    ]
    return max(found)[1] if found else None


def prune_states(parent: Path, keep: int) -> None:
    """Delete all but the ``keep`` newest checkpoints, and what a killed process had not finished writing."""
    for folder in parent.iterdir():
        if re.match(r"\.[a-z]+_\d+\.", folder.name):
            shutil.rmtree(folder, ignore_errors=True)
    folders = [folder for folder in parent.iterdir() if re.fullmatch(r"[a-z]+_\d+", folder.name) and folder.is_dir()]
    folders.sort(key=lambda folder: int(folder.name.split("_")[1]))  # by number: 10000 comes after 9999
    for folder in folders[: max(0, len(folders) - keep)]:
        shutil.rmtree(folder)


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put ``prefix/`` before every name."""
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the entries under ``prefix/``, without it."""
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's per-parameter state as flat tensors, for example ``3.exp_avg``."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, slots in optimizer.state_dict()["state"].items()
        for name, value in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` returned; hyper-parameters stay those of ``optimizer``."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
