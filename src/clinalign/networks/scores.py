"""What a classifier's outputs are worth: AUROC, F1, accuracy, calibration error, all over known labels only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch


def auroc(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the chance that a positive outscores a negative (ties count half), NaN without both classes.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` 0 or 1.
    """
    from scipy.stats import rankdata

    positive = labels.numpy().astype(bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return math.nan
    ranks = rankdata(scores.numpy())
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def mean_auroc(outputs: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> float:
    """Return the mean AUROC over the attributes where it is defined, NaN where it is for none; all ``(N, K)``."""
    values = [auroc(outputs[known[:, k], k], labels[known[:, k], k]) for k in range(outputs.shape[1])]
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def expected_calibration_error(probabilities: torch.Tensor, labels: torch.Tensor, bins: int = 10) -> float:
    """Return the mean distance between confidence and frequency over equal-width bins (Guo et al., ICML 2017).

    Args:
        probabilities: ``(N,)`` in ``[0, 1]``.
        labels: ``(N,)`` 0 or 1.
        bins: Number of bins.
    """
    p, y = probabilities.double().numpy(), labels.double().numpy()
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(p[which == b].mean() - y[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))


def attribute_scores(
    natural: torch.Tensor, balanced: torch.Tensor, labels: torch.Tensor
) -> dict[str, float | int | None]:
    """Score one attribute's predictions on its known images; a value that is undefined is ``None``.

    Args:
        natural: ``(N,)`` probabilities at the data's prevalence: accuracy, F1 and calibration error are theirs, at 0.5.
        balanced: ``(N,)`` probabilities at an even prior: balanced accuracy is theirs, at 0.5.
        labels: ``(N,)`` 0 or 1.
    """
    if not len(labels):
        return dict.fromkeys(("auroc", "accuracy", "balanced_accuracy", "f1", "ece"), None) | {"n": 0, "positives": 0}
    truth, called, even = labels.bool(), natural > 0.5, balanced > 0.5
    true_positives = int((called & truth).sum())
    wrong = int((called != truth).sum())
    both = bool(truth.any()) and not bool(truth.all())
    recalls = [(even[truth == side] == side).float().mean().item() for side in (True, False)] if both else []
    return {
        "auroc": auroc(balanced, labels) if both else None,
        "accuracy": 1.0 - wrong / len(labels),
        "balanced_accuracy": sum(recalls) / 2 if both else None,
        "f1": 2 * true_positives / (2 * true_positives + wrong) if true_positives + wrong else None,
        "ece": expected_calibration_error(natural, labels),
        "n": len(labels),
        "positives": int(truth.sum()),
    }


def auroc_interval(
    scores: torch.Tensor, labels: torch.Tensor, groups: Sequence[str], seed: int, draws: int = 200
) -> list[float] | None:
    """Return the 95 % percentile-bootstrap interval of the AUROC over groups, ``None`` where it is undefined.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` 0 or 1.
        groups: N patients or lesions; a group is drawn as a whole, for its images are not independent.
        seed: Of the draws.
        draws: Number of bootstrap draws; those without both classes are left out.
    """
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1]) if len(groups) else []
    random = np.random.default_rng(seed)
    values = []
    for _ in range(draws if members else 0):
        rows = torch.from_numpy(np.concatenate([members[g] for g in random.integers(len(members), size=len(members))]))
        values.append(auroc(scores[rows], labels[rows]))
    defined = [value for value in values if not math.isnan(value)]
    if not defined:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return [float(low), float(high)]
