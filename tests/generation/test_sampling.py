from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import seeded_noise
from clinalign.generation.ddim import ddim_mean, gaussian_log_prob
from clinalign.generation.sampling import Trajectory, at_step, draw_trajectories

TEXTS = ["a dermoscopic image with melanoma", "a dermoscopic image with hair", "ink", "melanoma with ink", "nothing"]
SEEDS = [11, 22, 33, 44, 55]
STEPS = 4


def draw(generator: Any, rows: list[int], guidance: float = 3.0, **options: Any) -> Trajectory:
    condition = generator.encode_text([TEXTS[row] for row in rows])
    schedule = generator.schedule(STEPS, 1.0)
    return draw_trajectories(generator, condition, [SEEDS[row] for row in rows], schedule, guidance, **options)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_sample_does_not_depend_on_its_batch(generator: Any, batch: int) -> None:
    together = draw(generator, [0, 1, 2, 3, 4])
    rows = [draw(generator, list(range(5))[start : start + batch]) for start in range(0, 5, batch)]
    # not bitwise: matrix products sum in another order in another batch. Latents are of size 1 to 10 and a step adds
    # a few float32 roundings of 1e-7, so 2e-5 after four; another noise or prompt would move them by 0.1 or more.
    torch.testing.assert_close(torch.cat([row.latents for row in rows]), together.latents, rtol=0, atol=2e-5)
    # a log-probability divides that by sigma (0.02 at the last step), times a noise of size 1
    torch.testing.assert_close(torch.cat([row.log_probs for row in rows]), together.log_probs, rtol=0, atol=1e-3)


def test_a_sample_does_not_depend_on_the_order(generator: Any) -> None:
    there, back = draw(generator, [0, 1, 2, 3, 4]), draw(generator, [4, 3, 2, 1, 0])
    torch.testing.assert_close(back.latents.flip(0), there.latents, rtol=0, atol=2e-5)  # as above


def test_the_noise_is_the_samples_own(generator: Any) -> None:
    first = draw(generator, [0, 1]).latents[:, 0]
    assert torch.equal(first, seeded_noise([11, 22], generator.latent_shape, draws=STEPS + 1)[:, 0])


def test_guidance_1_is_the_conditional_branch(generator: Any) -> None:
    condition = generator.encode_text(TEXTS[:2])
    schedule = generator.schedule(STEPS, 1.0)
    x_t = seeded_noise(SEEDS[:2], generator.latent_shape)[:, 0]
    index = torch.tensor([0, 2])  # rows may be at different steps
    alone, spent = generator.predict(x_t, index, schedule, condition, 1.0)
    assert torch.equal(alone, generator.unet(x_t, schedule.timesteps[index], condition.embeddings).sample)
    assert spent == 2
    empty = generator.unet(x_t, schedule.timesteps[index], condition.empty.expand(2, -1, -1)).sample
    guided, spent = generator.predict(x_t, index, schedule, condition, 3.0)
    assert spent == 4
    # 1e-5: the two branches are one batch of four there and two of two here, and the difference is multiplied by three
    torch.testing.assert_close(guided, empty + 3.0 * (alone - empty), rtol=0, atol=1e-5)
    assert (guided - alone).abs().max() > 1e-3  # so that the test could fail


@pytest.mark.parametrize(("guidance", "expected"), [(1.0, 3 * STEPS), (3.0, 2 * 3 * STEPS)])
def test_network_evaluations_are_counted(
    generator: Any, monkeypatch: pytest.MonkeyPatch, guidance: float, expected: int
) -> None:
    rows = []
    forward = generator.unet.forward

    def counted(x: torch.Tensor, *others: Any, **named: Any) -> Any:
        rows.append(len(x))
        return forward(x, *others, **named)

    monkeypatch.setattr(generator.unet, "forward", counted)
    assert draw(generator, [0, 1, 2], guidance).evaluations == expected == sum(rows)


def test_the_kept_log_probabilities_are_those_of_the_kept_path(generator: Any) -> None:
    drawn = draw(generator, [0, 1, 2])
    assert drawn.latents.shape == (3, STEPS + 1, *generator.latent_shape)
    assert drawn.log_probs.shape == (3, STEPS)
    schedule, condition = generator.schedule(STEPS, 1.0), generator.encode_text(TEXTS[:3])
    step = torch.full((3,), 1)
    x_t, x_s = drawn.latents[:, 1], drawn.latents[:, 2]
    prediction, _ = generator.predict(x_t, step, schedule, condition, 3.0)
    at = [at_step(values, step, x_t) for values in (schedule.alpha_t, schedule.alpha_s, schedule.sigma)]
    again = gaussian_log_prob(x_s, ddim_mean(prediction, x_t, *at, generator.prediction_type), at[2])
    # the same batch and the same weights: the same numbers, but for how a stack lies in memory
    torch.testing.assert_close(again, drawn.log_probs[:, 1], rtol=0, atol=1e-6)


def test_without_keeping_only_the_last_latents_stay(generator: Any) -> None:
    kept, bare = draw(generator, [0, 1]), draw(generator, [0, 1], keep=False)
    assert torch.equal(bare.latents[:, 0], kept.latents[:, -1])
    assert bare.log_probs.shape == (2, 0)


def test_the_sum_is_the_mean_times_the_elements(generator: Any) -> None:
    elements = torch.tensor(generator.latent_shape).prod()
    summed, mean = draw(generator, [0], reduction="sum").log_probs, draw(generator, [0]).log_probs
    torch.testing.assert_close(summed, mean * elements)  # default float32 tolerance


def test_a_path_through_a_step_without_noise_is_refused(generator: Any) -> None:
    condition, schedule = generator.encode_text(TEXTS[:1]), generator.schedule(STEPS, 0.0)
    with pytest.raises(UserError, match=r"has no noise.*rollout.eta above 0"):
        draw_trajectories(generator, condition, SEEDS[:1], schedule, 1.0)
    last_silent = replace(schedule, sigma=torch.tensor([0.5, 0.5, 0.5, 0.0]))
    with pytest.raises(UserError, match=r"set_alpha_to_one to false"):
        draw_trajectories(generator, condition, SEEDS[:1], last_silent, 1.0)
