"""DRaFT: the reward's own gradient, through the last steps of the sampler (arXiv 2309.17400; methods 4.5).

Fast in the literature, and the first to over-fit its reward: hold it with ``kl``, few epochs, and a look at an
evaluator.
"""

from __future__ import annotations

import torch

from clinalign.core.config import TuneConfig
from clinalign.core.errors import UserError
from clinalign.core.objective_config import DraftConfig
from clinalign.core.precision import autocast
from clinalign.generation.sampling import step_mean
from clinalign.tuning.objectives.base import Objective, Policy, Rows, Terms, Turn
from clinalign.tuning.objectives.matching import mean_square
from clinalign.tuning.rollout import Rollout, Sampler


class Draft(Objective[DraftConfig]):
    """``L = -r(decode(x_0)) + kl ||p - p_anchor||^2``, differentiated through the last K steps.

    Advantages play no part; pictures without a valid score are left out. The KL term is of the first of the K steps.
    """

    logged = ("draft/reward", "kl_trained")

    def __init__(self, config: TuneConfig, section: DraftConfig, policy: Policy) -> None:
        super().__init__(config, section, policy)
        steps = config.rollout.steps
        self.last = range(steps - section.last_steps, steps)

    def sampler(self, epoch: int) -> Sampler:
        """Keep the last K steps."""
        rollout = self.config.rollout
        return Sampler(self.schedule, rollout.guidance, self.config.train.precision, keep=self.last)

    def rows(self, turn: Turn, rollout: Rollout) -> Rows:
        """Return one row a picture."""
        pictures = [number for number in range(turn.update, len(turn.valid), turn.updates) if bool(turn.valid[number])]
        own = torch.tensor([number for number in pictures if turn.is_mine(number)], dtype=torch.long)
        steps, ones = torch.full_like(own, self.last.start), torch.ones(len(own), device=rollout.clean.device)
        return Rows(own, own - turn.first, steps, ones, max(1, len(pictures)), turn)

    def terms(self, rollout: Rollout, rows: Rows) -> Terms:
        """Return minus the reward of pictures drawn again with a graph.

        Raises:
            UserError: When the reward has no gradient.
        """
        generator, sampler, samples = self.policy.generator, self.sampler(rows.turn.epoch), rows.samples
        schedule, condition = sampler.schedule, rollout.condition[samples]
        x_t, anchor = rollout.latents[samples, 0], None

        def predict(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            with autocast(sampler.precision, generator.device):
                return generator.predict(x, index, schedule, condition, sampler.guidance)[0].float()

        if self.kl.weight:
            with torch.no_grad(), self.policy.anchor():
                anchor = predict(x_t, rows.steps)
        away = torch.zeros(len(rows), device=x_t.device)
        for number, step in enumerate(self.last):
            index = torch.full_like(rows.steps, step)
            prediction = predict(x_t, index)
            if anchor is not None and number == 0:
                away = mean_square(prediction - anchor)
            mean, sigma = step_mean(generator, prediction, x_t, index, schedule)
            x_t = mean + sigma * rollout.noise[samples, number]
        images = generator.decode_with_gradient(x_t)
        result = self.policy.reward(images, [rollout.requests[sample].case for sample in samples.tolist()])
        if bool(result.valid.any()) and not result.values.requires_grad:
            names = ", ".join(self.policy.reward.rewards)
            raise UserError(
                f"objective draft needs the gradient of the reward, and {names} gave none: take a soft score "
                "(attributes: probability or log_likelihood), or another objective.name"
            )
        # a reward that failed for a moment is masked and has no graph; the pictures' own keeps the backward whole
        values = torch.where(result.valid, result.values, 0.0) + 0.0 * images.flatten(1).sum(1)
        passes = 3 * len(self.last) + (anchor is not None)
        log = {"draft/reward": values.detach(), "kl_trained": away.detach()}
        return Terms(self.kl.weight * away - values, passes * self.branches * len(rows), log)
