"""Sample k is the same picture whatever the batch or the process it is drawn in."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clinalign.tuning.rollout import Rollout, roll_out

STRAIGHT = {"rollout.steps": 3, "rollout.guidance": 3.0}
# five steps, of which the first two are shared, two are the window, and the last is left to the sampler
BRANCHING = {
    "rollout.steps": 5,
    "rollout.guidance": 3.0,
    "objective": {"name": "ddpo_window", "window": 2, "interval": 1, "branch": True},
}
EPOCH = 3  # of the window at the third step


def draw(tuner: Any, batch_size: int, part: slice = slice(None), epoch: int = EPOCH) -> Rollout:
    return roll_out(tuner.generator, tuner.requests(epoch)[part], tuner.objective.sampler(epoch), batch_size)


def count_rows(tuner: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    rows: list[int] = []
    forward = tuner.generator.unet.forward
    monkeypatch.setattr(
        tuner.generator.unet, "forward", lambda x, *rest, **more: (rows.append(len(x)), forward(x, *rest, **more))[1]
    )
    return rows


@pytest.mark.parametrize(("changes", "kept"), [(STRAIGHT, 3), (BRANCHING, 2)])
def test_sample_k_does_not_depend_on_the_batch(
    make_tuner: Callable[..., Any], changes: dict[str, Any], kept: int
) -> None:
    tuner = make_tuner(changes)
    whole = draw(tuner, 16)
    single = draw(tuner, 1)
    for other in (single, draw(tuner, 5)):
        assert torch.equal(other.noise, whole.noise)  # to the bit
        # the network's sums are taken in another order: float32 rounding of numbers near 3, over three to five steps
        torch.testing.assert_close(other.latents, whole.latents, rtol=0, atol=2e-5)
        torch.testing.assert_close(other.clean, whole.clean, rtol=0, atol=2e-5)
        torch.testing.assert_close(other.images, whole.images, rtol=0, atol=2e-5)
        torch.testing.assert_close(other.log_probs, whole.log_probs, rtol=0, atol=2e-5)
    alone = draw(tuner, 1, slice(6, 7))
    assert torch.equal(alone.latents[0], single.latents[6])
    assert torch.equal(alone.clean[0], single.clean[6])
    assert whole.latents.shape == (16, kept + 1, 4, 8, 8)
    assert whole.log_probs.shape == (16, kept)
    assert whole.first == (0 if changes is STRAIGHT else 2)


def test_pictures_of_a_prompt_share_the_path_up_to_the_window(make_tuner: Callable[..., Any]) -> None:
    rollout = draw(make_tuner(BRANCHING), 16)
    before, after = rollout.latents[:, 0].reshape(4, 4, 4, 8, 8), rollout.latents[:, 1].reshape(4, 4, 4, 8, 8)
    assert torch.equal(before, before[:, :1].expand_as(before))
    assert all(not torch.equal(before[0, 0], before[group, 0]) for group in (1, 2, 3))
    # the first step of the window has noise of each picture's own
    assert all(not torch.equal(after[0, 0], after[0, other]) for other in (1, 2, 3))
    straight = draw(make_tuner({**BRANCHING, "objective": {**BRANCHING["objective"], "branch": False}}), 16)
    assert not torch.equal(straight.latents[0, 0], straight.latents[1, 0])
    assert torch.equal(straight.noise, rollout.noise)  # branching changes where the window starts from, no more


def test_a_window_at_the_start_shares_the_first_noise(make_tuner: Callable[..., Any]) -> None:
    first = draw(make_tuner(BRANCHING), 16, epoch=1).latents[:, 0]
    assert torch.equal(first[0], first[3])
    assert not torch.equal(first[0], first[4])


@pytest.mark.parametrize("batch_size", [16, 5])
def test_evaluations_are_counted_as_they_are_made(
    make_tuner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    tuner = make_tuner(STRAIGHT)
    rows = count_rows(tuner, monkeypatch)
    assert draw(tuner, batch_size).evaluations == sum(rows) == 16 * 3 * 2  # images, steps, guidance


@pytest.mark.parametrize("batch_size", [16, 3])
def test_the_shared_path_is_drawn_once_a_group(
    make_tuner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    tuner = make_tuner(BRANCHING)
    rows = count_rows(tuner, monkeypatch)
    # four groups take two steps, then sixteen pictures take three, all with guidance
    assert draw(tuner, batch_size).evaluations == sum(rows) == 2 * (4 * 2 + 16 * 3)


def test_processes_draw_the_same_epoch_in_parts(make_tuner: Callable[..., Any]) -> None:
    from clinalign.tuning.plan import plan_epoch

    tuner = make_tuner(toy=True)
    whole = tuner.requests(3)
    assert tuner.my_share(whole) == whole
    tuner.plan = plan_epoch(tuner.config, 2)
    parts = []
    for index in range(2):
        tuner.accelerator = SimpleNamespace(process_index=index, num_processes=2)
        parts += tuner.my_share(tuner.requests(3))
    assert parts == whole
