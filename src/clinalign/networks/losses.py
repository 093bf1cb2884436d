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


def mask_loss(logits: torch.Tensor, masks: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return binary cross-entropy plus one minus Dice of each region, averaged over the regions known in the batch.

    Dice = (2 sum p m + 1) / (sum p + sum m + 1), summed over all pixels of all known images of the batch (R: in single
    images most findings are absent, and their Dice says nothing). A mask that is not known adds nothing.

    Args:
        logits: ``(N, R, H, W)``.
        masks: ``(N, R, H, W)`` in ``[0, 1]``.
        known: ``(N, R)`` bool.

    Returns:
        A scalar.
    """
    weight = known[:, :, None, None].to(logits.dtype)
    pixels = logits.shape[-1] * logits.shape[-2]
    each = F.binary_cross_entropy_with_logits(logits, masks, reduction="none") * weight
    cross_entropy = each.sum((0, 2, 3)) / (known.sum(0).clamp_min(1) * pixels)
    chance = torch.sigmoid(logits) * weight
    masks = masks * weight
    shared = (chance * masks).sum((0, 2, 3))
    dice = (2.0 * shared + 1.0) / (chance.sum((0, 2, 3)) + masks.sum((0, 2, 3)) + 1.0)
    present = known.any(0)
    return ((cross_entropy + 1.0 - dice) * present).sum() / present.sum().clamp_min(1)
