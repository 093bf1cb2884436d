"""DDPO on a window of steps: noise inside, deterministic outside (methods 4.1).

MixGRPO (arXiv 2507.21802) moves the window from the noisiest step on, Flow-GRPO-Fast (arXiv 2505.05470) takes a random
one, B2 (arXiv 2503.11240) begins with the last steps and reaches ever further back. On a UNet with an epsilon or v
prediction the DDIM step with eta inside and 0 outside is the same idea.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from clinalign.core.objective_config import DdpoWindowConfig
from clinalign.core.seeds import derive_seed
from clinalign.tuning.objectives.base import choose_steps
from clinalign.tuning.objectives.ddpo import StepPolicy
from clinalign.tuning.rollout import Sampler


def window_at(section: DdpoWindowConfig, steps: int, epoch: int, seed: int) -> range:
    """Return the steps of the window.

    Args:
        section: Size, move and interval.
        steps: Steps of the sampler.
        epoch: From 1.
        seed: The run's, for ``random``.
    """
    usable = steps - section.ignore_last
    size = min(section.window, usable)
    places = usable - size + 1
    passed = epoch - 1
    if section.move == "random":
        chance = torch.Generator().manual_seed(derive_seed(seed, "window", epoch))
        start = int(torch.randint(places, (), generator=chance))
    elif section.move == "backward":
        return range(max(0, usable - size - passed // section.interval), usable)
    elif section.move == "slide":
        start = passed // section.interval % places
    else:
        stays = [max(1, section.interval >> place) for place in range(places)]  # half as long at each place
        passed %= sum(stays)
        start = next(place for place in range(places) if passed < sum(stays[: place + 1]))
    return range(start, start + size)


class DdpoWindow(StepPolicy[DdpoWindowConfig]):
    """Only the window has noise, is kept and is trained, all of it."""

    def window(self, epoch: int) -> range:
        """Return the steps of the epoch's window."""
        return window_at(self.section, self.config.rollout.steps, epoch, self.config.seed)

    def sampler(self, epoch: int) -> Sampler:
        """Take the noise out of every other step."""
        window, rollout = self.window(epoch), self.config.rollout
        sigma = torch.zeros_like(self.schedule.sigma)
        sigma[window.start : window.stop] = self.schedule.sigma[window.start : window.stop]
        return Sampler(
            replace(self.schedule, sigma=sigma), rollout.guidance, self.config.train.precision,
            self.section.logprob_reduction, window, self.section.branch,
        )  # fmt: skip

    def choose_steps(self, epoch: int, pictures: Sequence[int]) -> torch.Tensor:
        """Train the whole window, in a random order."""
        window = self.window(epoch)
        return choose_steps(self.config.seed, epoch, pictures, window, len(window))
