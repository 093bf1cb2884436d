"""Looking at a model folder before anything in it is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clinalign.core.errors import UserError

PIPELINES = ("StableDiffusionPipeline",)
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
LORA_FILE = "pytorch_lora_weights.safetensors"
ADAPTER_FILE = "adapter.json"  # beside an adapter without its pipeline: which base it belongs to
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


def find_model_folder(path: Path) -> Path:
    """Return the pipeline folder meant by ``path``: itself, or the ``model`` folder of a tuning run."""
    return path / "model" if not (path / "model_index.json").exists() and (path / "model").is_dir() else path


def read_adapter_card(folder: Path) -> dict[str, Any] | None:
    """Return what an adapter that lies without its pipeline says of itself, ``None`` where there is no such card.

    Raises:
        UserError: When the card names no base.
    """
    file = folder / ADAPTER_FILE
    if not file.is_file():
        return None
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is not readable as JSON: {error}") from error
    if not isinstance(card, dict) or not isinstance(card.get("base"), str):
        raise UserError(f"{file} does not say which base the adapter belongs to: take another epoch of the front")
    return card


def check_model_folder(path: Path) -> None:
    """Refuse a folder that is not a complete Stable Diffusion pipeline of safetensors.

    Args:
        path: A local pipeline folder.

    Raises:
        UserError: When it is missing, lacks a part, is another kind of pipeline, or has only pickled weights.
    """
    if not path.is_dir():
        raise UserError(f"model folder {path} does not exist: give a diffusers pipeline folder or a run folder")
    index = path / "model_index.json"
    if not index.exists():
        raise UserError(f"{path} is not a diffusers pipeline: model_index.json is missing")
    try:
        class_name = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{index} is not readable as JSON: {error}") from error
    if class_name not in PIPELINES:
        raise UserError(f"{path} holds a {class_name}: supported are {', '.join(PIPELINES)}")
    for part in PARTS:
        if not (path / part).is_dir():
            raise UserError(f"model folder {path} lacks the part '{part}': copy the whole pipeline folder")
    if not any((path / "tokenizer" / name).exists() for name in ("tokenizer.json", "vocab.json")):
        # transformers would make an empty tokenizer and say nothing
        raise UserError(f"{path / 'tokenizer'} holds no vocabulary: copy the whole pipeline folder")
    for part in ("unet", "vae", "text_encoder"):
        pickles = [file.name for pattern in _PICKLES for file in (path / part).glob(pattern)]
        if any((path / part).glob("*.safetensors")):
            continue
        if pickles:
            raise UserError(
                f"{path / part} holds its weights as a pickle ({pickles[0]}), which can run code when opened: "
                "save the pipeline with safe_serialization=True"
            )
        raise UserError(f"{path / part} holds no weights (*.safetensors): copy the whole pipeline folder")


def check_weights(folder: Path, module: Any) -> None:
    """Refuse a part whose files hold fewer tensors than it has parameters: the rest would be random, without a word.

    Counted, not compared by name, because the libraries rename tensors of older files as they read them.

    Args:
        folder: Folder of the part.
        module: The part as it was opened.

    Raises:
        UserError: When weights are missing.
    """
    from safetensors import safe_open

    found = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            found += len(tensors.keys())
    needed = sum(1 for _ in module.parameters())
    if found < needed:
        raise UserError(
            f"{folder} holds {found} of the {needed} weights of its network: copy the whole pipeline folder"
        )
