"""Noise, targets and weights against numbers worked by hand."""

from __future__ import annotations

import pytest
import torch

from clinalign.generation.noising import add_noise, min_snr_weight, prediction_target


def test_noise_keeps_the_variance() -> None:
    # alpha 0.36: signal 0.6, noise 0.8. 0.6 * 2 + 0.8 * 1 = 2
    alpha = torch.tensor(0.36).reshape(1, 1, 1, 1)
    noisy = add_noise(torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1), alpha)
    assert noisy.item() == pytest.approx(2.0)


def test_targets_worked_by_hand() -> None:
    # alpha 0.36: signal 0.6, noise 0.8. v = 0.6 * 2 - 0.8 * 1 = 0.4
    clean, noise, alpha = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([0.36])
    assert prediction_target(clean, noise, alpha, "v_prediction").item() == pytest.approx(0.4)
    assert prediction_target(clean, noise, alpha, "epsilon") is noise
    assert prediction_target(clean, noise, alpha, "sample") is clean


def test_min_snr_weights_worked_by_hand() -> None:
    # SNR = alpha / (1 - alpha) = 9 and 1; gamma 5 clips the first to 5
    alpha = torch.tensor([0.9, 0.5]).reshape(2, 1, 1, 1)
    expected = {"epsilon": [5 / 9, 1.0], "v_prediction": [5 / 10, 1 / 2], "sample": [5.0, 1.0]}
    for prediction_type, weights in expected.items():
        torch.testing.assert_close(min_snr_weight(alpha, 5.0, prediction_type), torch.tensor(weights))
        assert torch.equal(min_snr_weight(alpha, 0.0, prediction_type), torch.ones(2))


def test_noisy_steps_keep_their_weight() -> None:
    # SNR = 9, 1 and 1/99; of v-prediction: min(SNR + 1, 6) / (SNR + 1)
    alpha = torch.tensor([0.9, 0.5, 0.01]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(min_snr_weight(alpha, 5.0, "v_prediction", True), torch.tensor([0.6, 1.0, 1.0]))
    assert float(min_snr_weight(alpha, 5.0, "v_prediction")[2]) == pytest.approx(0.01, rel=1e-3)
    assert torch.equal(min_snr_weight(alpha, 5.0, "epsilon", True), min_snr_weight(alpha, 5.0, "epsilon"))
