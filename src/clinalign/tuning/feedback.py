"""Feedback: what turns scores into the learning signal. Comparative feedback is CXRL's RLCF (methods 2.4).

The functional form is not published (R); three are offered:

- ``difference``: ``s(x) - s(x_hat)``;
- ``win``: 1 where ``s(x) > s(x_hat) + margin``, 0 where it is below ``- margin``, 0.5 between;
- ``logistic``: ``sigmoid((s(x) - s(x_hat)) / tau)``, tau the running spread of the differences.

``win`` and ``logistic`` fade once the anchor is beaten, which also guards against over-optimisation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

Form = Literal["difference", "win", "logistic"]

# Scores of one picture computed in two batches differ by a few float32 roundings: so much is a tie.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Signal:
    """What one reward says of N pictures.

    Attributes:
        values: ``(N,)`` float32; without meaning where not valid.
        valid: ``(N,)`` bool.
    """

    values: torch.Tensor
    valid: torch.Tensor


def difference(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return ``own - other``, exactly 0 where they differ by rounding alone."""
    gap = own - other
    scale = torch.maximum(own.abs(), other.abs()).clamp_min(1.0)
    return torch.where(gap.abs() <= ROUNDING * scale, 0.0, gap)


def compare(gap: torch.Tensor, form: Form, margin: float, tau: float) -> torch.Tensor:
    """Return the signal of differences in score, of the same shape.

    Args:
        gap: Own score minus the other's.
        form: See the module.
        margin: Of ``win``: smaller differences are ties.
        tau: Of ``logistic``, positive.
    """
    if form == "difference":
        return gap
    if form == "win":
        return torch.where(gap > margin, 1.0, torch.where(gap < -margin, 0.0, 0.5))
    return torch.sigmoid(gap / tau)


def win_rate(own: Signal, other: Signal) -> float:
    """Return the share of pictures that score above their counterparts, ties half; NaN when none can be compared."""
    both = own.valid & other.valid
    gap = difference(own.values, other.values)[both]
    return float(compare(gap, "win", 0.0, 1.0).mean()) if len(gap) else math.nan


class RunningSpread:
    """Root mean square of all differences seen so far, exponentially forgotten.

    About zero and not about their mean: a policy that beats its anchor by the same amount everywhere is not noise.

    Args:
        decay: Weight of the past at each batch.
    """

    def __init__(self, decay: float = 0.9) -> None:
        self.decay, self.square, self.weight = decay, 0.0, 0.0

    def update(self, gap: torch.Tensor) -> float:
        """Take the differences of a batch into account and return the spread; 1 as long as there was none."""
        if len(gap) and float(gap.abs().max()) > 0:
            self.square = self.decay * self.square + (1 - self.decay) * float(gap.double().square().mean())
            self.weight = self.decay * self.weight + (1 - self.decay)
        return math.sqrt(self.square / self.weight) if self.weight else 1.0


class ComparativeFeedback:
    """Compares the scores of one reward with the anchor's.

    Args:
        form: See the module.
        margin: Of ``win``.
        tau: Of ``logistic``; ``None`` for the running spread.
        against: ``anchor`` compares each picture with the anchor's picture of the same prompt and first noise;
            ``group`` with the other pictures of its prompt, among which the anchor's is one more member (the win rate
            of Pref-GRPO), and takes the mean.
    """

    def __init__(
        self,
        form: Form = "logistic",
        margin: float = 0.0,
        tau: float | None = None,
        against: Literal["anchor", "group"] = "anchor",
    ) -> None:
        self.form, self.margin, self.tau, self.against = form, margin, tau, against
        self.spread = RunningSpread()

    def __call__(self, prompt_ids: Sequence[str], own: Signal, anchor: Signal) -> Signal:
        """Return the signal of N pictures.

        Args:
            prompt_ids: Prompt of each picture.
            own: Their scores.
            anchor: The anchor's scores for the same requests; with ``against: group`` one valid score a prompt is
                enough.
        """
        if self.against == "group":
            return self._against_group(prompt_ids, own, anchor)
        valid = own.valid & anchor.valid
        gap = difference(own.values, anchor.values)
        values = compare(gap, self.form, self.margin, self.tau or self.spread.update(gap[valid]))
        return Signal(torch.where(valid, values, 0.0), valid)

    def _against_group(self, prompt_ids: Sequence[str], own: Signal, anchor: Signal) -> Signal:
        members: defaultdict[str, list[int]] = defaultdict(list)
        for row, prompt in enumerate(prompt_ids):
            members[prompt].append(row)
        gaps: list[torch.Tensor] = []
        for row, prompt in enumerate(prompt_ids):
            rivals = [other for other in members[prompt] if other != row and bool(own.valid[other])]
            drawn = [other for other in members[prompt] if bool(anchor.valid[other])][:1]
            others = torch.cat([own.values[rivals], anchor.values[drawn]])
            gaps.append(difference(own.values[row].expand_as(others), others) if own.valid[row] else others[:0])
        tau = self.tau or self.spread.update(torch.cat(gaps) if gaps else own.values[:0])
        valid = torch.tensor([len(gap) > 0 for gap in gaps], dtype=torch.bool)
        values = [compare(gap, self.form, self.margin, tau).mean() if len(gap) else torch.zeros(()) for gap in gaps]
        return Signal(torch.stack(values) if values else own.values, valid)

    def state(self) -> dict[str, Any]:
        """Return the running spread, for the checkpoint."""
        return {"square": self.spread.square, "weight": self.spread.weight}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self.spread.square, self.spread.weight = state["square"], state["weight"]
