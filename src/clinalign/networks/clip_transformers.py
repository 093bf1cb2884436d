"""CLIP and SigLIP models of transformers as image-text models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError
from clinalign.networks.clip_models import ClipModel, Preprocessing, check_folder

KINDS = ("clip", "siglip")
_INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def load_transformers_clip(folder: Path | str, device: torch.device | str = "cpu") -> ClipModel:
    """Open a folder that ``CLIPModel`` or ``SiglipModel`` and their processor were saved to.

    Args:
        folder: With ``config.json``, ``model.safetensors``, ``preprocessor_config.json`` and a tokenizer.
        device: Where it computes.

    Raises:
        UserError: When it is not such a folder, a part is missing or damaged, weights are missing from the file, or the
            image processor asks for what is not done here.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

    folder = Path(folder)
    check_folder(folder, "config.json", "transformers")
    place, local = str(folder), {"local_files_only": True, "trust_remote_code": False}
    try:
        kind = AutoConfig.from_pretrained(place, **local).model_type
        if kind not in KINDS:
            raise UserError(
                f"{folder} holds a '{kind}' model: image-text models of transformers are {', '.join(KINDS)}"
            )
        model, told = AutoModel.from_pretrained(place, use_safetensors=True, output_loading_info=True, **local)
        processor = AutoImageProcessor.from_pretrained(place, **local).to_dict()
        tokenizer = AutoTokenizer.from_pretrained(place, **local)
    except UserError:
        raise
    except Exception as error:  # OSError, ValueError, and plain Exception of the tokenizers library
        raise UserError(
            f"cannot open the transformers model in {folder} ({str(error).splitlines()[0]}): give a folder with "
            "config.json, model.safetensors, preprocessor_config.json and a tokenizer"
        ) from error
    if told["missing_keys"] or told.get("mismatched_keys"):
        wrong = sorted(map(str, [*told["missing_keys"], *told.get("mismatched_keys", [])]))
        raise UserError(f"the weights in {folder} do not fit its config: {len(wrong)} differ, first '{wrong[0]}'")
    config = model.config
    limit = min(int(config.text_config.max_position_embeddings), int(tokenizer.model_max_length))
    # SigLIP was trained on texts filled up to the limit, and sees what fills them
    padding: Any = "max_length" if kind == "siglip" else True
    model = model.to(device)

    def read(texts: list[str]) -> torch.Tensor:
        found = tokenizer(texts, padding=padding, truncation=True, max_length=limit, return_tensors="pt")
        extra = {} if kind == "siglip" else {"attention_mask": found.attention_mask.to(device)}
        return _pooled(model.get_text_features(input_ids=found.input_ids.to(device), **extra))

    return ClipModel(
        model,
        read_processor(processor, int(config.vision_config.image_size), int(config.vision_config.num_channels), folder),
        lambda pixels: _pooled(model.get_image_features(pixel_values=pixels)),
        read,
        lambda text: len(tokenizer(text, truncation=False, verbose=False).input_ids),
        limit,
        f"transformers:{kind}",
    )


def read_processor(found: dict[str, Any], side: int, channels: int, folder: Path) -> Preprocessing:
    """Return what an image processor of transformers does, for a model that sees ``side`` x ``side`` pixels.

    Raises:
        UserError: When it does something else than resize, cut out the centre, and normalise from 8 bits.
    """
    size, crop = found.get("size") or {}, found.get("crop_size") or {}
    shortest = int(size.get("shortest_edge", 0)) if found.get("do_resize", True) else side
    final = crop if found.get("do_center_crop") else size
    shape = (int(final.get("height", shortest)), int(final.get("width", shortest)))
    resample = int(found.get("resample", 3))
    factor = float(found.get("rescale_factor", 1 / 255))
    problem = ""
    if shape != (side, side):
        problem = f"makes images of {shape[0]}x{shape[1]} pixels and the model sees {side}x{side}"
    elif resample not in _INTERPOLATION:
        problem = f"resizes with resample {resample}, and only bilinear (2) and bicubic (3) are done here"
    elif not found.get("do_rescale", True) or abs(factor * 255 - 1) > 1e-3:
        problem = "does not bring 8-bit images to [0, 1]"
    if problem:
        raise UserError(f"the image processor in {folder} {problem}: mend its preprocessor_config.json")
    normalise = found.get("do_normalize", True)
    mean, std = (tuple(map(float, found[key])) if normalise else () for key in ("image_mean", "image_std"))
    return Preprocessing(
        (side, side), shortest, _INTERPOLATION[resample],
        (mean or (0.0,) * 3)[:channels], (std or (1.0,) * 3)[:channels], channels,
    )  # fmt: skip


def _pooled(found: Any) -> torch.Tensor:
    """Return the projected embedding, which newer versions put into an output object."""
    embedding: torch.Tensor = getattr(found, "pooler_output", found)
    return embedding
