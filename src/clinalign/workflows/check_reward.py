"""Check a reward before it is trusted with a training run (``clinalign reward check``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.core.errors import UserError, nearest
from clinalign.core.files import write_json
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Reward
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.network_folder import read_card
from clinalign.rewards import REWARDS, load_reward
from clinalign.rewards.check import examine

CHECK_FILE = "check.json"
# Which reward a model of another library serves.
FOREIGN = {"torchxrayvision": "diagnostic", "transformers": "consistency", "open_clip": "consistency"}


def check_reward(
    reward: str | Path | Reward,
    data: Path | str,
    split: str = "test",
    count: int = 256,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, Any]:
    """Find out whether ``reward`` prefers right labels to wrong ones and real images to noise.

    Args:
        reward: Folder of a trained reward, the name of one without weights, or a reward object.
        data: Prepared dataset.
        split: The reward should not have been trained on it.
        count: Most images to look at, drawn at random.
        settings: The reward's settings, for a folder or a name.
        device: Where the reward computes.
        seed: Of the draw, the noise and the wrong labels.

    Returns:
        The report (see :class:`clinalign.rewards.check.CheckReport`) with ``dataset``, ``split`` and ``seed``. Where
        ``reward`` is a folder or file of weights, it is written there: see :func:`check_file`.

    Raises:
        UserError: When reward or data cannot be opened. A reward that does not pass is no error: see ``passed``.
    """
    loaded, folder = _open(reward, settings, device)
    dataset = PreparedDataset.open(data)
    cases = dataset.cases(split)
    chosen = np.random.default_rng(derive_seed(seed, "cases")).permutation(len(cases))[:count]
    cases = [cases[i] for i in sorted(chosen)]
    groups = dataset.info.get("attribute_groups", {})
    report = examine(loaded, dataset.images(cases), cases, groups, seed).as_json()
    report |= {
        "model": getattr(loaded, "model_identity", loaded.identity),
        "dataset": dataset.fingerprint,
        "split": split,
        "seed": seed,
    }
    if folder is not None:
        write_json(check_file(folder), report)
    return report


def check_file(weights: Path) -> Path:
    """Return where the report on a folder or file of weights lies: ``check.json`` in it, or beside it by its name."""
    return weights.with_name(f"{weights.name}.{CHECK_FILE}") if weights.is_file() else weights / CHECK_FILE


def require_check(reward: Reward, folder: Path | str | None) -> None:
    """Refuse a reward that never passed its check. Sanity rewards need none.

    A pass counts for the weights that were checked, with whatever score is made of them.

    Args:
        reward: The reward that a run is about to use.
        folder: Its folder, with ``check.json``; ``None`` for a reward without weights, which cannot carry a pass, so
            that the user must vouch for it.

    Raises:
        UserError: When it has not passed, with the command to run or the reasons that were found.
    """
    if getattr(reward, "sanity", False):
        return
    if folder is None:
        raise UserError(
            f"reward '{reward.name}' has no folder that could hold the proof of its check: run 'clinalign reward check "
            f"{reward.name} --data DIR' and, when it passes, set its require_check to false"
        )
    path = check_file(Path(folder))
    command = f"run 'clinalign reward check {folder} --data DIR'"
    if not path.is_file():
        raise UserError(f"reward '{reward.name}' in {folder} was never checked: {command}")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        passed, model, reasons = report["passed"], report["model"], report["reasons"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {command}") from error
    if model != getattr(reward, "model_identity", reward.identity):
        raise UserError(f"{path} is about other weights than those in the folder: {command}")
    if not passed:
        raise UserError(f"reward '{reward.name}' in {folder} did not pass its check: {'; '.join(reasons)}")


def _open(reward: str | Path | Reward, settings: Mapping[str, Any] | None, device: str) -> tuple[Reward, Path | None]:
    """Return the reward and its folder or file, if it has one."""
    if not isinstance(reward, (str, Path)):
        return reward, None
    place, backend = Path(reward), str((settings or {}).get("backend", "own"))
    if backend != "own" and place.exists():  # a model of another library has no card of ours
        if backend not in FOREIGN:
            raise UserError(f"unknown backend '{backend}': {nearest(backend, FOREIGN)}")
        return load_reward(FOREIGN[backend], place, settings, device), place
    if place.is_dir():
        return load_reward(read_card(place)["kind"], place, settings, device), place
    if place.is_file():
        raise UserError(f"{place} is a file: say whose weights it holds with --set backend=torchxrayvision")
    if str(reward) not in REWARDS.names() and len(place.parts) > 1:
        raise UserError(f"no reward folder at {place}: make one with 'clinalign train reward'")
    return load_reward(str(reward), None, settings, device), None
