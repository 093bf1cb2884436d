from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clinalign.core.errors import UserError
from clinalign.generation.adapters import add_lora, lora_parameters
from clinalign.generation.generator import Generator, hash_weights

TEXTS = ["a dermoscopic image with melanoma", "ink", "ink", "hair", "a ruler"]
SEEDS = [1, 2, 3, 4, 5]


def test_pictures_have_the_size_and_range_of_the_contract(generator: Any) -> None:
    images = generator.generate(TEXTS, SEEDS, steps=2)
    assert images.shape == (5, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images[1] - images[2]).abs().max() > 1e-3  # one prompt, two seeds
    assert generator.generate([], []).shape == (0, 3, 16, 16)


def test_a_picture_does_not_depend_on_the_batch_size(generator: Any) -> None:
    whole = generator.generate(TEXTS, SEEDS, steps=3)
    for batch_size in (1, 3):
        # rounding of float32 sums alone, far below the step of an 8-bit pixel (4e-3)
        torch.testing.assert_close(
            generator.generate(TEXTS, SEEDS, steps=3, batch_size=batch_size), whole, rtol=0, atol=1e-4
        )


def test_the_same_seed_draws_the_same_picture(generator: Any) -> None:
    assert torch.equal(generator.generate(TEXTS, SEEDS, steps=2), generator.generate(TEXTS, SEEDS, steps=2))


def test_saved_and_opened_it_draws_the_same(generator: Any, tmp_path: Path) -> None:
    generator.save(tmp_path / "copy", {"card.json": {"a": 1}})
    copy = Generator.load(tmp_path / "copy")
    assert torch.equal(copy.generate(TEXTS, SEEDS, steps=2), generator.generate(TEXTS, SEEDS, steps=2))
    assert json.loads((tmp_path / "copy" / "card.json").read_text()) == {"a": 1}
    assert copy.identity == f"copy:{hash_weights(tmp_path / 'copy')}"


def test_saving_leaves_the_adapter_out(generator: Any, tmp_path: Path) -> None:
    before = generator.generate(TEXTS, SEEDS, steps=2)
    add_lora(generator.unet, 2, "attention", seed=0)
    change(generator)
    generator.save(tmp_path / "base")
    assert torch.equal(Generator.load(tmp_path / "base").generate(TEXTS, SEEDS, steps=2), before)
    assert lora_parameters(generator.unet)  # still there in memory


def change(generator: Any) -> None:
    """Give the adapter something to say."""
    with torch.no_grad():
        for parameter in lora_parameters(generator.unet).values():
            parameter.add_(0.3)


def test_a_merged_adapter_draws_the_same(generator: Any, tmp_path: Path) -> None:
    add_lora(generator.unet, 2, "all", seed=0)
    change(generator)
    tuned = generator.generate(TEXTS, SEEDS, steps=2, guidance=1.0)
    generator.merge_adapter()
    assert not lora_parameters(generator.unet)
    merged = generator.generate(TEXTS, SEEDS, steps=2, guidance=1.0)
    # W x + B A x against (W + B A) x: rounding; the adapter itself moves pixels by 0.01 and more
    torch.testing.assert_close(merged, tuned, rtol=0, atol=1e-4)
    generator.save(tmp_path / "merged")
    assert torch.equal(Generator.load(tmp_path / "merged").generate(TEXTS, SEEDS, steps=2, guidance=1.0), merged)


def test_a_run_folder_opens_with_its_adapter_or_without(tiny: Any, generator: Any) -> None:
    base = generator.generate(TEXTS, SEEDS, steps=2)
    tuned = Generator.load(tiny.run)
    assert (tuned.generate(TEXTS, SEEDS, steps=2) - base).abs().max() > 1e-2
    assert torch.equal(Generator.load(tiny.run, adapter=False).generate(TEXTS, SEEDS, steps=2), base)
    assert tuned.identity != generator.identity


def test_the_anchor_is_the_base_bit_for_bit(tiny: Any, generator: Any) -> None:
    base = generator.generate(TEXTS, SEEDS, steps=2)
    tuned = Generator.load(tiny.run)
    before = tuned.generate(TEXTS, SEEDS, steps=2)
    with tuned.anchor():
        assert torch.equal(tuned.generate(TEXTS, SEEDS, steps=2), base)
    assert torch.equal(tuned.generate(TEXTS, SEEDS, steps=2), before)
    with generator.anchor():  # no adapter: nothing to do
        assert torch.equal(generator.generate(TEXTS, SEEDS, steps=2), base)


def test_prompts_past_the_limit_are_flagged(generator: Any) -> None:
    limit = generator.tokenizer.model_max_length
    fits = "ink " * (limit - 2)  # beginning and end of the text take a token each
    assert len(generator.tokenizer(fits).input_ids) == limit
    condition = generator.encode_text([fits, fits + "ink", "ink", fits + "ink"])
    assert condition.truncated == (False, True, False, True)
    assert condition.embeddings.shape == (4, limit, 32)
    assert torch.equal(condition.embeddings[1], condition.embeddings[3])
    assert generator.truncates(["ink", fits + "ink"]) == (False, True)


def test_a_part_of_a_condition_keeps_its_rows(generator: Any) -> None:
    condition = generator.encode_text(["ink", "ink " * 200, "hair"])
    for index in (torch.tensor([2, 1]), [2, 1], slice(2, 0, -1)):
        part = condition[[2, 1]] if isinstance(index, slice) else condition[index]
        assert part.truncated == (False, True)
        assert torch.equal(part.embeddings[0], condition.embeddings[2])
    assert condition[slice(0, 2)].truncated == (False, True)


def test_images_survive_their_latents_as_diffusers_has_them(generator: Any) -> None:
    from diffusers.image_processor import VaeImageProcessor

    images = generator.generate(TEXTS[:2], SEEDS[:2], steps=2)
    latents = generator.encode_images(images)
    assert latents.shape == (2, *generator.latent_shape)
    # the same decoding, written with diffusers' own parts
    decoded = generator.vae.decode(latents / generator.vae.config.scaling_factor).sample
    there = VaeImageProcessor.denormalize(decoded)
    torch.testing.assert_close(generator.decode(latents), there)


def test_gradients_pass_through_decoding_only_where_asked(generator: Any) -> None:
    latents = torch.zeros((1, *generator.latent_shape), requires_grad=True)
    assert not generator.decode(latents).requires_grad
    generator.decode_with_gradient(latents).sum().backward()
    assert latents.grad is not None


def test_half_precision_files_are_computed_with_in_full(generator: Any, tmp_path: Path) -> None:
    generator.pipeline.to(torch.float16)
    generator.save(tmp_path / "half")
    stored = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    opened = Generator.load(tmp_path / "half")
    parts = (opened.unet, opened.vae, opened.text_encoder)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "PNDMScheduler"])
def test_the_config_of_another_sampler_leaves_noise_in_every_step(generator: Any, name: str) -> None:
    import diffusers

    pipeline = generator.pipeline
    pipeline.scheduler = getattr(diffusers, name)(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert (Generator(pipeline).schedule(10, 1.0).sigma > 0).all()


def test_a_name_that_neither_disk_nor_hub_knows_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import StableDiffusionPipeline

    def refuse(*arguments: Any, **more: Any) -> None:
        raise OSError("a paragraph on caches.\nAnd its second line.")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", refuse)
    with pytest.raises(UserError, match=r"^no model nowhere/x: there is no such folder, and the hub has no such .*d$"):
        Generator.load("nowhere/x")
