"""The classifier: what it promises about shapes, gradients, identity, saving and its messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clinalign.core.errors import UserError
from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.network_folder import CARD_FILE, WEIGHTS_FILE

TINY = "test_byobnet"


def make(seed: int = 0) -> AttributeClassifier:
    torch.manual_seed(seed)
    return AttributeClassifier(["hair", "ink"], 32, TINY, exclusive={}).eval()


def test_images_of_any_size_give_one_logit_an_attribute() -> None:
    model = make()
    for side in (16, 32, 50):
        assert model(torch.rand(2, 3, side, side)).shape == (2, 2)
    assert model.features(torch.rand(2, 3, 16, 16)).ndim == 2


def test_gradients_reach_the_images() -> None:
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    make()(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_logits_stay_float32_under_autocast() -> None:
    images = torch.rand(2, 3, 32, 32)
    model = make()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        inside = model(images)
    assert inside.dtype == torch.float32
    # bfloat16 convolutions would differ in the third digit; float32 ones are the same operations in the same order
    torch.testing.assert_close(inside, model(images).detach(), rtol=1e-6, atol=1e-6)


def test_probabilities_do_not_depend_on_the_batch_size_or_the_mode() -> None:
    model, images = make().train(), torch.rand(5, 3, 32, 32)
    whole, parts = model.probabilities(images), model.probabilities(images, batch_size=2)
    assert model.training  # left as it was
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)  # another batch size, another order of adding up


def test_natural_probabilities_add_the_log_prior_odds() -> None:
    model, images = make(), torch.rand(3, 3, 32, 32)
    model.log_prior_odds.copy_(torch.tensor([0.0, -2.0]))
    even = torch.logit(model.probabilities(images))
    natural = torch.logit(model.probabilities(images, prior="natural"))
    torch.testing.assert_close(natural - even, torch.tensor([[0.0, -2.0]]).expand(3, 2), rtol=1e-4, atol=1e-4)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model, images = make(), torch.rand(3, 3, 32, 32)
    model.scale.fill_(1.5)
    model.save(tmp_path / "c")
    again = AttributeClassifier.load(tmp_path / "c")
    assert torch.equal(again(images), model(images))
    assert again.identity == model.identity == f"classifier:{TINY}:{model.weights_hash}"
    assert again.card["attribute_names"] == ["hair", "ink"]
    assert not again.training


def test_identity_follows_every_weight_and_the_calibration() -> None:
    model = make()
    before = model.identity
    model.shift[1] += 1e-3
    assert model.identity != before
    assert make(1).identity != before


def test_pretrained_weights_come_from_a_local_file_with_their_head_left_out(tmp_path: Path) -> None:
    source = make(3).backbone.state_dict()
    save_file({**source, "head.fc.weight": torch.zeros(1000, 7)}, str(tmp_path / "w.safetensors"))
    model = AttributeClassifier(["hair"], 32, TINY, weights=tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, source[name]) for name, tensor in model.backbone.state_dict().items())


def test_messages_of_construction(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, str(tmp_path / "w.safetensors"))
    with pytest.raises(UserError, match="at least one attribute"):
        AttributeClassifier([], 32, TINY)
    with pytest.raises(UserError, match="unknown backbone 'resnet1': did you mean 'resnet"):
        AttributeClassifier(["hair"], 32, "resnet1")
    with pytest.raises(UserError, match="do not fit"):
        AttributeClassifier(["hair"], 32, TINY, weights=tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"give a local \.safetensors file"):
        AttributeClassifier(["hair"], 32, TINY, weights=tmp_path / "w.bin")
    with pytest.raises(UserError, match="cannot look at 3 px"):
        AttributeClassifier(["hair"], 3, "test_vit")


@pytest.mark.parametrize("images", [torch.zeros(2, 1, 8, 8), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8).byte()])
def test_an_image_outside_the_contract_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"float of shape \(N, 3, H, W\)"):
        make()(images)


def test_messages_of_loading(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no network in"):
        AttributeClassifier.load(tmp_path / "none")
    folder = tmp_path / "c"
    make().save(folder)
    card = (folder / CARD_FILE).read_text()
    (folder / CARD_FILE).write_text(json.dumps({**json.loads(card), "weights_hash": "0"}))
    with pytest.raises(UserError, match="not those that its card describes"):
        AttributeClassifier.load(folder)
    (folder / CARD_FILE).write_text(json.dumps({**json.loads(card), "kind": "posture"}))
    with pytest.raises(UserError, match="of kind 'posture', and 'attributes' is needed"):
        AttributeClassifier.load(folder)
    (folder / CARD_FILE).write_text('{"kind": "attributes"}')
    with pytest.raises(UserError, match="cannot read the classifier"):
        AttributeClassifier.load(folder)
    (folder / CARD_FILE).write_text(card[:20])
    with pytest.raises(UserError, match="cannot be read"):
        AttributeClassifier.load(folder)
    (folder / CARD_FILE).unlink()
    with pytest.raises(UserError, match=f"{CARD_FILE} missing"):
        AttributeClassifier.load(folder)
    (folder / WEIGHTS_FILE).rename(folder / "model.bin")
    with pytest.raises(UserError, match="is a pickle"):
        AttributeClassifier.load(folder)
