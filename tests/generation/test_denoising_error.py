from __future__ import annotations

from typing import Any

import pytest
import torch

from clinalign.generation.denoising_error import LEVELS, denoising_errors


class Oracle(torch.nn.Module):
    """A denoiser that knows one latent by heart and answers as if every image were that one."""

    def __init__(self, unet: Any, latent: torch.Tensor, cumulative: torch.Tensor) -> None:
        super().__init__()
        self.config, self.latent, self.cumulative = unet.config, latent, cumulative

    def forward(self, x_t: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> Any:
        alpha = self.cumulative[timesteps].view(-1, 1, 1, 1)
        noise = (x_t - alpha.sqrt() * self.latent) / (1 - alpha).sqrt()

        class Answer:
            sample = alpha.sqrt() * noise - (1 - alpha).sqrt() * self.latent

        return Answer


def test_an_image_known_by_heart_has_no_error_and_others_have(generator: Any) -> None:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    known = generator.encode_images(images[[1]])
    assert generator.prediction_type == "v_prediction"
    generator.unet = Oracle(generator.unet, known, generator.scheduler.alphas_cumprod)
    errors = denoising_errors(generator, images, ["a", "b", "c"])
    assert errors.shape == (3, len(LEVELS))
    assert errors[1].max() < 1e-8
    assert errors[[0, 2]].min() > 1e-4


def test_errors_belong_to_the_image_and_not_to_its_batch(generator: Any) -> None:
    images, texts = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), ["a", "b", "c", "d"]
    whole = denoising_errors(generator, images, texts, seed=3, levels=(0.3, 0.9), draws=1)
    parts = [denoising_errors(generator, images[i : i + 1], texts[i : i + 1], 3, (0.3, 0.9), 1) for i in range(4)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-6)
    same = denoising_errors(generator, images[[0, 0]], ["a", "a"], levels=(0.5,))
    assert same[0].item() == pytest.approx(same[1].item(), rel=1e-5)  # the same noise for all
    other = denoising_errors(generator, images, texts, seed=4, levels=(0.3, 0.9), draws=1)
    assert not torch.allclose(other, whole)
