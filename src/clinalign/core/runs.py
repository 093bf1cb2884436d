"""The run folder: where everything about one tuning lives."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clinalign.core.checkpoint import latest_state
from clinalign.core.config import TuneConfig, dump_config, load_config
from clinalign.core.errors import UserError
from clinalign.core.files import write_text

# What may differ between a run and its continuation: how long it goes on, where it runs, how often it looks.
_MAY_CHANGE = {"train.epochs", "train.device", "train.checkpoint_every", "train.micro_batch", "rollout.batch_size",
               "evaluate.every", "evaluate.prompts", "evaluate.images_per_prompt", "evaluate.evaluator",
               "evaluate.guard", "evaluate.guard_tolerance", "evaluate.guard_diversity", "evaluate.guard_judge",
               "evaluate.guard_patience", "evaluate.front", "feedback.cache"}  # fmt: skip


class RunFolder:
    """Paths of a run, and its metrics file.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.manifest = path / "manifest.json"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.model = path / "model"
        self.report = path / "report"
        self.logs = path / "logs"
        self.guard = path / "guard.json"
        self.front = path / "front"

    def open(self, config: TuneConfig, resume: bool) -> Path | None:
        """Start the run here, or take it up again.

        Args:
            config: The resolved config; written to ``config.yaml``.
            resume: Go on with the run that the folder holds.

        Returns:
            The checkpoint to go on from, ``None`` for a fresh start.

        Raises:
            UserError: When the folder holds something else, another run, or a run and ``resume`` is off.
        """
        if self.path.is_file():
            raise UserError(f"{self.path} is a file: choose a folder with --out")
        # a hidden config is what a killed process left of one that it had not finished
        entries = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        occupied = any(not name.startswith(f".{self.config.name}.") for name in entries)
        if occupied and not self.config.exists():
            raise UserError(f"{self.path} is not empty and holds no run: choose another --out")
        if occupied and not resume:
            raise UserError(f"{self.path} holds a run: add --resume to go on with it, or choose another --out")
        if occupied:
            before = load_config(self.config).model_dump(mode="json")
            changed = _differences(before, config.model_dump(mode="json"))
            if changed:
                raise UserError(f"{self.path} holds another run: {', '.join(changed)} differ; choose another --out")
        write_text(self.config, dump_config(config))
        checkpoint = latest_state(self.checkpoints)
        self._cut_metrics(int(checkpoint.name.split("_")[1]) if checkpoint else -1)
        return checkpoint

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one JSON object to ``metrics.jsonl``; what is not finite, which JSON does not know, is left out."""
        row = {name: value for name, value in row.items() if not isinstance(value, float) or math.isfinite(value)}
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return all rows; a last line cut short by a crash is left out."""
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def _cut_metrics(self, epoch: int) -> None:
        """Drop the rows after ``epoch``: they will be written again."""
        if self.metrics.exists():
            kept = [json.dumps(row) + "\n" for row in self.read_metrics() if row["epoch"] <= epoch]
            write_text(self.metrics, "".join(kept))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the dotted names of the keys that differ and must not."""
    changed = []
    for key, value in after.items():
        old, place = before.get(key), f"{above}{key}"
        if isinstance(value, dict) and isinstance(old, dict):
            changed += _differences(old, value, f"{place}.")
        elif value != old and place not in _MAY_CHANGE:
            changed.append(place)
    return changed
