from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from clinalign.core.errors import UserError
from clinalign.generation.generator import Generator
from clinalign.generation.model_folder import find_model_folder

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def folder(tiny: Any, tmp_path: Path) -> Path:
    """A model folder that a test may damage."""
    return Path(shutil.copytree(tiny.model, tmp_path / "model"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def lose_a_tensor(file: Path) -> None:
    tensors = load_file(file)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, file, metadata={"format": "pt"})


def name_class(folder: Path, name: str) -> None:
    index = folder / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": name}))


def make_pickle(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "does not exist: give a diffusers pipeline folder or a run folder"),
        (lambda f: (f / "model_index.json").unlink(), "is not a diffusers pipeline: model_index.json is missing"),
        (lambda f: (f / "model_index.json").write_text("{"), "is not readable as JSON"),
        (lambda f: (f / "model_index.json").write_text("[]"), "is not readable as JSON"),
        (lambda f: (f / "model_index.json").write_bytes(b"\xff\xfe\x00"), "is not readable as JSON"),
        (lambda f: name_class(f, "FluxPipeline"), "holds a FluxPipeline: supported are StableDiffusionPipeline"),
        (lambda f: shutil.rmtree(f / "vae"), "lacks the part 'vae': copy the whole pipeline folder"),
        (lambda f: shutil.rmtree(f / "scheduler"), "lacks the part 'scheduler'"),
        (lambda f: empty(f / "tokenizer"), "tokenizer holds no vocabulary"),
        (lambda f: empty(f / "scheduler"), "cannot open the model .*scheduler_config.json"),
        (make_pickle, r"as a pickle \(diffusion_pytorch_model.bin\), which can run code when opened"),
        (lambda f: (f / UNET).unlink(), r"unet holds no weights \(\*.safetensors\)"),
        (lambda f: cut(f / UNET), "cannot open the model"),
        (lambda f: cut(f / TEXT), "cannot open the model"),
        (lambda f: lose_a_tensor(f / UNET), r"unet holds \d+ of the \d+ weights of its network"),
        (lambda f: lose_a_tensor(f / TEXT), r"text_encoder holds \d+ of the \d+ weights of its network"),
        (lambda f: (f / "unet" / "config.json").write_text("{"), "cannot open the model"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        Generator.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_name_with_one_slash_is_a_folder_where_its_parent_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"model folder demo/bse does not exist"):
        Generator.load("demo/bse")


def test_other_files_beside_the_model_do_no_harm(folder: Path) -> None:
    (folder / "README.md").write_text("notes")
    (folder / "unet" / "old.bin").write_bytes(b"never opened")  # safetensors are there, so this is left alone
    Generator.load(folder)


def test_a_run_folder_means_the_model_in_it(tiny: Any) -> None:
    assert find_model_folder(tiny.run) == tiny.run / "model"
    assert find_model_folder(tiny.model) == tiny.model
    assert find_model_folder(Path("owner/name")) == Path("owner/name")
