"""What rules have in common that put fresh noise on finished pictures and look at the prediction of the network.

They need no probabilities of steps: pictures may be drawn by any sampler, without noise and with guidance, and trained
at a few noise levels without it. The levels are those that the sampler visits; the noise of a row depends on (seed,
epoch, picture, step) alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

from clinalign.core.objective_config import MatchingConfig
from clinalign.core.precision import autocast
from clinalign.core.seeds import derive_seed, seeded_noise
from clinalign.generation.conditioning import TextCondition
from clinalign.generation.ddim import split_prediction
from clinalign.generation.noising import add_noise, min_snr_weight, prediction_target
from clinalign.generation.sampling import at_step
from clinalign.tuning.objectives.base import Objective, Rows
from clinalign.tuning.rollout import Rollout

MatchingSection = TypeVar("MatchingSection", bound=MatchingConfig)
SNR_GAMMA = 5.0
SMALLEST_ERROR = 1e-5  # floor of the error that normalises itself (P of NFT)


@dataclass(frozen=True)
class Noised:
    """R finished pictures with fresh noise.

    Attributes:
        clean: ``(R, C, H, W)`` latents.
        x_t: The same with noise.
        target: What the network should predict.
        alpha: ``(R, 1, 1, 1)`` cumulative alpha.
        steps: ``(R,)`` step of the sampler's schedule.
        condition: Text of the rows.
    """

    clean: torch.Tensor
    x_t: torch.Tensor
    target: torch.Tensor
    alpha: torch.Tensor
    steps: torch.Tensor
    condition: TextCondition


class Matching(Objective[MatchingSection]):
    """Rules on the prediction for finished pictures with fresh noise."""

    @property
    def branches(self) -> int:
        """Guidance of the loss, which may differ from the rollout's."""
        return 1 if self.section.guidance == 1.0 else 2

    def noised(self, rollout: Rollout, rows: Rows, samples: torch.Tensor, pictures: torch.Tensor) -> Noised:
        """Put fresh noise on pictures.

        Args:
            rollout: This process's pictures.
            rows: The rows; their steps and epoch are used.
            samples: ``(R,)`` picture of each row within the rollout.
            pictures: ``(R,)`` picture whose number the noise depends on; pairs share one.
        """
        generator = self.policy.generator
        clean = rollout.clean[samples]
        seeds = [
            derive_seed(self.config.seed, "matching", rows.turn.epoch, picture, step)
            for picture, step in zip(pictures.tolist(), rows.steps.tolist())
        ]
        noise = seeded_noise(seeds, generator.latent_shape)[:, 0].to(clean)
        alpha = at_step(self.schedule.alpha_t, rows.steps, clean)
        target = prediction_target(clean, noise, alpha, generator.prediction_type)
        return Noised(clean, add_noise(clean, noise, alpha), target, alpha, rows.steps, rollout.condition[samples])

    def predict(self, noised: Noised) -> torch.Tensor:
        """Return the network's prediction, float32."""
        generator = self.policy.generator
        with autocast(self.config.train.precision, generator.device):
            prediction, _ = generator.predict(
                noised.x_t, noised.steps, self.schedule, noised.condition, self.section.guidance
            )
        return prediction.float()

    @torch.no_grad()
    def anchor_prediction(self, noised: Noised) -> torch.Tensor:
        """Return the anchor's prediction."""
        with self.policy.anchor():
            return self.predict(noised)

    def clean_error(self, noised: Noised, prediction: torch.Tensor) -> torch.Tensor:
        """Return the prediction's error in clean latents, ``(R, C, H, W)``: the same for every prediction type."""
        x0, _ = split_prediction(prediction, noised.x_t, noised.alpha, self.policy.generator.prediction_type)
        return x0 - noised.clean

    def weighed_error(
        self, noised: Noised, prediction: torch.Tensor, weight: str, size: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return one error a row, ``(R,)``.

        Args:
            noised: The rows.
            prediction: Of the network.
            weight: ``none``, ``snr`` or ``clean``; see :class:`~clinalign.core.objective_config.AwmConfig`.
            size: ``(R,)`` what ``clean`` divides by; the prediction's own error by default.
        """
        if weight == "clean":
            error = self.clean_error(noised, prediction)
            return mean_square(error) / (error_size(error) if size is None else size)
        error = mean_square(prediction - noised.target)
        if weight == "snr":
            error = error * min_snr_weight(noised.alpha, SNR_GAMMA, self.policy.generator.prediction_type)
        return error


def mean_square(difference: torch.Tensor) -> torch.Tensor:
    """Return the mean square of each row, ``(R,)``."""
    return difference.square().flatten(1).mean(1)


def error_size(error: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of each row, ``(R,)``, without a graph and never 0."""
    return error.detach().abs().flatten(1).mean(1).clamp_min(SMALLEST_ERROR)
