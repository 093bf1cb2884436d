from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from clinalign.core.seeds import seeded_noise
from clinalign.generation.ddim import ddim_mean, gaussian_log_prob
from clinalign.generation.sampling import Trajectory, at_step, draw_trajectories

TEXTS = ["a dermoscopic image with melanoma", "a dermoscopic image with hair", "ink", "melanoma with ink", "nothing"]
SEEDS = [11, 22, 33, 44, 55]
STEPS = 4


def draw(generator: Any, rows: list[int], guidance: float = 3.0, eta: float = 1.0, **options: Any) -> Trajectory:
    condition = generator.encode_text([TEXTS[row] for row in rows])
    schedule = generator.schedule(STEPS, eta)
    options = {"keep": range(STEPS), **options}
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


@pytest.mark.parametrize("keep", [range(0), range(1), range(1, 3), range(3, 4)])
def test_only_the_kept_steps_stay_and_the_path_is_the_same(generator: Any, keep: range) -> None:
    whole, part = draw(generator, [0, 1]), draw(generator, [0, 1], keep=keep)
    states = range(keep.start, keep.stop + 1) if keep else range(0)  # before, between and after
    assert torch.equal(part.latents, whole.latents[:, states.start : states.stop])
    assert torch.equal(part.log_probs, whole.log_probs[:, keep.start : keep.stop])
    assert torch.equal(part.noise, whole.noise[:, keep.start : keep.stop])
    assert torch.equal(part.clean, whole.latents[:, -1])
    assert torch.equal(part.clean, whole.clean)


def test_the_kept_noise_is_what_led_from_state_to_state(generator: Any) -> None:
    drawn, schedule = draw(generator, [0, 1]), generator.schedule(STEPS, 1.0)
    noise = seeded_noise(SEEDS[:2], generator.latent_shape, draws=STEPS + 1)
    assert torch.equal(drawn.noise, noise[:, 1:])
    # log N(mu + sigma n; mu, sigma^2) = -n^2 / 2 - log(sigma) - log(2 pi) / 2, averaged over the latent. mu + sigma n
    # is a float32 of size 1 to 10, so n comes back within 1e-6 / sigma, and the smallest sigma is 0.02
    wanted = -drawn.noise.square().mean(dim=(2, 3, 4)) / 2 - schedule.sigma.log().float() - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(drawn.log_probs, wanted, rtol=0, atol=1e-4)


def test_a_path_can_stop_early_and_be_gone_on_with(generator: Any) -> None:
    whole = draw(generator, [0, 1, 2])
    begun = draw(generator, [0, 1, 2], keep=range(2, 4), stop=2)
    assert torch.equal(begun.clean, whole.latents[:, 2])
    ended = draw(generator, [0, 1, 2], keep=range(2, 4), start=begun.clean)
    assert torch.equal(ended.latents, whole.latents[:, 2:])
    assert torch.equal(ended.log_probs, whole.log_probs[:, 2:])
    assert begun.evaluations == ended.evaluations == 3 * 2 * 2  # rows, steps, guidance


def test_the_sum_is_the_mean_times_the_elements(generator: Any) -> None:
    elements = torch.tensor(generator.latent_shape).prod()
    summed, mean = draw(generator, [0], reduction="sum").log_probs, draw(generator, [0]).log_probs
    torch.testing.assert_close(summed, mean * elements)  # default float32 tolerance


def test_a_step_without_noise_is_drawn_and_has_no_log_probability(generator: Any) -> None:
    silent = draw(generator, [0], eta=0.0)
    assert silent.clean.isfinite().all()
    assert silent.log_probs.isnan().all()
    other = draw(generator, [0], eta=0.0, path_seeds=[99])  # the noise of the steps is not used
    assert torch.equal(other.clean, silent.clean)
