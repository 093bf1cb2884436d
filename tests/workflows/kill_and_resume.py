"""Run by test_tune.py: tune, be killed at random moments, go on; libraries are imported once and each try is a fork.

Usage: kill_and_resume.py CONFIG.yaml UNINTERRUPTED KILLED SEED KILLS
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from clinalign.core.config import load_config
from clinalign.workflows.tune import tune


def start(config: Path, out: Path) -> int:
    """Begin or go on in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tune(load_config(config), out, resume=(out / "config.yaml").exists())
            code = 0
        finally:
            os._exit(code)
    return child


def finish(child: int) -> None:
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("a run that was not killed failed")


if __name__ == "__main__":
    import diffusers  # noqa: F401
    import peft  # noqa: F401
    import torch.utils.tensorboard

    torch.set_num_threads(1)
    config, whole, killed = (Path(argument) for argument in sys.argv[1:4])
    chance, kills = random.Random(int(sys.argv[4])), int(sys.argv[5])
    began = time.monotonic()
    finish(start(config, whole))
    duration = time.monotonic() - began
    for number in range(kills):
        child = start(config, killed)
        time.sleep(chance.uniform(0.3, 0.8) * duration)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kept = [path.name for path in (killed / "checkpoints").glob("epoch_*")]
        print(f"kill {number + 1}: {sorted(kept)}", flush=True)
    finish(start(config, killed))
