"""Platt scaling of a classifier that was trained with weighted positives.

Training with positive weight w shifts a logit by log w. A straight line ``natural logit = scale * raw + shift`` is
fitted on held-out groups; taking the data's log prior odds off again gives logits at an even prior. With few positives
the line is held near what theory says (scale 1, shift -log w) by a Gaussian prior, so that a rare attribute is not
calibrated on chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.losses import positive_weights
from clinalign.networks.scores import expected_calibration_error

SCALE_DEVIATION, SHIFT_DEVIATION = 0.5, 1.0  # of the prior, in logits; a few dozen images outweigh it


@dataclass(frozen=True)
class Calibration:
    """The line of one attribute, and the calibration error before and after it on the data that it was fitted on."""

    scale: float
    shift: float
    log_prior_odds: float
    ece_before: float
    ece_after: float
    n: int


def fit_line(raw: torch.Tensor, labels: torch.Tensor, expected_shift: float) -> tuple[float, float]:
    """Return ``(scale, shift)`` of the most probable line from raw logits to natural logits.

    Args:
        raw: ``(N,)`` logits.
        labels: ``(N,)`` 0 or 1.
        expected_shift: Centre of the prior of the shift: minus the log of the positive weight in training.
    """
    raw, labels = raw.double(), labels.double()
    line = torch.tensor([0.0, expected_shift], dtype=torch.float64, requires_grad=True)  # log scale, shift
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        fit = F.binary_cross_entropy_with_logits(line[0].exp() * raw + line[1], labels, reduction="sum")
        prior = (line[0] / SCALE_DEVIATION) ** 2 / 2 + ((line[1] - expected_shift) / SHIFT_DEVIATION) ** 2 / 2
        total: torch.Tensor = fit + prior
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    log_scale, shift = line.detach().tolist()
    return math.exp(log_scale), shift


def calibrate(
    model: AttributeClassifier,
    raw: torch.Tensor,
    labels: torch.Tensor,
    known: torch.Tensor,
    train_labels: torch.Tensor,
    train_known: torch.Tensor,
    max_pos_weight: float,
) -> dict[str, Calibration]:
    """Fit every attribute's line and write it into ``model``.

    Args:
        model: The trained classifier; its ``scale``, ``shift`` and ``log_prior_odds`` are set.
        raw: ``(N, K)`` raw logits of the validation split.
        labels: ``(N, K)`` its labels.
        known: ``(N, K)`` bool.
        train_labels: ``(M, K)`` labels of the training split, whose prevalence is the natural prior (it is larger).
        train_known: ``(M, K)`` bool.
        max_pos_weight: As in training.

    Returns:
        The calibration by attribute name.
    """
    weights = positive_weights(train_labels, train_known, max_pos_weight)
    positives = (train_labels * train_known).sum(dim=0)
    odds = (positives + 0.5) / (train_known.sum(dim=0) - positives + 0.5)
    report = {}
    for k, name in enumerate(model.attribute_names):
        rows = known[:, k]
        scores, truth, prior = raw[rows, k], labels[rows, k], float(odds[k].log())
        scale, shift = fit_line(scores, truth, -float(weights[k].log()))
        model.scale[k], model.shift[k], model.log_prior_odds[k] = scale, shift - prior, prior
        before, after = torch.sigmoid(scores), torch.sigmoid(scale * scores + shift)
        errors = [expected_calibration_error(p, truth) if len(truth) else 0.0 for p in (before, after)]
        report[name] = Calibration(scale, shift, prior, errors[0], errors[1], len(truth))
    return report
