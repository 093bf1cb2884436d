"""Run by test_processes.py under torch.distributed: several tunings, one after another, in the same two processes.

Usage: two_processes.py JOBS.json, a list of {"config": YAML, "out": DIR, "alarm": BOOL}; what each raised goes to
OUT.RANK.txt.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clinalign.core.config import load_config
from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.rewards import REWARDS
from clinalign.tuning.guards import Verdict
from clinalign.workflows import watch
from clinalign.workflows.tune import tune


class Unreliable:
    """Brightness; in the second process it fails, or gives up."""

    name = identity = "unreliable"

    def __init__(self, gives_up: bool) -> None:
        self.gives_up = gives_up

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        if os.environ["RANK"] == "1":
            raise UserError("the server is gone") if self.gives_up else RuntimeError("a blip")
        values = images.mean(dim=(1, 2, 3))
        return RewardResult(values, torch.ones(len(values), dtype=torch.bool), {"half": values / 2})


def alarm(rows: Sequence[Mapping[str, Any]], settings: Any) -> Verdict:
    """In place of the guard's judgement: stop after the first epoch."""
    return Verdict("stop", (), 1) if rows and rows[-1]["epoch"] else Verdict()


if __name__ == "__main__":
    torch.set_num_threads(1)
    review = watch.review
    REWARDS.add("blips", lambda path, settings, device: Unreliable(False))
    REWARDS.add("gives-up", lambda path, settings, device: Unreliable(True))
    for job in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        told = "fine"
        watch.review = alarm if job.get("alarm") else review
        try:
            tune(load_config(Path(job["config"])), job["out"])
        except UserError as error:
            told = str(error)
        Path(f"{job['out']}.{os.environ['RANK']}.txt").write_text(told, encoding="utf-8")
