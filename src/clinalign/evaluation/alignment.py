"""Does the image show what its case says? Kernels over ``(N, K)`` attributes; unknown labels are masked everywhere.

Weights ``(B, N)`` are resampling counts (see :mod:`clinalign.evaluation.intervals`); each row gives one value, so a
thousand resamples cost one matrix product. Undefined values (no positive case known, say) are NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from clinalign.core.types import Case


class Confusion(NamedTuple):
    """Weighted counts of decisions over known labels, each ``(B, K)`` float64."""

    true_positive: torch.Tensor
    false_positive: torch.Tensor
    true_negative: torch.Tensor
    false_negative: torch.Tensor


def case_labels(cases: Sequence[Case], names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return labels ``(N, K)`` bool and known ``(N, K)`` bool of ``names``; an unknown label is False and not known."""
    rows = [[case.attributes.get(name) for name in names] for case in cases]
    labels = torch.tensor([[value == 1 for value in row] for row in rows]).reshape(len(rows), len(names))
    known = torch.tensor([[value is not None for value in row] for row in rows]).reshape(len(rows), len(names))
    return labels, known


def decide(probabilities: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Return ``(N, K)`` bool: probability above its attribute's threshold ``(K,)``, as in RL4Med-DDPO's reward."""
    return probabilities > thresholds


def match_share(decisions: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the ``(N,)`` share of an image's known attributes that are decided right; NaN where none is known."""
    right = ((decisions == labels) & known).sum(1).double()
    return right / known.sum(1)


def all_match(decisions: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return ``(N,)`` 1 where all known attributes are decided right, 0 where one is not, NaN where none is known.

    Over the artifact attributes its mean is the artifact prevalence rate, APR (RL4Med-DDPO, methods 3.6).
    """
    right = ((decisions == labels) | ~known).all(1).double()
    return torch.where(known.any(1), right, torch.nan)


def confusion(decisions: torch.Tensor, labels: torch.Tensor, known: torch.Tensor, weights: torch.Tensor) -> Confusion:
    """Count decisions ``(N, K)`` against labels for each row of ``weights`` ``(B, N)``."""

    def count(cell: torch.Tensor) -> torch.Tensor:
        return weights @ (cell & known).double()

    return Confusion(
        count(decisions & labels), count(decisions & ~labels), count(~decisions & ~labels), count(~decisions & labels)
    )


def accuracy(counts: Confusion) -> torch.Tensor:
    """Return ``(B, K)`` shares of right decisions."""
    tp, fp, tn, fn = counts
    return (tp + tn) / (tp + fp + tn + fn)


def balanced_accuracy(counts: Confusion) -> torch.Tensor:
    """Return ``(B, K)`` means of sensitivity and specificity; NaN where a class is missing."""
    tp, fp, tn, fn = counts
    return (tp / (tp + fn) + tn / (tn + fp)) / 2


def f1(counts: Confusion) -> torch.Tensor:
    """Return ``(B, K)`` F1 scores; NaN where no positive case is known."""
    tp, fp, _, fn = counts
    return torch.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), torch.nan)


def auroc(scores: torch.Tensor, labels: torch.Tensor, known: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the area under the ROC curve of one attribute: P(score of a positive > of a negative), ties counting half.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` bool.
        known: ``(N,)`` bool.
        weights: ``(B, N)``.

    Returns:
        ``(B,)`` float64, NaN where a class is missing.
    """
    scores, labels, weights = scores[known], labels[known], weights[:, known]
    levels, level = torch.unique(scores, sorted=True, return_inverse=True)
    empty = torch.zeros(len(weights), len(levels), dtype=torch.float64)
    positive = empty.index_add(1, level, weights * labels)
    negative = empty.index_add(1, level, weights * ~labels)
    below = negative.cumsum(1) - negative / 2
    return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


def image_text_score(image_embeddings: torch.Tensor, text_embeddings: torch.Tensor) -> torch.Tensor:
    """Return the ``(N,)`` float64 cosine between each image's embedding ``(N, D)`` and its own text's ``(N, D)``."""
    return torch.nn.functional.cosine_similarity(image_embeddings.double(), text_embeddings.double(), dim=1)
