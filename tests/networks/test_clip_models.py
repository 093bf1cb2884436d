"""CLIP-type models of other libraries, tiny and untrained, from folders on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.core.images import from_pil, to_pil
from clinalign.generation.architecture import fit_tokenizer
from clinalign.networks import clip_open_clip
from clinalign.networks.clip_models import Preprocessing
from clinalign.networks.clip_open_clip import load_open_clip
from clinalign.networks.clip_transformers import load_transformers_clip, read_processor

TEXTS = ["a small left effusion", "a large right effusion", "no finding"]
VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 24,
    "patch_size": 8,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 16,
}  # fmt: skip


def pictures(count: int = 3, side: int = 40) -> torch.Tensor:
    """Smooth pictures, which every way of resizing shows alike."""
    coarse = torch.rand((count, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")


def build_clip(folder: Path) -> Any:
    """Save a tiny CLIP of transformers with its processor and tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = fit_tokenizer(TEXTS)
    text = {**TEXT, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 24, "width": 24}).save_pretrained(folder)
    return model


def build_siglip(folder: Path) -> Any:
    """Save a tiny SigLIP of transformers."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tokenizer = fit_tokenizer(TEXTS)
    torch.manual_seed(0)
    text = {**TEXT, "vocab_size": len(tokenizer), "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)
    return model


BUILDERS = {"clip": build_clip, "siglip": build_siglip}


@pytest.fixture(scope="module", params=list(BUILDERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / kind
    BUILDERS[kind](place)
    return place


def test_it_sees_what_the_library_sees(folder: Path, kind: str) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    images, model = pictures(), AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    eight_bits = torch.stack([from_pil(picture) for picture in to_pil(images)])
    with torch.no_grad():
        pixels = AutoImageProcessor.from_pretrained(folder)(to_pil(images), return_tensors="pt").pixel_values
        theirs = torch.nn.functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=1)
        padding = "max_length" if kind == "siglip" else True  # as each was trained
        told = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=padding, truncation=True, return_tensors="pt")
        ids = {"input_ids": told.input_ids} | ({} if kind == "siglip" else {"attention_mask": told.attention_mask})
        words = torch.nn.functional.normalize(model.get_text_features(**ids).pooler_output, dim=1)
    ours = load_transformers_clip(folder)
    # the library resizes 8-bit pictures and rounds again: a level of 255 in a pixel
    torch.testing.assert_close(ours.embed_images(eight_bits), theirs, atol=0.01, rtol=0)
    torch.testing.assert_close(ours.embed_texts(TEXTS), words, atol=1e-5, rtol=0)
    assert ours.identity.startswith(f"transformers:{kind}:")
    assert ours.scale.item() == pytest.approx(model.logit_scale.exp().item())


def test_embeddings_are_unit_vectors_with_gradients_in_the_images(folder: Path) -> None:
    model, images = load_transformers_clip(folder), pictures()
    assert not model.embed_images(images).requires_grad
    images.requires_grad_()
    embedded = model.embed_images(images, batch_size=2)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(3))
    embedded[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_long_texts_are_told_and_cut(folder: Path) -> None:
    model = load_transformers_clip(folder)
    long = "effusion " * 30
    assert model.truncates(["no finding", long]) == (False, True)
    assert model.embed_texts([long]).isfinite().all()


def test_preprocessing_by_hand() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[..., 2:6, 2:6] = 1.0
    cut = Preprocessing((4, 4), 8, "bilinear", (0.5,) * 3, (0.5,) * 3)
    torch.testing.assert_close(cut(images), torch.ones(1, 3, 4, 4))
    grey = Preprocessing((8, 8), 0, "bicubic", (0.0,), (1.0,), channels=1)
    assert grey(images).shape == (1, 1, 8, 8)
    with pytest.raises(UserError, match=r"images must be float of shape \(N, 3, H, W\)"):
        cut(torch.zeros(1, 1, 8, 8))


def test_a_picture_of_other_proportions_is_cut_in_its_middle() -> None:
    shape = Preprocessing((24, 24), 28, "bicubic", (0.0,) * 3, (1.0,) * 3)
    assert shape(torch.rand(2, 3, 30, 50)).shape == (2, 3, 24, 24)
    wide = pictures(1, 56)[..., :28, :]
    resized = Image.fromarray((wide[0].permute(1, 2, 0) * 255).round().byte().numpy()).resize((56, 28))
    torch.testing.assert_close(shape(wide), from_pil(resized)[None, :, 2:26, 16:40], atol=0.01, rtol=0)


def change(folder: Path, out: Path, file: str, **values: Any) -> Path:
    """Copy a model folder and change a JSON file of it."""
    shutil.copytree(folder, out)
    content = json.loads((out / file).read_text())
    (out / file).write_text(json.dumps(content | values))
    return out


def test_what_cannot_be_loaded_is_one_clear_line(tmp_path: Path) -> None:
    build_clip(tmp_path / "clip")
    with pytest.raises(UserError, match=r"no transformers model in .*nothing is downloaded"):
        load_transformers_clip("openai/clip-vit-base-patch32")
    other = change(tmp_path / "clip", tmp_path / "a", "config.json", model_type="bert")
    with pytest.raises(UserError, match="holds a 'bert' model"):
        load_transformers_clip(other)
    larger = change(tmp_path / "clip", tmp_path / "b", "preprocessor_config.json", do_center_crop=False)
    with pytest.raises(UserError, match="makes images of 28x28 pixels and the model sees 24x24"):
        load_transformers_clip(larger)
    config = json.loads((tmp_path / "clip" / "config.json").read_text())
    wider = change(tmp_path / "clip", tmp_path / "c", "config.json", projection_dim=32)
    assert config["projection_dim"] == 16
    with pytest.raises(UserError, match=r"weights .*|cannot open"):
        load_transformers_clip(wider)
    (tmp_path / "c" / "model.safetensors").rename(tmp_path / "c" / "pytorch_model.bin")
    with pytest.raises(UserError, match="is a pickle"):
        load_transformers_clip(tmp_path / "c")
    (tmp_path / "c" / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        load_transformers_clip(tmp_path / "c")
    (tmp_path / "b" / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="cannot open the transformers model"):
        load_transformers_clip(tmp_path / "b")


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    build_clip(tmp_path / "clip")
    file = tmp_path / "clip" / "model.safetensors"
    weights = load_file(str(file))
    del weights["visual_projection.weight"]
    save_file(weights, str(file), metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 differ, first 'visual_projection\.weight'"):
        load_transformers_clip(tmp_path / "clip")


def test_image_processors_that_do_something_else_are_refused(tmp_path: Path) -> None:
    good: dict[str, Any] = {
        "size": {"height": 24, "width": 24}, "resample": 2, "rescale_factor": 1 / 255, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }  # fmt: skip
    assert read_processor(good, 24, 1, tmp_path) == Preprocessing((24, 24), 0, "bilinear", (0.5,), (0.5,), 1)
    plain = read_processor(good | {"do_normalize": False}, 24, 3, tmp_path)
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(UserError, match="resample 0"):
        read_processor(good | {"resample": 0}, 24, 3, tmp_path)
    with pytest.raises(UserError, match="does not bring 8-bit images"):
        read_processor(good | {"rescale_factor": 1 / 127.5}, 24, 3, tmp_path)


def build_open_clip(folder: Path) -> Any:
    """Save a tiny model in open_clip's hub layout."""
    open_clip = pytest.importorskip("open_clip")
    from safetensors.torch import save_file

    vision = {"image_size": 24, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.model.CLIP(**config).eval()
    folder.mkdir()
    save_file(model.state_dict(), str(folder / "open_clip_model.safetensors"))
    told = {"mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": told}))
    return model


def test_open_clip_sees_what_the_library_sees(tmp_path: Path) -> None:
    model = build_open_clip(tmp_path / "m")
    import open_clip

    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'm'}")
    ours, images = load_open_clip(tmp_path / "m"), pictures()
    pixels = torch.stack([transform(picture) for picture in to_pil(images)])
    with torch.no_grad():
        theirs = model.encode_image(pixels, normalize=True)
        words = model.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path / 'm'}")(TEXTS), normalize=True)
    torch.testing.assert_close(ours.embed_images(images), theirs, atol=0.01, rtol=0)
    torch.testing.assert_close(ours.embed_texts(TEXTS), words, atol=1e-5, rtol=0)
    assert ours.truncates(["no finding", "effusion " * 30]) == (False, True)
    images.requires_grad_()
    ours.embed_images(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_open_clip_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no open_clip model"):
        load_open_clip(tmp_path)
    build_open_clip(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "open_clip_config.json").read_text())["model_cfg"]
    text = {**config["text_cfg"], "hf_model_name": "some/tower"}
    hub = change(tmp_path / "m", tmp_path / "a", "open_clip_config.json", model_cfg={**config, "text_cfg": text})
    with pytest.raises(UserError, match=r"text tower .* is 'some/tower', which open_clip would download"):
        load_open_clip(hub)
    vision = {**config["vision_cfg"], "timm_model_name": "hf-hub:some/tower"}
    timm = change(tmp_path / "m", tmp_path / "e", "open_clip_config.json", model_cfg={**config, "vision_cfg": vision})
    with pytest.raises(UserError, match=r"image tower .* 'hf-hub:some/tower', which timm would download"):
        load_open_clip(timm)
    pad = change(tmp_path / "m", tmp_path / "b", "open_clip_config.json", preprocess_cfg={"resize_mode": "longest"})
    with pytest.raises(UserError, match="resizes by 'longest'"):
        load_open_clip(pad)
    other = change(tmp_path / "m", tmp_path / "c", "open_clip_config.json", model_cfg={**config, "embed_dim": 8})
    with pytest.raises(UserError, match="cannot open the open_clip model"):
        load_open_clip(other)
    monkeypatch.setattr(clip_open_clip, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install open_clip_torch"):
        load_open_clip(tmp_path / "m")
