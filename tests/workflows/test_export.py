from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from clinalign.core.seeds import seeded_noise
from clinalign.generation.adapters import add_lora, lora_parameters
from clinalign.generation.generator import Generator
from clinalign.generation.model_folder import LORA_FILE
from clinalign.workflows.export import export_model

TEXT, SEED, STEPS, GUIDANCE = "a dermoscopic image with melanoma", 7, 5, 3.0


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_plain_diffusers_draws_the_same_picture(generator: Any, tiny: Any, tmp_path: Path, targets: str) -> None:
    from diffusers import DiffusionPipeline

    base = generator.generate([TEXT], [SEED], STEPS, GUIDANCE, eta=0.0)
    add_lora(generator.unet, 2, targets, seed=0)
    with torch.no_grad():
        for parameter in lora_parameters(generator.unet).values():
            parameter.add_(0.3)
    export_model(generator, str(tiny.model), tmp_path / "model")
    ours = generator.generate([TEXT], [SEED], STEPS, GUIDANCE, eta=0.0)
    noise = seeded_noise([SEED], generator.latent_shape, draws=STEPS + 1)[:, 0]

    pipe = DiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.load_lora_weights(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        TEXT, latents=noise, eta=0.0, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np"
    ).images

    there = torch.from_numpy(images).permute(0, 3, 1, 2)
    # diffusers takes its square roots in float32 and ours in float64: a fortieth of an 8-bit level;
    # the adapter moves the picture by a hundred times that and more
    torch.testing.assert_close(ours, there, rtol=0, atol=1e-4)
    assert (ours - base).abs().max() > 1e-2


def test_the_export_is_a_model_folder_beside_the_base(tiny: Any, generator: Any) -> None:
    tuned = Generator.load(tiny.run / "model")
    assert lora_parameters(tuned.unet)
    folder = tiny.run / "model"
    assert (folder / LORA_FILE).is_file()
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (folder / weights).samefile(tiny.model / weights)  # a hard link: no second copy on the disk


def test_a_disk_without_hard_links_gets_a_copy(
    generator: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: str, target: str) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    add_lora(generator.unet, 2, "attention", seed=0)
    export_model(generator, str(tiny.model), tmp_path / "model")
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "model" / weights).read_bytes() == (tiny.model / weights).read_bytes()
    assert not (tmp_path / "model" / weights).samefile(tiny.model / weights)


def test_an_earlier_export_and_an_earlier_adapter_are_replaced(generator: Any, tiny: Any, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny.run / "model", tmp_path / "base"))  # a base with an adapter of its own
    (base / "clinalign.json").write_text("{}")
    (base / "README.md").write_text("# the base's own card")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old.txt").write_text("old")
    add_lora(generator.unet, 2, "attention", seed=0)  # says nothing yet
    export_model(generator, str(base), tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert "old.txt" not in names
    assert not {"clinalign.json", "README.md"} & names  # they tell of the base
    drawn = Generator.load(tmp_path / "model").generate([TEXT], [SEED], 2)
    assert torch.equal(drawn, Generator.load(tiny.model).generate([TEXT], [SEED], 2))


def test_without_an_adapter_the_weights_themselves_are_written(generator: Any, tiny: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        generator.unet.conv_out.bias.add_(0.1)
    export_model(generator, str(tiny.model), tmp_path / "model")
    assert not (tmp_path / "model" / LORA_FILE).exists()
    drawn = Generator.load(tmp_path / "model").generate([TEXT], [SEED], 2)
    assert torch.equal(drawn, generator.generate([TEXT], [SEED], 2))
    assert not torch.equal(drawn, Generator.load(tiny.model).generate([TEXT], [SEED], 2))
