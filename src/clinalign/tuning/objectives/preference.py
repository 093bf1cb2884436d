"""Diffusion-DPO on pairs of the epoch's own pictures (arXiv 2311.12908; methods 4.6).

With absolute feedback the better picture of a pair is the one that scores higher; with comparative feedback the one
that compares better with the anchor (RLCF).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clinalign.core.objective_config import PreferenceConfig
from clinalign.tuning.objectives.base import Rows, Terms, Turn, choose_steps
from clinalign.tuning.objectives.matching import Matching, mean_square
from clinalign.tuning.rollout import Rollout


def preference_loss(better: torch.Tensor, worse: torch.Tensor, beta: float) -> torch.Tensor:
    """Return ``-log sigmoid(-B (better - worse))`` of R pairs, ``(R,)``.

    Args:
        better: ``(R,)`` error of the policy less that of the anchor, on the better picture.
        worse: The same on the worse one, with the same noise.
        beta: B.
    """
    return -F.logsigmoid(-beta * (better - worse))


def pair_up(advantages: torch.Tensor, active: torch.Tensor, group: int, pairs: int) -> list[tuple[int, int]]:
    """Return (better, worse) pairs of each group: best with worst, second best with second worst, ...

    Args:
        advantages: ``(N,)`` of all pictures; those of a group lie next to each other.
        active: ``(N,)`` bool: pictures that carry a signal.
        group: Pictures in a group.
        pairs: Pairs a group, at most.
    """
    found = []
    for start in range(0, len(advantages), group):
        members = [number for number in range(start, min(start + group, len(advantages))) if bool(active[number])]
        members.sort(key=lambda number: (-float(advantages[number]), number))
        for place in range(min(pairs, len(members) // 2)):
            better, worse = members[place], members[-1 - place]
            if advantages[better] > advantages[worse]:
                found.append((better, worse))
    return found


class Preference(Matching[PreferenceConfig]):
    """``L = -log sigmoid(-B ((e_w - e_w_anchor) - (e_l - e_l_anchor))) + kl ||p - p_anchor||^2``."""

    logged = ("preference/accuracy", "preference/margin", "kl_trained")

    def rows(self, turn: Turn, rollout: Rollout) -> Rows:
        """Return one row a pair and noise level; the pairs of an epoch are dealt to its steps."""
        pairs = pair_up(turn.advantages.values, turn.advantages.active, turn.group, self.section.pairs)
        chosen = pairs[turn.update :: turn.updates]
        own = [pair for pair in chosen if turn.is_mine(pair[0])]
        steps = self.config.rollout.steps
        trained = self.section.trained_steps(steps)
        at = choose_steps(self.config.seed, turn.epoch, [better for better, _ in own], range(steps), trained)
        numbers = torch.tensor(own, dtype=torch.long).reshape(-1, 2).repeat_interleave(trained, dim=0)
        ones = torch.ones(len(numbers), device=rollout.clean.device)
        return Rows(numbers, numbers - turn.first, at.flatten(), ones, max(1, len(chosen) * trained), turn)

    def terms(self, rollout: Rollout, rows: Rows) -> Terms:
        """Return the loss of pairs; both pictures of a pair get the same noise."""
        sides = [self.noised(rollout, rows, rows.samples[:, side], rows.pictures[:, 0]) for side in (0, 1)]
        anchors = [self.anchor_prediction(side) for side in sides]
        gains, away = [], torch.zeros(len(rows), device=rollout.clean.device)
        for side, anchor in zip(sides, anchors):
            prediction = self.predict(side)
            gains.append(mean_square(prediction - side.target) - mean_square(anchor - side.target))
            away = away + 0.5 * mean_square(prediction - anchor)
        loss = preference_loss(gains[0], gains[1], self.section.beta) + self.kl.weight * away
        margin = (gains[1] - gains[0]).detach()
        log = {"preference/accuracy": (margin > 0).float(), "preference/margin": margin, "kl_trained": away.detach()}
        return Terms(loss, 2 * (3 + 1) * self.branches * len(rows), log)
