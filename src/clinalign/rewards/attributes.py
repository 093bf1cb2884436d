"""Does the image show what its case says? The reward of RL4Med-DDPO (Saremi et al., MICCAI 2025).

- ``hard``: r = (1/K) sum_k [ (sigmoid(f_k) > 0.5) == label_k ], the published form; it takes K + 1 values, so whole
  groups of images often tie;
- ``probability``: r = (1/K) sum_k p(label_k), our soft form, in ``[clip, 1 - clip]``;
- ``log_likelihood``: r = (1/K) sum_k log p(label_k), in ``[log clip, log(1 - clip)]``.

The sums run over the labels that the case knows and the classifier sees: an unknown label counts neither for nor
against. A case without any is invalid, not zero. Probabilities are at an even prior (see
:mod:`clinalign.networks.classifier`) and clipped, so that one confident mistake cannot outweigh all else and nothing is
gained by making a right answer ever more extreme (a road to adversarial images).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError, nearest
from clinalign.core.files import hash_json
from clinalign.core.types import Case, RewardResult
from clinalign.networks.classifier import AttributeClassifier
from clinalign.rewards.settings import check_settings, need_path

SCORES = ("hard", "probability", "log_likelihood")


class AttributeReward:
    """Mean agreement of a classifier with the case's known attributes.

    Differentiable in the images for the two soft scores: gradients flow when ``images`` requires them.

    Args:
        classifier: The trained classifier; it is put into evaluation mode and frozen.
        score: ``hard``, ``probability`` or ``log_likelihood``.
        attributes: The attributes that count; all that the classifier sees by default.
        clip: Probabilities are held in ``[clip, 1 - clip]``; between 0 and 0.5. Unused by ``hard``.
        batch_size: Images at once.

    Raises:
        UserError: For an unknown score or attribute, or a clip out of range.
    """

    name = "attributes"

    def __init__(
        self,
        classifier: AttributeClassifier,
        score: str = "hard",
        attributes: Sequence[str] | None = None,
        clip: float = 0.01,
        batch_size: int = 64,
    ) -> None:
        if score not in SCORES:
            raise UserError(f"unknown score '{score}' of reward '{self.name}': {nearest(score, SCORES)}")
        if not 0.0 < clip < 0.5:
            raise UserError(f"clip of reward '{self.name}' must lie between 0 and 0.5, got {clip}")
        if batch_size < 1:
            raise UserError(f"batch_size of reward '{self.name}' must be 1 or more, got {batch_size}")
        self.classifier = classifier.eval().requires_grad_(False)
        self.score = score
        self.attributes = tuple(attributes) if attributes is not None else classifier.attribute_names
        for name in self.attributes:
            if name not in classifier.attribute_names:
                hint = nearest(name, classifier.attribute_names)
                raise UserError(f"the classifier of reward '{self.name}' does not see '{name}': {hint}")
        if not self.attributes:
            raise UserError(f"reward '{self.name}' needs at least one attribute")
        self.clip = clip
        self.batch_size = batch_size
        self.model_identity = classifier.identity
        settings = hash_json([score, self.attributes, clip], length=8)
        self.identity = f"{self.name}:{score}:{settings}:{self.model_identity}"

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` of any size against ``cases``; parts are named by attribute.

        A part holds the score of one attribute, NaN where the case does not know it.
        """
        columns = [self.classifier.attribute_names.index(name) for name in self.attributes]
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()):
            batches = torch.split(images.to(self.classifier.device), self.batch_size)
            logits = torch.cat([self.classifier(batch)[:, columns] for batch in batches])
        answers = [[case.attributes.get(name) for name in self.attributes] for case in cases]
        labels = torch.tensor([[float(a or 0) for a in row] for row in answers], device=logits.device)
        known = torch.tensor([[a is not None for a in row] for row in answers], device=logits.device)
        each = agreement(logits, labels, self.score, self.clip)
        count = known.sum(dim=1)
        values = torch.where(known, each, 0.0).sum(dim=1) / count.clamp_min(1)
        hidden = each.detach().masked_fill(~known, torch.nan)
        return RewardResult(values, count > 0, {name: hidden[:, k] for k, name in enumerate(self.attributes)})


def agreement(logits: torch.Tensor, labels: torch.Tensor, score: str, clip: float) -> torch.Tensor:
    """Return how well each prediction agrees with its label, ``(N, K)``.

    Args:
        logits: ``(N, K)`` at an even prior.
        labels: ``(N, K)`` 0 or 1.
        score: One of :data:`SCORES`.
        clip: See :class:`AttributeReward`.
    """
    if score == "hard":
        return ((logits > 0) == (labels > 0.5)).float()
    towards = logits * (2.0 * labels - 1.0)  # the log odds of the label, whichever it is
    bound = torch.logit(torch.tensor(1.0 - clip)).item()
    towards = towards.clamp(-bound, bound)
    return torch.sigmoid(towards) if score == "probability" else F.logsigmoid(towards)


def attribute_reward(path: Path | None, settings: Mapping[str, Any], device: torch.device) -> AttributeReward:
    """Build the reward from the folder of a classifier; settings as in :class:`AttributeReward`."""
    check_settings("attributes", settings, ("score", "attributes", "clip", "batch_size"))
    return AttributeReward(AttributeClassifier.load(need_path("attributes", path), device), **settings)
