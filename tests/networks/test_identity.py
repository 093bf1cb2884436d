from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.networks.identity import IdentityEncoder
from clinalign.networks.identity_pairs import TEMPERATURE, TwoViews, identity_loss
from clinalign.networks.verification import verification_auc, verify


def test_the_loss_by_hand() -> None:
    # patient 0 has two views at cosine 0.6; patient 1 has one, which has no positive and does not count
    embedded = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    labels = torch.tensor([[0.0], [0.0], [1.0]])
    shares = [math.exp(6) / (math.exp(6) + 1), math.exp(6) / (math.exp(6) + math.exp(8))]
    expected = -sum(map(math.log, shares)) / 2
    assert TEMPERATURE == 0.1
    assert identity_loss(embedded, labels, labels > 5).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_pulls_views_of_a_patient_together_and_strangers_apart() -> None:
    labels = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    together = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0], [1.0, 0.0], [0.0, 1.0]]), dim=1)
    crossed = together[[0, 1, 3, 2]]
    known = torch.ones_like(labels, dtype=torch.bool)
    assert identity_loss(together, labels, known) < identity_loss(crossed, labels, known)


def test_a_partner_is_another_picture_of_the_patient_each_equally_often() -> None:
    images = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    views = TwoViews(images, ["b", "a", "b", "c", "b", "a"], "none")
    rows = torch.tensor([0, 0, 2, 2, 4, 4, 1, 5, 3])
    low_and_high = torch.tensor([0.0, 0.99, 0.0, 0.99, 0.0, 0.99, 0.5, 0.5, 0.5])
    partners = views.partners(rows, low_and_high).tolist()
    assert {frozenset(partners[i : i + 2]) for i in (0, 2, 4)} == {frozenset(s) for s in ([2, 4], [0, 4], [0, 2])}
    assert partners[6:] == [5, 1, 3]  # the only one of c is its own partner


def test_a_batch_becomes_two_views_with_their_patients() -> None:
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 8, 8).clone() * 60
    views = TwoViews(images, ["a", "a", "b", "c"], "none")
    batch, labels = images[[1, 3]].float() / 255, torch.tensor([[1.0], [3.0]])
    pictures, patients = views(batch, labels, torch.Generator().manual_seed(0))
    assert torch.equal((pictures[:, 0, 0, 0] * 255).round(), torch.tensor([60.0, 180.0, 0.0, 180.0]))
    assert patients.flatten().tolist() == [0.0, 2.0, 0.0, 2.0]


def test_verification_compares_every_pair_once() -> None:
    embedded = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    found = verify(embedded, ["a", "a", "b"])
    assert (len(found.genuine), len(found.impostor)) == (1, 2)
    assert verification_auc(found) == 1.0
    assert math.isnan(verification_auc(verify(embedded, ["a", "b", "c"])))
    noise = torch.nn.functional.normalize(torch.randn(300, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert verification_auc(verify(noise, [str(i // 2) for i in range(300)])) == pytest.approx(0.5, abs=0.07)


def test_an_encoder_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = IdentityEncoder(16, "test_resnet", width=8).eval()
    model.card = {"split": "judge"}
    model.save(tmp_path / "encoder")
    again = IdentityEncoder.load(tmp_path / "encoder")
    images = torch.rand(3, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    assert again.identity == model.identity
    assert again.card["kind"] == "identity"
    torch.testing.assert_close(again(images).norm(dim=1), torch.ones(3))


def test_a_folder_that_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no identity encoder in .*clinalign train identity"):
        IdentityEncoder.load(tmp_path)
