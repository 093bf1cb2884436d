"""Condition tokens: appended behind the text, unseen by the anchor, saved with the adapter, taken by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clinalign.core.errors import UserError
from clinalign.core.seeds import seeded_noise
from clinalign.generation.ace import ACE_FILE, AdaptiveConditionEmbedding, first_tokens, load_ace, save_ace
from clinalign.generation.adapters import add_lora
from clinalign.generation.generator import Generator
from clinalign.workflows.export import export_model

TEXTS, SEEDS = ["hair", "no hair"], [1, 2]
WIDTH = 32  # of the tiny generator's cross-attention


def draw(generator: Generator, guidance: float = 3.0) -> torch.Tensor:
    return generator.generate(TEXTS, SEEDS, steps=3, guidance=guidance, eta=0.0)


def loud(generator: Generator, tokens: int = 2, unconditional: bool = True) -> Generator:
    """Give the generator tokens that are heard."""
    generator.add_ace(tokens, seed=0, unconditional=unconditional)
    assert generator.ace is not None
    with torch.no_grad():
        noise = torch.randn(generator.ace.tokens.shape, generator=torch.Generator().manual_seed(1))
        generator.ace.tokens.add_(10 * noise)
    return generator


def test_without_tokens_the_generator_is_the_anchor_bit_for_bit(generator: Generator) -> None:
    base = draw(generator)
    generator.add_ace(0, seed=0)
    assert generator.ace is None
    assert torch.equal(draw(generator), base)


def test_the_anchor_never_sees_the_tokens(generator: Generator) -> None:
    base = draw(generator)
    loud(generator)
    tuned = draw(generator)
    assert (tuned - base).abs().max() > 1e-2
    with generator.anchor():
        assert torch.equal(draw(generator), base)
    with pytest.raises(ZeroDivisionError), generator.anchor():
        raise ZeroDivisionError
    assert torch.equal(draw(generator), tuned)


def test_the_sequence_grows_by_k_behind_the_text() -> None:
    ace = AdaptiveConditionEmbedding(torch.ones(3, 4))
    embeddings = torch.randn(2, 5, 4)
    extended = ace.extend(embeddings)
    assert extended.shape == (2, 8, 4)
    assert torch.equal(extended[:, :5], embeddings)
    assert torch.equal(extended[:, 5:], torch.ones(2, 3, 4))
    extended.sum().backward()
    assert ace.tokens.grad is not None
    assert torch.equal(ace.tokens.grad, torch.full((3, 4), 2.0))  # each token serves both prompts


def test_the_first_tokens_lie_near_a_padding_token(generator: Generator) -> None:
    padding = generator.encode_text([""]).embeddings[0, 2:]
    tokens = first_tokens(padding, 4, seed=3)
    torch.testing.assert_close(tokens, padding.mean(0).expand(4, -1), rtol=0, atol=0.06)  # noise of 0.01
    assert len(tokens.unique(dim=0)) == 4
    assert torch.equal(tokens, first_tokens(padding, 4, seed=3))
    assert not torch.equal(tokens, first_tokens(padding, 4, seed=4))


def test_the_empty_branch_gets_them_by_a_switch(tiny: Any) -> None:
    both, text_alone = loud(Generator.load(tiny.model)), loud(Generator.load(tiny.model), unconditional=False)
    assert torch.equal(draw(both, guidance=1.0), draw(text_alone, guidance=1.0))  # no empty branch at all
    assert (draw(both) - draw(text_alone)).abs().max() > 1e-3
    # by hand: empty + w (text - empty), the empty branch without tokens
    ace, schedule = text_alone.ace, text_alone.schedule(3, 0.0)
    assert ace is not None
    condition = text_alone.encode_text(TEXTS)
    x, index = torch.randn(2, *text_alone.latent_shape), torch.zeros(2, dtype=torch.long)
    found, spent = text_alone.predict(x, index, schedule, condition, 3.0)
    empty = text_alone.unet(x, schedule.timesteps[index], condition.empty.expand_as(condition.embeddings)).sample
    text = text_alone.unet(x, schedule.timesteps[index], ace.extend(condition.embeddings)).sample
    torch.testing.assert_close(found, empty + 3.0 * (text - empty), rtol=0, atol=1e-5)
    assert spent == 4


@pytest.mark.parametrize("unconditional", [True, False])
def test_they_are_saved_and_loaded_with_the_adapter(
    tiny: Any, generator: Generator, tmp_path: Path, unconditional: bool
) -> None:
    base = draw(generator)
    add_lora(generator.unet, 2, "attention", seed=0)
    loud(generator, unconditional=unconditional)
    export_model(generator, str(tiny.model), tmp_path / "model")
    opened = Generator.load(tmp_path / "model")
    assert torch.equal(draw(opened), draw(generator))
    assert torch.equal(draw(Generator.load(tmp_path / "model", adapter=False)), base)
    assert opened.identity != Generator.load(tiny.model).identity


def test_plain_diffusers_takes_them_as_prompt_embeddings(tiny: Any, generator: Generator, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    add_lora(generator.unet, 2, "attention", seed=0)
    loud(generator)
    export_model(generator, str(tiny.model), tmp_path / "model")
    ours = draw(generator)[:1]
    noise = seeded_noise(SEEDS[:1], generator.latent_shape, draws=4)[:, 0]

    pipe = DiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.load_lora_weights(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    tokens = load_file(tmp_path / "model" / ACE_FILE)["tokens"]
    text, empty = (
        torch.cat([words, tokens.expand(len(words), -1, -1)], dim=1)
        for words in pipe.encode_prompt(TEXTS[0], "cpu", 1, True)
    )
    images = pipe(
        prompt_embeds=text, negative_prompt_embeds=empty, latents=noise, eta=0.0, num_inference_steps=3,
        guidance_scale=3.0, output_type="np",
    ).images  # fmt: skip

    torch.testing.assert_close(ours, torch.from_numpy(images).permute(0, 3, 1, 2), rtol=0, atol=1e-4)


def test_messages(tmp_path: Path) -> None:
    ace = AdaptiveConditionEmbedding(torch.zeros(2, WIDTH))
    save_ace(ace, tmp_path)
    with pytest.raises(UserError, match=r"have shape \(2, 32\) and the model beside them takes width 64"):
        load_ace(tmp_path / ACE_FILE, 64)
    (tmp_path / ACE_FILE).write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read: copy or export them again"):
        load_ace(tmp_path / ACE_FILE, WIDTH)
    save_file({"others": torch.zeros(1)}, tmp_path / ACE_FILE)
    with pytest.raises(UserError, match="cannot be read"):
        load_ace(tmp_path / ACE_FILE, WIDTH)
