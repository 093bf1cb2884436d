"""Scores against scikit-learn and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from clinalign.networks.scores import (
    attribute_scores,
    auroc,
    auroc_interval,
    expected_calibration_error,
    mean_auroc,
)


def test_auroc_is_that_of_scikit_learn_with_ties() -> None:
    random = torch.Generator().manual_seed(0)
    scores = (torch.rand(200, generator=random) * 10).round()
    labels = (torch.rand(200, generator=random) < 0.3).float()
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_one_class_has_no_auroc_and_is_left_out_of_the_mean() -> None:
    outputs = torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    labels = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    known = torch.tensor([[True, True], [True, True], [False, True]])
    assert math.isnan(auroc(outputs[:, 1], labels[:, 1]))
    assert mean_auroc(outputs, labels, known) == 1.0  # the unknown third image would have made it 0.5
    assert math.isnan(mean_auroc(outputs[:, 1:], labels[:, 1:], known[:, 1:]))


def test_calibration_error_by_hand() -> None:
    # bin [.2, .3): confidence .25, frequency .5; bin [.9, 1]: confidence .95, frequency 1
    error = expected_calibration_error(torch.tensor([0.25, 0.25, 0.95, 0.95]), torch.tensor([0.0, 1.0, 1.0, 1.0]))
    assert error == pytest.approx(0.5 * 0.25 + 0.5 * 0.05)


def test_attribute_scores() -> None:
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0])
    natural = torch.tensor([0.4, 0.1, 0.2, 0.6])
    balanced = torch.tensor([0.8, 0.3, 0.4, 0.9])
    scores = attribute_scores(natural, balanced, labels)
    assert scores["accuracy"] == 0.5
    assert scores["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["f1"] == pytest.approx(f1_score(labels, natural > 0.5))
    assert (scores["n"], scores["positives"]) == (4, 1)


def test_what_cannot_be_known_is_none() -> None:
    empty = torch.zeros(0)
    assert attribute_scores(empty, empty, empty)["auroc"] is None
    absent = attribute_scores(torch.full((3,), 0.1), torch.full((3,), 0.1), torch.zeros(3))
    assert (absent["auroc"], absent["balanced_accuracy"], absent["f1"]) == (None, None, None)
    assert auroc_interval(torch.zeros(3), torch.zeros(3), ["a", "b", "c"], seed=0) is None


def test_interval_holds_the_value_and_widens_when_images_share_a_patient() -> None:
    random = torch.Generator().manual_seed(1)
    labels = (torch.arange(60) % 2).float()
    scores = labels + torch.randn(60, generator=random)
    alone = auroc_interval(scores, labels, [str(i) for i in range(60)], seed=0)
    copies = auroc_interval(scores.repeat(4), labels.repeat(4), [str(i) for i in range(60)] * 4, seed=0)
    as_if_new = auroc_interval(scores.repeat(4), labels.repeat(4), [str(i) for i in range(240)], seed=0)
    assert alone is not None
    assert copies is not None
    assert as_if_new is not None
    assert alone[0] < auroc(scores, labels) < alone[1]
    # four copies of each patient tell nothing new; counted as independent they would seem to
    assert copies[1] - copies[0] > 1.5 * (as_if_new[1] - as_if_new[0])
