"""Models of open_clip as image-text models; open_clip is needed only here."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError
from clinalign.networks.clip_models import ClipModel, Preprocessing, check_folder

CONFIG = "open_clip_config.json"
TEXT_FOLDER = "text"
_RESIZE_MODES = ("shortest", "squash")


def load_open_clip(folder: Path | str, device: torch.device | str = "cpu") -> ClipModel:
    """Open a folder in open_clip's hub layout: ``open_clip_config.json`` and a ``.safetensors`` file.

    A model whose text tower is one of transformers (BiomedCLIP) also needs that tower's ``config.json``, in ``text/``
    inside the folder, and its tokenizer files in the folder itself.

    Raises:
        UserError: When open_clip is not installed, a part is missing or damaged, or loading would need a download.
    """
    folder = Path(folder)
    check_folder(folder, CONFIG, "open_clip")
    if find_spec("open_clip") is None:
        raise UserError(
            f"{folder} holds an open_clip model and open_clip is missing: run 'pip install open_clip_torch'"
        )
    import open_clip
    from open_clip.factory import load_checkpoint

    files = sorted(folder.glob("*.safetensors"))
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        told = {**config.get("preprocess_cfg", {})}
        changed = _local_text(config["model_cfg"], folder)
        model = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_image=False, pretrained_text=False, **changed
        )
        load_checkpoint(model, str(files[0]), strict=True)
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    except UserError:
        raise
    except Exception as error:  # open_clip raises many types for a config or weights that do not fit
        raise UserError(
            f"cannot open the open_clip model in {folder} ({str(error).splitlines()[0]}): give a folder with {CONFIG} "
            "and the .safetensors file that belongs to it"
        ) from error
    model = model.to(device)
    limit = int(tokenizer.context_length)
    return ClipModel(
        model,
        _preprocessing(model, told, folder),
        lambda pixels: model.encode_image(pixels),
        lambda texts: model.encode_text(tokenizer(texts).to(device)),
        lambda text: _length(tokenizer, text),
        limit,
        "open_clip",
    )


def _local_text(model: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the change of the config that keeps a text tower of transformers on this machine.

    Raises:
        UserError: When its config is not there, or the image tower would be downloaded.
    """
    tower = str(model.get("vision_cfg", {}).get("timm_model_name", ""))
    if ":" in tower:
        raise UserError(
            f"the image tower of {folder} is '{tower}', which timm would download: name a timm architecture"
        )
    text = dict(model.get("text_cfg", {}))
    name = text.get("hf_model_name")
    if not name:
        return {}
    if not (folder / TEXT_FOLDER / "config.json").is_file():
        raise UserError(
            f"the text tower of {folder} is '{name}', which open_clip would download: put its config.json into "
            f"{folder / TEXT_FOLDER}"
        )
    return {"text_cfg": {**text, "hf_model_name": str(folder / TEXT_FOLDER), "hf_model_pretrained": False}}


def _preprocessing(model: Any, told: dict[str, Any], folder: Path) -> Preprocessing:
    """Return what open_clip would do to an image for ``model``.

    Raises:
        UserError: For a way of resizing that is not done here.
    """
    size = model.visual.image_size
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    mode, interpolation = told.get("resize_mode", "shortest"), told.get("interpolation", "bicubic")
    if mode not in _RESIZE_MODES or interpolation not in ("bicubic", "bilinear"):
        raise UserError(
            f"{folder / CONFIG} resizes by '{mode}' and '{interpolation}': only {' and '.join(_RESIZE_MODES)}, bicubic "
            "and bilinear are done here"
        )
    default = model.visual.preprocess_cfg if hasattr(model.visual, "preprocess_cfg") else {}
    mean, std = (tuple(told.get(key) or default[key]) for key in ("mean", "std"))
    return Preprocessing((height, width), min(height, width) if mode == "shortest" else 0, interpolation, mean, std)


def _length(tokenizer: Any, text: str) -> int:
    """Return the number of tokens of ``text``, those at its ends included."""
    if hasattr(tokenizer, "encode"):
        return len(tokenizer.encode(text)) + 2
    return len(tokenizer.tokenizer(text, truncation=False, verbose=False).input_ids)
