"""Sample k is the same picture whatever the batch or the process it is drawn in."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clinalign.tuning.rollout import Rollout, roll_out


def draw(tuner: Any, batch_size: int, part: slice = slice(None)) -> Rollout:
    replay = tuner.replay
    return roll_out(
        tuner.generator, tuner.my_requests(1)[part], replay.schedule, 3.0, replay.reduction, batch_size, "fp32"
    )


def test_sample_k_does_not_depend_on_the_batch(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner({"rollout.steps": 3})
    whole = draw(tuner, 16)
    single = draw(tuner, 1)
    for other in (single, draw(tuner, 5)):
        torch.testing.assert_close(other.latents[:, 0], whole.latents[:, 0], rtol=0, atol=0)  # the noise, to the bit
        # the network's sums are taken in another order: float32 rounding of numbers near 3, over three steps
        torch.testing.assert_close(other.latents, whole.latents, rtol=0, atol=2e-5)
        torch.testing.assert_close(other.images, whole.images, rtol=0, atol=2e-5)
        torch.testing.assert_close(other.log_probs, whole.log_probs, rtol=0, atol=2e-5)
    alone = draw(tuner, 1, slice(6, 7))
    torch.testing.assert_close(alone.latents[0], single.latents[6], rtol=0, atol=0)
    assert whole.latents.shape == (16, 4, 4, 8, 8)
    assert whole.log_probs.shape == (16, 3)


def test_evaluations_are_counted_as_they_are_made(
    make_tuner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = make_tuner({"rollout.steps": 3})
    rows: list[int] = []
    forward = tuner.generator.unet.forward
    monkeypatch.setattr(
        tuner.generator.unet, "forward", lambda x, *rest, **more: (rows.append(len(x)), forward(x, *rest, **more))[1]
    )
    assert draw(tuner, 5).evaluations == sum(rows) == 16 * 3 * 2  # images, steps, guidance


def test_processes_draw_the_same_epoch_in_parts(make_tuner: Callable[..., Any]) -> None:
    from clinalign.tuning.plan import plan_epoch

    tuner = make_tuner()
    whole = tuner.my_requests(3)
    tuner.plan = plan_epoch(tuner.config, 2)
    parts = []
    for index in range(2):
        tuner.accelerator = SimpleNamespace(process_index=index, num_processes=2)
        parts += tuner.my_requests(3)
    assert parts == whole
