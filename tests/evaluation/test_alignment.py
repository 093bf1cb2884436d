"""Alignment kernels against scikit-learn and by hand."""

from __future__ import annotations

import pytest
import torch
from sklearn import metrics

from clinalign.core.types import Case
from clinalign.evaluation import alignment

ONES = torch.ones(1, 4, dtype=torch.float64)


def test_labels_keep_unknown_apart_from_absent() -> None:
    cases = [Case("1", "", {"hair": 1, "ink": 0}), Case("2", "", {"hair": None})]
    labels, known = alignment.case_labels(cases, ["hair", "ink"])
    assert labels.tolist() == [[True, False], [False, False]]
    assert known.tolist() == [[True, True], [False, False]]


def test_match_share_and_apr_by_hand() -> None:
    decisions = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 1]]).bool()
    labels = torch.tensor([[1, 1], [1, 1], [0, 1], [0, 0]]).bool()
    known = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0]]).bool()
    # both right; one of two; the only known one; none known
    assert alignment.match_share(decisions, labels, known)[:3].tolist() == [1, 0.5, 1]
    assert alignment.all_match(decisions, labels, known)[:3].tolist() == [1, 0, 1]
    assert alignment.match_share(decisions, labels, known)[3].isnan()
    assert alignment.all_match(decisions, labels, known)[3].isnan()


def test_a_threshold_is_to_be_exceeded() -> None:
    assert alignment.decide(torch.tensor([[0.5, 0.5]]), torch.tensor([0.5, 0.4])).tolist() == [[False, True]]


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores with ties, labels, known mask and integer weights of 80 images."""
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.rand(80, generator=generator) * 10).round() / 10
    labels = torch.rand(80, generator=generator) < 0.3 + 0.4 * scores
    known = torch.rand(80, generator=generator) < 0.8
    weights = torch.randint(0, 3, (2, 80), generator=generator).double()
    return scores, labels, known, weights


@pytest.mark.parametrize("seed", range(3))
def test_auroc_equals_scikit_learn_with_ties_and_weights(seed: int) -> None:
    scores, labels, known, weights = random_case(seed)
    ours = alignment.auroc(scores, labels, known, weights)
    theirs = [metrics.roc_auc_score(labels[known], scores[known], sample_weight=row[known]) for row in weights]
    assert ours.tolist() == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_decision_scores_equal_scikit_learn(seed: int) -> None:
    scores, labels, known, weights = random_case(seed)
    decisions = scores > 0.5
    counts = alignment.confusion(decisions[:, None], labels[:, None], known[:, None], weights)
    for ours, theirs in (
        (alignment.accuracy, metrics.accuracy_score),
        (alignment.balanced_accuracy, metrics.balanced_accuracy_score),
        (alignment.f1, metrics.f1_score),
    ):
        expected = [theirs(labels[known], decisions[known], sample_weight=row[known]) for row in weights]
        assert ours(counts)[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


def test_what_is_undefined_is_nan() -> None:
    none = torch.zeros(4, dtype=torch.bool)
    counts = alignment.confusion(none[:, None], none[:, None], ~none[:, None], ONES)
    assert alignment.accuracy(counts).item() == 1.0
    assert alignment.balanced_accuracy(counts).isnan().all()
    assert alignment.f1(counts).isnan().all()
    assert alignment.auroc(torch.rand(4), none, ~none, ONES).isnan().all()


def test_an_unknown_label_changes_nothing_whatever_stands_in_its_place() -> None:
    scores, labels, known, weights = random_case(0)
    flipped = labels ^ ~known
    assert torch.equal(
        alignment.auroc(scores, labels, known, weights), alignment.auroc(scores, flipped, known, weights)
    )
    one = alignment.confusion((scores > 0.5)[:, None], labels[:, None], known[:, None], weights)
    other = alignment.confusion((scores > 0.5)[:, None], flipped[:, None], known[:, None], weights)
    assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_image_text_score_is_the_cosine_with_the_own_text() -> None:
    images, texts = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[5.0, 0.0], [0.0, 3.0]])
    assert alignment.image_text_score(images, texts).tolist() == pytest.approx([1.0, 0.5**0.5])
