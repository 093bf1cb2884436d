"""What the benchmarks share: where the parts lie, and how each update rule is set for them."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinalign.core.config import TuneConfig, parse_config

# Fitted on phantom-skin at 32 px (seed 0), each rule at the best of the rates tried; docs/benchmarks.md tells which.
RULES: dict[str, dict[str, Any]] = {
    "ddpo": {
        "objective": {"name": "ddpo", "clip_range": 1e-3, "ratio_norm": True},
        "train": {"epochs": 32, "learning_rate": 8e-3, "decay": "cosine"},
    },
    "ddpo_window": {
        "objective": {"name": "ddpo_window", "clip_range": 1e-3, "ratio_norm": True, "move": "random"},
        "train": {"epochs": 32, "learning_rate": 8e-3, "decay": "cosine"},
    },
    "awm": {
        "objective": {"name": "awm", "kl": 0.15},
        "train": {"epochs": 28, "learning_rate": 8e-3, "decay": "cosine"},
    },
    "nft": {
        "objective": {"name": "nft"},
        "train": {"epochs": 20, "learning_rate": 1e-2, "decay": "cosine"},
    },
    "draft": {
        "objective": {"name": "draft", "last_steps": 4},
        "train": {"epochs": 20, "learning_rate": 1e-2, "decay": "cosine"},
    },
    "preference": {
        "objective": {"name": "preference"},
        "train": {"epochs": 20, "learning_rate": 1e-2, "decay": "cosine"},
    },
}


@dataclass(frozen=True)
class Parts:
    """What a benchmark runs on.

    Attributes:
        data: Prepared dataset.
        base: Generator before tuning.
        reward: Attribute classifier that rewards.
        evaluator: Independent classifier.
    """

    data: Path
    base: Path
    reward: Path
    evaluator: Path

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Parts:
        """Take each part from its own option, or from the folder of a demo."""
        return cls(*(getattr(arguments, name) or arguments.demo / name for name in cls.__dataclass_fields__))


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Add the options that :class:`Parts` reads."""
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="folder that `clinalign demo` left")
    for name in Parts.__dataclass_fields__:
        parser.add_argument(f"--{name}", type=Path, help=f"{name} in place of the demo's")


def config_of(rule: str, parts: Parts, seed: int, changes: dict[str, Any] | None = None) -> TuneConfig:
    """Return the config of an update rule at the size of the demo.

    Args:
        rule: A name in :data:`RULES`.
        parts: What to run on.
        seed: Of the run.
        changes: Whole sections to lay over it, key by key.
    """
    tree: dict[str, Any] = {
        "seed": seed,
        "data": {"path": str(parts.data)},
        "generator": {"model": str(parts.base)},
        "rollout": {"steps": 10, "guidance": 1.0, "images_per_prompt": 8, "prompts_per_epoch": 12},
        "rewards": [
            {
                "name": "attributes",
                "path": str(parts.reward),
                "settings": {"score": "log_likelihood", "clip": 0.05},
            }
        ],
        "advantage": {"min_count": 8},
        "evaluate": {"every": 1000, "prompts": 1, "images_per_prompt": 1},
        **RULES[rule],
    }
    tree["train"] = {"checkpoint_every": 1000, **tree["train"]}
    for section, values in (changes or {}).items():
        tree[section] = {**tree[section], **values} if isinstance(values, dict) else values
    return parse_config(tree)


def machine() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def print_json(result: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(result, indent=1))
