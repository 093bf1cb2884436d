"""clinalign: aligns medical text-to-image diffusion models with their prompts by reinforcement learning.

The commands are functions of the same names, loaded when first asked for: ``from clinalign import tune, evaluate``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_FUNCTIONS = {
    "ablate": "clinalign.workflows.ablate",
    "augment": "clinalign.workflows.augment",
    "check": "clinalign.workflows.prepare",
    "check_reward": "clinalign.workflows.check_reward",
    "demo": "clinalign.workflows.demo",
    "doctor": "clinalign.workflows.doctor",
    "dry_run": "clinalign.workflows.dry_run",
    "evaluate": "clinalign.workflows.evaluate",
    "evaluate_pair": "clinalign.workflows.evaluate",
    "load_config": "clinalign.core.config",
    "prepare": "clinalign.workflows.prepare",
    "report": "clinalign.workflows.report",
    "sample": "clinalign.workflows.sample",
    "train_base": "clinalign.workflows.train_base",
    "train_identity": "clinalign.workflows.train_identity",
    "train_reward": "clinalign.workflows.train_reward",
    "tune": "clinalign.workflows.tune",
}
__all__ = ["__version__", *_FUNCTIONS]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'clinalign' has no attribute '{name}'")
