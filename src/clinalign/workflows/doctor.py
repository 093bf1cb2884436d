"""What is installed, what this machine can do, and what is missing: the first thing to send with a question."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from clinalign import __version__

CORE = ("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "safetensors", "datasets", "timm",
        "torchmetrics", "numpy", "scikit-learn", "tensorboard")  # fmt: skip
# extra of this package: module to look for, and what it is for
EXTRAS = {
    "fidelity": ("torch_fidelity", "Inception features for FID as in older papers"),
    "cxr": ("torchxrayvision", "DenseNet features of chest films"),
}


def doctor() -> dict[str, Any]:
    """Look at this installation.

    Returns:
        ``clinalign``, ``python``, ``platform``, ``versions`` (library to version, ``None`` when missing), ``devices``
        (name to ``name``, ``memory_gib`` and ``bf16_is_fast``), ``cpu_threads``, ``extras`` (name to ``installed``,
        ``use`` and ``install``), ``cache`` (place of downloaded models, free space, whether downloads are off),
        ``problems`` (one sentence each) and ``ok``.
    """
    versions = {name: _version(name) for name in CORE}
    problems = _problems(_requirements())
    return {
        "clinalign": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "devices": _devices() if versions["torch"] else {},
        "cpu_threads": _threads(),
        "extras": {
            name: {
                "installed": importlib.util.find_spec(module) is not None,
                "use": use,
                "install": f"pip install 'clinalign[{name}]'",
            }
            for name, (module, use) in EXTRAS.items()
        },
        "cache": _cache(),
        "problems": problems,
        "ok": not problems,
    }


def _version(name: str) -> str | None:
    """Return the installed version of a distribution, ``None`` when it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _requirements() -> Sequence[str]:
    """Return what this package says it needs; nothing when it runs from its sources without being installed."""
    try:
        return requires("clinalign") or ()
    except PackageNotFoundError:
        return ()


def _problems(requirements: Sequence[str]) -> list[str]:
    """Compare requirements such as ``torch>=2.6`` with what is installed; those of extras are left out."""
    from packaging.requirements import Requirement

    problems = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None:
            problems.append(f"{requirement.name} is missing: pip install '{requirement.name}{requirement.specifier}'")
        elif not requirement.specifier.contains(found, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            problems.append(f"{requirement.name} is {found}, {requirement.specifier} is needed: pip install '{wanted}'")
    return problems


def _devices() -> dict[str, Any]:
    """Return the CPU and the CUDA devices that torch sees."""
    import torch

    from clinalign.core.precision import bf16_is_fast

    devices: dict[str, Any] = {"cpu": {"name": platform.processor() or platform.machine(), "memory_gib": _memory(),
                                       "bf16_is_fast": bf16_is_fast("cpu")}}  # fmt: skip
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = {
            "name": facts.name,
            "memory_gib": round(facts.total_memory / 2**30, 1),
            "bf16_is_fast": bf16_is_fast("cuda"),
        }
    return devices


def _threads() -> int | None:
    """Return how many threads torch uses on the CPU."""
    try:
        import torch
    except ImportError:
        return os.cpu_count()
    return torch.get_num_threads()


def _memory() -> float | None:
    """Return the machine's memory in GiB where the system tells."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _cache() -> dict[str, Any]:
    """Return where downloaded models are kept, as the hub's own library says."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
    except ImportError:
        return {"path": None, "free_gib": None, "offline": None}
    place = Path(HF_HUB_CACHE)
    nearest = next(folder for folder in (place, *place.parents) if folder.exists())
    free = round(shutil.disk_usage(nearest).free / 2**30, 1)
    return {"path": str(place), "free_gib": free, "offline": bool(HF_HUB_OFFLINE)}
