from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clinalign.core.checkpoint import latest_state
from clinalign.core.errors import UserError
from clinalign.generation import pretrain_denoiser
from clinalign.generation.architecture import ScratchSize, build_vae
from clinalign.generation.noising import prediction_target
from clinalign.generation.pretrain_autoencoder import set_principal_components, train_autoencoder
from clinalign.generation.pretrain_denoiser import DenoiserTraining, caption_weights, train_denoiser

TEXTS = ["hair", "ink", "a ruler", "hair"]


def latents(rows: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    return torch.ones((len(rows), 4, 8, 8)) * rows.reshape(-1, 1, 1, 1) / 4


def train(generator: Any, folder: Path, text: bool = True, **settings: Any) -> float:
    given = {"steps": 6, "batch_size": 4, "checkpoint_every": 2, "precision": "fp32", **settings}
    return train_denoiser(generator, latents, TEXTS, DenoiserTraining(**given), 0, folder, text)


def weights(generator: Any) -> dict[str, torch.Tensor]:
    parts = {"unet": generator.unet, "text": generator.text_encoder}
    return {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}


@pytest.mark.parametrize("text", [True, False])
def test_interrupted_and_started_again_the_weights_are_bitwise_the_same(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bool
) -> None:
    from clinalign.generation.generator import Generator

    whole = Generator.load(tiny.model)
    loss = train(whole, tmp_path / "whole", text)

    calls = []

    def interrupted(*inputs: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 6:  # in the sixth step, after the checkpoint of the fourth
            raise KeyboardInterrupt
        return prediction_target(*inputs)

    monkeypatch.setattr(pretrain_denoiser, "prediction_target", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(Generator.load(tiny.model), tmp_path / "cut", text)
    found = latest_state(tmp_path / "cut")
    assert found is not None
    assert found.name == "step_0000004"
    assert len(list((tmp_path / "cut").iterdir())) == 1  # the older one is gone

    monkeypatch.undo()
    again = Generator.load(tiny.model)
    assert train(again, tmp_path / "cut", text) == loss
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name


def test_training_changes_what_it_should_and_leaves_it_frozen(generator: Any, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in weights(generator).items()}
    train(generator, tmp_path, text=False)
    after = weights(generator)
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("text"))
    assert not all(torch.equal(after[name], before[name]) for name in before if name.startswith("unet"))
    assert not any(parameter.requires_grad for parameter in after.values())
    assert not generator.unet.training


def test_it_learns(generator: Any, tmp_path: Path) -> None:
    first = train(generator, tmp_path / "a", steps=1, batch_size=16, snr_gamma=0.0)
    last = train(
        generator, tmp_path / "b", steps=16, batch_size=16, learning_rate=5e-3, checkpoint_every=1000, snr_gamma=0.0
    )
    # 0.59 and 0.29 when this was written; without learning, batches of 16 differ by about a tenth
    assert last < 0.8 * first


def test_pictures_of_rare_captions_are_drawn_more_often_up_to_a_limit() -> None:
    texts = ["nevus"] * 12 + ["melanoma"] * 4 + ["vascular lesion"]
    assert caption_weights(texts, 5.0).tolist() == [1.0] * 12 + [3.0] * 4 + [5.0]
    assert caption_weights(texts, 1.0).tolist() == [1.0] * 17


def test_a_balanced_training_draws_its_rows_by_weight(generator: Any, tmp_path: Path) -> None:
    seen: list[int] = []

    def serve(rows: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        seen.extend(rows.tolist())
        return torch.randn((len(rows), *generator.latent_shape), generator=chance)

    texts = ["nevus"] * 19 + ["vascular lesion"]
    settings = DenoiserTraining(steps=8, batch_size=32, precision="fp32", balance=19.0)
    train_denoiser(generator, serve, texts, settings, 0, tmp_path, True)
    assert 0.4 < seen.count(19) / len(seen) < 0.6  # half of the pictures; 1 in 20 without a balance


def test_a_training_that_diverges_says_so(generator: Any, tmp_path: Path) -> None:
    def broken(rows: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        return torch.full((len(rows), 4, 8, 8), float("nan"))

    settings = DenoiserTraining(steps=2, batch_size=2, precision="fp32")
    with pytest.raises(UserError, match=r"the loss is not a number at step 1: take a smaller --learning-rate"):
        train_denoiser(generator, broken, TEXTS, settings, 0, tmp_path, True)


def test_every_caption_is_trained_with_its_own_picture(
    generator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[int], torch.Tensor]] = []
    served: list[list[int]] = []
    forward = generator.text_encoder.forward

    def rows_of(rows: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        served.append(rows.tolist())
        return latents(rows, chance)

    def encode(tokens: torch.Tensor, **named: Any) -> Any:
        seen.append(([], tokens.clone()))
        return forward(tokens, **named)

    monkeypatch.setattr(generator.text_encoder, "forward", encode)
    settings = DenoiserTraining(steps=3, batch_size=3, caption_dropout=0.0, precision="fp32")
    train_denoiser(generator, rows_of, TEXTS, settings, 0, tmp_path, True)
    tokenizer = generator.tokenizer
    for rows, (_, tokens) in zip(served, seen):
        written = {tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens}
        assert written == {TEXTS[row] for row in rows}


def test_dropped_captions_are_empty(generator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    forward = generator.text_encoder.forward

    def encode(tokens: torch.Tensor, **named: Any) -> Any:
        seen.append(tokens)
        return forward(tokens, **named)

    monkeypatch.setattr(generator.text_encoder, "forward", encode)
    train(generator, tmp_path, steps=2, caption_dropout=1.0)
    assert all(generator.tokenizer.decode(row, skip_special_tokens=True) == "" for tokens in seen for row in tokens)


def test_the_encoder_is_the_principal_components_of_patches() -> None:
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 16, 16), generator=chance, dtype=torch.uint8)
    images[:, 0] //= 4  # some directions vary more than others
    vae = build_vae(ScratchSize(image_size=16, vae_channels=16, latent_channels=4))
    set_principal_components(vae, images)
    with torch.no_grad():
        latents = vae.encode(images.float() / 127.5 - 1).latents
    rows = torch.nn.functional.pixel_unshuffle(images.float() / 255 - 0.5, 2).permute(0, 2, 3, 1).reshape(-1, 12)
    _, _, directions = torch.linalg.svd(rows.double(), full_matrices=False)
    parts = rows.double() @ directions[:4].T
    expected = (parts - parts.mean(0)) * 0.5 * (parts.std(0) / parts.std(0)[0]).sqrt() / parts.std(0)
    found = latents.permute(0, 2, 3, 1).reshape(-1, 4).double()
    sign = (found * expected).sum(0).sign()  # a component and its opposite are equally good
    # float32 convolutions against float64 products, on latents of size 1
    torch.testing.assert_close(found, expected * sign, rtol=0, atol=1e-4)


def test_the_autoencoder_learns_and_its_latents_have_unit_variance() -> None:
    chance = torch.Generator().manual_seed(0)
    # smooth pictures: four random colours, one a quarter
    images = torch.randint(0, 256, (24, 3, 2, 2), generator=chance, dtype=torch.uint8).float()
    images = torch.nn.functional.interpolate(images, size=16).to(torch.uint8)
    size = ScratchSize(image_size=16, vae_channels=8, latent_channels=4)

    def fit(steps: int) -> tuple[float, Any]:
        torch.manual_seed(0)
        vae = build_vae(size)
        return train_autoencoder(vae, images, steps, seed=0, batch_size=8), vae

    early, _ = fit(1)
    psnr, vae = fit(60)
    assert psnr > early + 3  # dB: at least half of the error gone
    with torch.no_grad():
        latents = vae.encode(images.float() / 127.5 - 1).latents * vae.config.scaling_factor
    assert float(latents.std()) == pytest.approx(1.0, abs=1e-4)  # it was computed from these very pictures
    again, other = fit(60)
    assert again == psnr  # the same seed
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), other.parameters()))
    assert not vae.training
