from __future__ import annotations

import pytest
import torch

from clinalign.core import precision
from clinalign.core.errors import UserError
from clinalign.core.precision import autocast, bf16_is_fast, pick_device

CPU = torch.device("cpu")


def test_the_device_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device("cpu") == CPU
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device("auto").type == expected
    with pytest.raises(UserError, match=r"device 'cuda:1' was asked for, but torch sees no CUDA device: use --device"):
        pick_device("cuda:1")
    with pytest.raises(UserError, match=r"unknown device 'gpu': auto, cpu, cuda or cuda:0"):
        pick_device("gpu")


def computed_in(context: object) -> torch.dtype:
    with context:  # type: ignore[attr-defined]
        return torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype


def test_the_precision_asked_for_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert computed_in(autocast("fp32", CPU)) == torch.float32
    assert computed_in(autocast("bf16", CPU)) == torch.bfloat16
    for fast, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(precision, "bf16_is_fast", lambda device, fast=fast: fast)
        assert computed_in(autocast("auto", CPU)) == expected


def test_the_machine_is_asked_once() -> None:
    assert isinstance(bf16_is_fast("cpu"), bool)
    before = bf16_is_fast.cache_info().misses
    bf16_is_fast("cpu")
    assert bf16_is_fast.cache_info().misses == before
