"""Calibration against data whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch

from clinalign.networks.calibration import calibrate, fit_line
from clinalign.networks.classifier import AttributeClassifier


def draw(count: int, scale: float, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw logits, and labels that follow sigmoid(scale * raw + shift) exactly."""
    random = torch.Generator().manual_seed(0)
    raw = torch.randn(count, generator=random) * 2
    return raw, (torch.rand(count, generator=random) < torch.sigmoid(scale * raw + shift)).float()


def test_the_line_is_found() -> None:
    raw, labels = draw(5000, 0.6, -1.5)
    scale, shift = fit_line(raw, labels, expected_shift=0.0)
    # standard errors of the fit are near 0.03 and 0.05 with 5,000 draws: three of them
    assert scale == pytest.approx(0.6, abs=0.09)
    assert shift == pytest.approx(-1.5, abs=0.15)


def test_without_data_the_theory_holds() -> None:
    assert fit_line(torch.zeros(0), torch.zeros(0), -2.0) == pytest.approx((1.0, -2.0))


def test_one_positive_does_not_decide() -> None:
    scale, shift = fit_line(torch.tensor([1.0]), torch.tensor([1.0]), -2.0)
    assert abs(scale - 1.0) < 0.5
    assert abs(shift + 2.0) < 1.0  # within one deviation of the prior


def test_calibration_lowers_the_error_and_centres_the_decision() -> None:
    raw, labels = draw(2000, 0.5, -2.0)
    model = AttributeClassifier(["hair"], 32, "test_byobnet")
    labels, known = labels[:, None], torch.ones(2000, 1).bool()
    line = calibrate(model, raw[:, None], labels, known, labels, known, 20.0)["hair"]
    assert line.ece_after < 0.05 < line.ece_before
    odds = labels.mean() / (1 - labels.mean())
    assert model.log_prior_odds.item() == pytest.approx(math.log(odds), abs=0.01)
    # balanced logit + log prior odds = natural logit
    assert (model.shift + model.log_prior_odds).item() == pytest.approx(line.shift, abs=1e-5)
