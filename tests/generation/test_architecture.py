from __future__ import annotations

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.generation.architecture import (
    ScratchSize,
    build_text_encoder,
    build_unet,
    build_vae,
    fit_tokenizer,
)

CORPUS = ["a dermoscopic image with melanoma (MEL)", "a dermoscopic image with hair", "melanoma with hair and ink"]
SMALL = ScratchSize(vae_channels=8, unet_channels=(16, 32), text_width=32, text_layers=1, latent_channels=4)


def test_the_tokenizer_reads_and_writes_its_corpus() -> None:
    tokenizer = fit_tokenizer(CORPUS)
    for text in CORPUS:
        ids = tokenizer(text).input_ids
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.eos_token_id not in ids[1:-1]
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.lower().replace(" ", "")


@pytest.mark.parametrize("text", ["zq", "42 mm?", "café", "µ 漢字", "x"])
def test_any_text_can_be_written(text: str) -> None:
    tokenizer = fit_tokenizer(CORPUS)
    ids = tokenizer(text).input_ids[1:-1]
    assert tokenizer.unk_token_id not in ids  # it is the end of the text, too
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_the_limit_fits_the_longest_text_in_steps_of_eight() -> None:
    tokenizer = fit_tokenizer(CORPUS)
    longest = max(len(tokenizer(text).input_ids) for text in CORPUS)
    assert longest < tokenizer.model_max_length <= longest + 8
    assert tokenizer.model_max_length % 8 == 0
    endless = " ".join(f"{number}" for number in range(200))
    assert fit_tokenizer([*CORPUS, endless]).model_max_length == 77  # never past that of Stable Diffusion


def test_the_same_corpus_gives_the_same_tokenizer_in_any_order() -> None:
    first = fit_tokenizer(CORPUS).backend_tokenizer.to_str()
    assert all(fit_tokenizer(texts).backend_tokenizer.to_str() == first for texts in (CORPUS, CORPUS[::-1], CORPUS * 2))


def test_the_vocabulary_has_a_largest_size() -> None:
    words = [f"word{number}x{number * 7919 % 1000}" for number in range(2000)]
    assert len(fit_tokenizer(words, vocabulary=600)) <= 600


@pytest.mark.parametrize("pixels", [16, 32, 64])
def test_the_parts_fit_together(pixels: int) -> None:
    size = ScratchSize(pixels, vae_channels=8, unet_channels=(16, 32), text_width=32, text_layers=1, latent_channels=4)
    tokenizer = fit_tokenizer(CORPUS)
    vae, unet, text_encoder = build_vae(size), build_unet(size), build_text_encoder(size, tokenizer)
    with torch.no_grad():
        latents = vae.encode(torch.zeros(2, 3, pixels, pixels)).latents
        assert latents.shape == (2, 4, 8, 8)  # always 8 x 8
        tokens = tokenizer(CORPUS[:2], padding="max_length", return_tensors="pt").input_ids
        embedded = text_encoder(tokens)[0]
        assert embedded.shape == (2, tokenizer.model_max_length, 32)
        assert unet(latents, torch.tensor([1, 999]), embedded).sample.shape == latents.shape
        assert vae.decode(latents).sample.shape == (2, 3, pixels, pixels)


def test_the_text_changes_the_prediction() -> None:
    unet = build_unet(SMALL).eval()
    latents = torch.zeros(1, 4, 8, 8)
    with torch.no_grad():
        one, other = (unet(latents, torch.tensor([5]), torch.full((1, 8, 32), value)).sample for value in (0.0, 1.0))
    assert (one - other).abs().max() > 1e-4


@pytest.mark.parametrize("pixels", [8, 24, 40, 100])
def test_sizes_that_cannot_be_halved_down_are_refused(pixels: int) -> None:
    with pytest.raises(UserError, match=f"images of {pixels} px .*: sizes are 16, 32, 64, 128 px"):
        ScratchSize(image_size=pixels).levels()


def test_the_text_is_pooled_at_32_px_alone() -> None:
    for pixels, pooled, channels in ((32, True, 8), (64, False, 16)):
        size = ScratchSize.of(pixels, 16)
        unet = build_unet(size)
        assert (unet.config.addition_embed_type == "text") is size.pooled_text is pooled
        assert unet.config.in_channels == channels
