"""What classifiers are worth on the test split: every metric as a function of resampling weights.

Values of one classifier are ``(B,)``, one a row of weights ``(B, N)``. AUROC, balanced accuracy, recall and F1 of a
cell are those of its class against the other classes within its subgroup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from clinalign.evaluation.alignment import auroc, balanced_accuracy, confusion, f1
from clinalign.evaluation.intervals import weighted_mean

BINS = 10
OVERALL = ("auroc", "balanced_accuracy", "even_balanced_accuracy", "f1", "accuracy", "recall", "ece", "brier")
OF_CELL = ("auroc", "balanced_accuracy", "even_balanced_accuracy", "recall", "even_recall", "f1")


@dataclass(frozen=True)
class Region:
    """Images and the class that a cell's metrics are about.

    Attributes:
        name: Suffix of the key: ``class=MEL`` or ``cell=MEL,age_band=<=30``.
        class_index: Column of the class.
        rows: ``(N,)`` bool: the subgroup.
        count: Test images of the class in it.
    """

    name: str
    class_index: int
    rows: torch.Tensor
    count: int


@dataclass(frozen=True)
class Exam:
    """The test images.

    Attributes:
        labels: ``(N, K)`` bool.
        known: ``(N, K)`` bool.
        exclusive: Exactly one class an image.
        regions: Classes and cells.
        pools: Name to the regions that are pooled under it.
    """

    labels: torch.Tensor
    known: torch.Tensor
    exclusive: bool
    regions: Sequence[Region]
    pools: Mapping[str, Sequence[Region]]


def exam_values(
    logits: torch.Tensor, shares: torch.Tensor, exam: Exam, weights: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return every metric of one classifier.

    Args:
        logits: ``(N, K)`` log-probabilities of exclusive classes, else logits.
        shares: ``(K,)`` share of each class in what it was trained on.
        exam: The test images.
        weights: ``(B, N)``.

    Returns:
        ``METRIC`` and ``METRIC/REGION`` to ``(B,)`` float64, NaN where undefined.
    """
    logits = logits.double()
    plain = decide_classes(logits, exam.exclusive)
    even = decide_classes(at_even_prior(logits, shares, exam.exclusive), exam.exclusive)
    found = _overall(logits, plain, even, exam, weights)
    inside: dict[str, dict[str, torch.Tensor]] = {}
    for region in exam.regions:
        values = _region(logits, plain, even, exam, region, weights)
        inside[region.name] = values
        found |= {f"{metric}/{region.name}": value for metric, value in values.items()}
    for name, regions in exam.pools.items():
        mass = [weights @ _positives(exam, region).double() for region in regions]
        for metric in (metric for metric in OF_CELL if metric != "f1"):
            found[f"{metric}/{name}"] = _pooled([inside[region.name][metric] for region in regions], mass)
    return found


def decide_classes(scores: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return ``(N, K)`` bool decisions: the highest of exclusive classes, else every logit above 0."""
    if not exclusive:
        return scores > 0
    return torch.nn.functional.one_hot(scores.argmax(1), scores.shape[1]).bool()


def at_even_prior(logits: torch.Tensor, shares: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Take the class frequencies of the training off the scores (logit adjustment, Menon et al., ICLR 2021, eq. 9).

    An arm that saw a class more often says it more often; at an even prior that alone changes nothing.

    Args:
        logits: ``(N, K)``.
        shares: ``(K,)``.
        exclusive: Whether the scores are log-probabilities of exclusive classes.
    """
    shares = shares.double().clamp(1e-6, 1 - 1e-6)
    return logits - (shares.log() if exclusive else shares.log() - (1 - shares).log())


def _overall(
    logits: torch.Tensor, plain: torch.Tensor, even: torch.Tensor, exam: Exam, weights: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the metrics of all test images; those of classes are means over classes."""
    counts = confusion(plain, exam.labels, exam.known, weights)
    recalls = counts.true_positive / (counts.true_positive + counts.false_negative)
    curves = torch.stack(
        [auroc(logits[:, k], exam.labels[:, k], exam.known[:, k], weights) for k in range(logits.shape[1])], 1
    )
    flat = weights @ exam.known.double()
    right = (plain == exam.labels) & exam.known
    if exam.exclusive:
        hit = (plain & exam.labels).any(1).double()
        accuracy = weighted_mean(hit, weights)
        probabilities = logits.exp()
        ece = _calibration_error(probabilities.max(1).values, hit, weights)
        brier = weighted_mean((probabilities - exam.labels.double()).square().sum(1), weights)
        balanced, balanced_even = recalls, _recalls(even, exam, weights)
    else:
        accuracy = ((weights @ right.double()) / flat).nanmean(1)
        probabilities = torch.sigmoid(logits)
        errors = (probabilities - exam.labels.double()).square() * exam.known
        brier = ((weights @ errors) / flat).nanmean(1)
        ece = torch.stack(
            [
                _calibration_error(probabilities[known, k], exam.labels[known, k].double(), weights[:, known])
                for k, known in enumerate(exam.known.T)
            ],
            1,
        ).nanmean(1)
        balanced = balanced_accuracy(counts)
        balanced_even = balanced_accuracy(confusion(even, exam.labels, exam.known, weights))
    return {
        "auroc": curves.nanmean(1),
        "balanced_accuracy": balanced.nanmean(1),
        "even_balanced_accuracy": balanced_even.nanmean(1),
        "f1": f1(counts).nanmean(1),
        "accuracy": accuracy,
        "recall": recalls.nanmean(1),
        "ece": ece,
        "brier": brier,
    }


def _recalls(decisions: torch.Tensor, exam: Exam, weights: torch.Tensor) -> torch.Tensor:
    """Return ``(B, K)`` recalls."""
    counts = confusion(decisions, exam.labels, exam.known, weights)
    return counts.true_positive / (counts.true_positive + counts.false_negative)


def _region(
    logits: torch.Tensor, plain: torch.Tensor, even: torch.Tensor, exam: Exam, region: Region, weights: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the metrics of one class within one subgroup: that class against the rest."""
    k = region.class_index
    rows = region.rows & exam.known[:, k]
    labels, known, inside = exam.labels[rows][:, [k]], exam.known[rows][:, [k]], weights[:, rows]
    counts = confusion(plain[rows][:, [k]], labels, known, inside)
    counts_even = confusion(even[rows][:, [k]], labels, known, inside)
    return {
        "auroc": auroc(logits[rows, k], labels[:, 0], known[:, 0], inside),
        "balanced_accuracy": balanced_accuracy(counts)[:, 0],
        "even_balanced_accuracy": balanced_accuracy(counts_even)[:, 0],
        "recall": (counts.true_positive / (counts.true_positive + counts.false_negative))[:, 0],
        "even_recall": (counts_even.true_positive / (counts_even.true_positive + counts_even.false_negative))[:, 0],
        "f1": f1(counts)[:, 0],
    }


def _positives(exam: Exam, region: Region) -> torch.Tensor:
    """Return ``(N,)`` bool: test images of the region's class in its subgroup."""
    return region.rows & exam.labels[:, region.class_index] & exam.known[:, region.class_index]


def _pooled(values: Sequence[torch.Tensor], mass: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean of regions weighted by their test images of the class, leaving out undefined ones."""
    stacked, weight = torch.stack(list(values)), torch.stack(list(mass))
    weight = weight * ~stacked.isnan()
    return (stacked.nan_to_num() * weight).sum(0) / weight.sum(0)


def _calibration_error(confidence: torch.Tensor, right: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return ``(B,)`` expected calibration errors over equal-width bins (Guo et al., ICML 2017)."""
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    inside = torch.nn.functional.one_hot(which, BINS).double()
    gaps = weights @ (inside * (confidence - right)[:, None])
    return gaps.abs().sum(1) / weights.sum(1)
