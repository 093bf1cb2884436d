"""Which number format is fast here: asked of the machine, not assumed."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import Literal

import torch

from clinalign.core.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]


def pick_device(wanted: str = "auto") -> torch.device:
    """Return the device: the one asked for, or CUDA where there is one, else the CPU.

    Raises:
        UserError: When the device asked for is not there, or is no device.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device '{wanted}' was asked for, but torch sees no CUDA device: use --device cpu")
    try:
        return torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"unknown device '{wanted}': auto, cpu, cuda or cuda:0") from error


@functools.cache
def bf16_is_fast(device_type: str) -> bool:
    """Tell whether bfloat16 convolutions run at least 1.5 times as fast as float32 ones, by timing both (40 ms)."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(dtype)
        images = torch.zeros(16, 64, 16, 16, dtype=dtype)
        with torch.no_grad():
            layer(images)
            start = time.perf_counter()
            for _ in range(3):
                layer(images)
        seconds[dtype] = time.perf_counter() - start
    return seconds[torch.bfloat16] * 1.5 < seconds[torch.float32]


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the autocast context for a precision; ``auto`` means bfloat16 where it is fast."""
    use = precision == "bf16" or (precision == "auto" and bf16_is_fast(device.type))
    return torch.autocast(device.type, torch.bfloat16) if use else contextlib.nullcontext()
