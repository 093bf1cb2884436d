"""timm backbones by name, without any download."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from clinalign.core.errors import UserError, nearest


class Backbone(NamedTuple):
    """An encoder of images and the number of features that it returns."""

    module: nn.Module
    width: int


def create_backbone(name: str, image_size: int, weights: Path | None = None) -> Backbone:
    """Build the timm model ``name`` as an encoder of images to pooled features.

    Args:
        name: Any timm model name (``timm.list_models()``).
        image_size: Side of the square input; told to the models that need it (vision transformers).
        weights: Local safetensors file with pretrained weights in timm's names; its classification head is left out.

    Returns:
        A module mapping ``(N, 3, image_size, image_size)`` to ``(N, D)``, and D.

    Raises:
        UserError: For a name timm does not know, a size the model cannot take, or weights that do not fit.
    """
    import timm

    check_backbone(name)
    if weights is not None and (weights.suffix != ".safetensors" or not weights.is_file()):
        raise UserError(f"backbone weights {weights}: give a local .safetensors file (pickles are never loaded)")
    arguments: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    try:
        model: nn.Module = timm.create_model(name, **arguments)
        if getattr(model, "patch_embed", None) is not None:
            model = timm.create_model(name, img_size=image_size, **arguments)
        with torch.no_grad():
            width = int(model.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1])
    except (RuntimeError, AssertionError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"backbone '{name}' cannot look at {image_size} px images: {str(error).splitlines()[0]}"
        ) from error
    if weights is not None:
        _load(model, weights)
    return Backbone(model.train(), width)


def check_backbone(name: str) -> None:
    """Raise a :class:`UserError` that names the nearest model when timm does not know ``name``."""
    import timm

    if not timm.is_model(name):
        raise UserError(
            f"unknown backbone '{name}': {nearest(name, timm.list_models()) if name else 'give a timm name'}"
        )


class Pyramid(NamedTuple):
    """An encoder of images to feature maps, finest first, their channels, and by how much each is smaller."""

    module: nn.Module
    channels: list[int]
    reductions: list[int]


def create_pyramid(name: str, image_size: int, coarsest: int = 16) -> Pyramid:
    """Build the timm model ``name`` as an encoder of images to feature maps, with random weights.

    Args:
        name: A timm model that gives feature maps (convolutional networks do).
        image_size: Side of the square input in pixels.
        coarsest: Stages that reduce the picture further than this are left out.

    Returns:
        A module mapping ``(N, 3, image_size, image_size)`` to a list of ``(N, C, H, W)``.

    Raises:
        UserError: For a name timm does not know, a model without feature maps, or a size it cannot take.
    """
    import timm

    check_backbone(name)
    try:
        whole: Any = timm.create_model(name, pretrained=False, features_only=True)
        reductions = whole.feature_info.reduction()
        kept = tuple(index for index, factor in enumerate(reductions) if factor <= coarsest)
        model: Any = timm.create_model(name, pretrained=False, features_only=True, out_indices=kept)
        with torch.no_grad():
            maps = model.eval()(torch.zeros(1, 3, image_size, image_size))
        channels, factors = model.feature_info.channels(), model.feature_info.reduction()
        if any(m.shape[1:] != (c, image_size // f, image_size // f) for m, c, f in zip(maps, channels, factors)):
            raise ValueError(f"its feature maps do not divide {image_size} px evenly")
    except (RuntimeError, AssertionError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise UserError(
            f"backbone '{name}' cannot give feature maps of {image_size} px images: {str(error).splitlines()[0]}"
        ) from error
    return Pyramid(model.train(), channels, factors)


def _load(model: nn.Module, weights: Path) -> None:
    """Fill ``model`` from a safetensors file; every weight of the model must be there with its shape."""
    given = load_file(str(weights))
    wanted = model.state_dict()
    wrong = [key for key, tensor in wanted.items() if key not in given or given[key].shape != tensor.shape]
    if wrong:
        raise UserError(
            f"backbone weights {weights} do not fit: {len(wrong)} of {len(wanted)} differ, first '{wrong[0]}'"
        )
    model.load_state_dict({key: given[key] for key in wanted})
