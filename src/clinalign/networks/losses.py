"""Losses over labels of which some are unknown."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def positive_weights(labels: torch.Tensor, known: torch.Tensor, ceiling: float) -> torch.Tensor:
    """Return ``(K,)`` weights of the positives: known negatives over known positives, at most ``ceiling``.

    With this weight positives and negatives pull alike, so that logit 0 is the decision at an even prior.

    Args:
        labels: ``(N, K)`` 0 or 1.
        known: ``(N, K)`` bool; the rest is not counted.
        ceiling: Upper bound; its inverse is the lower bound.
    """
    positives = (labels * known).sum(dim=0)
    negatives = ((1.0 - labels) * known).sum(dim=0)
    return (negatives / positives.clamp_min(1.0)).clamp(1.0 / ceiling, ceiling)


def masked_bce(
    labels: torch.Tensor, known: torch.Tensor, ceiling: float
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return binary cross-entropy over known labels only, balanced by the counts in ``labels`` ``(N, K)``.

    The result takes ``(logits, labels, known)`` of a batch. An unknown label adds nothing: it is not a 0.
    """
    weights = positive_weights(labels, known, ceiling)

    def loss(logits: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        weight = weights.to(logits.device)
        each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=weight)
        # An attribute's weights average to one over the data, so that a rare one is not louder than a common one.
        each = each * 2.0 / (1.0 + weight)
        return (each * known).sum() / known.sum().clamp_min(1)

    return loss
