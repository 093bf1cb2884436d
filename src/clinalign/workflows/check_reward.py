"""Check a reward before it is trusted with a training run (``clinalign reward check``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clinalign.core.errors import UserError
from clinalign.core.files import write_json
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Reward
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.network_folder import read_card
from clinalign.rewards import REWARDS, load_reward
from clinalign.rewards.check import examine

CHECK_FILE = "check.json"


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
        ``reward`` is a folder, it is written there as ``check.json``.

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
        write_json(folder / CHECK_FILE, report)
    return report


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
    path = Path(folder) / CHECK_FILE
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
    """Return the reward and its folder, if it has one."""
    if not isinstance(reward, (str, Path)):
        return reward, None
    folder = Path(reward)
    if folder.is_dir():
        # a model of another library has no card of ours: the backend says that it is an image-text model
        foreign = (settings or {}).get("backend", "own") != "own"
        kind = "consistency" if foreign else read_card(folder)["kind"]
        return load_reward(kind, folder, settings, device), folder
    if str(reward) not in REWARDS.names() and len(folder.parts) > 1:
        raise UserError(f"no reward folder at {folder}: make one with 'clinalign train reward'")
    return load_reward(str(reward), None, settings, device), None
