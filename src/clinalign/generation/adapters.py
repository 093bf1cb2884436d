"""LoRA adapters by peft, saved in the format that diffusers loads."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# Everything in a UNet that mixes channels: attention, feed-forward, convolutions of the residual blocks, time inputs.
ALL_LAYERS = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "time_emb_proj")
TARGETS: Mapping[str, Sequence[str]] = {"attention": ATTENTION, "all": ALL_LAYERS}


def add_lora(unet: Any, rank: int, targets: str, seed: int) -> None:
    """Add a LoRA adapter whose first output is exactly zero (B = 0), so the first policy is the anchor.

    Args:
        unet: A ``UNet2DConditionModel``.
        rank: LoRA rank; the scale alpha equals the rank, so the adapter's factor is 1.
        targets: ``attention`` (queries, keys, values and outputs of every attention block, as RL4Med) or ``all``.
        seed: Of the random A matrices.
    """
    from peft import LoraConfig

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(TARGETS[targets]))
        )
    unet.eval()  # peft leaves new layers in training mode


def lora_parameters(unet: Any) -> dict[str, torch.nn.Parameter]:
    """Return the adapter's parameters by name; empty when there is no adapter."""
    return {name: parameter for name, parameter in unet.named_parameters() if "lora_" in name}


@contextmanager
def adapter_disabled(unet: Any) -> Iterator[None]:
    """Switch the adapter off inside the block; a no-op where there is none."""
    if not lora_parameters(unet):
        yield
        return
    # peft switches gradients off with the adapter and on with it, frozen before or not
    trained = {name: parameter.requires_grad for name, parameter in lora_parameters(unet).items()}
    unet.disable_adapters()
    try:
        yield
    finally:
        unet.enable_adapters()
        for name, parameter in lora_parameters(unet).items():
            parameter.requires_grad_(trained[name])


@contextmanager
def adapter_merged(unet: Any) -> Iterator[None]:
    """Let the adapted layers compute with base weight plus adapter in one product inside the block, for sampling.

    The base weights are not touched: sums stand in their place, and are put away again, so that nothing drifts. A no-op
    without an adapter, and where gradients are on: a merged layer has none for the adapter.
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in unet.modules() if isinstance(module, LoraLayer)]
    if torch.is_grad_enabled() or any(layer.disable_adapters for layer in layers):
        yield
        return
    kept = []
    for layer in layers:
        weight = layer.get_base_layer().weight
        kept.append(weight.data)
        for name in layer.active_adapters:
            weight.data = weight.data + layer.get_delta_weight(name).to(weight.dtype)
        layer.merged_adapters = list(layer.active_adapters)
    try:
        yield
    finally:
        for layer, weight in zip(layers, kept):
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters = []


def merge_lora(unet: Any) -> None:
    """Add the adapter to the weights that it adapts, and remove it; a no-op where there is none."""
    if lora_parameters(unet):
        unet.fuse_lora()
        unet.unload_lora()


@contextmanager
def adapter_removed(pipeline: Any) -> Iterator[None]:
    """Let the pipeline have its denoiser as it is without the adapter inside the block, for saving."""
    unet = pipeline.unet
    if not lora_parameters(unet):
        yield
        return
    pipeline.unet = copy.deepcopy(unet)
    pipeline.unet.unload_lora()
    try:
        yield
    finally:
        pipeline.unet = unet


def save_lora(unet: Any, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the adapter so that ``pipeline.load_lora_weights(folder)`` of plain diffusers opens it.

    Args:
        unet: The denoiser with its adapter.
        folder: Where ``pytorch_lora_weights.safetensors`` goes.
        weights: Values by parameter name to save in place of the current ones (an average of the weights).
    """
    from diffusers import StableDiffusionPipeline
    from peft.utils import get_peft_model_state_dict

    state = None
    if weights is not None:
        state = {name: value.detach().cpu() for name, value in unet.state_dict().items()}
        state.update({name: value.detach().cpu() for name, value in weights.items()})
    # in peft's own names: diffusers' converter knows those of attention layers only and leaves a mixture that it
    # cannot read back
    layers = get_peft_model_state_dict(unet, state_dict=state)
    rank = unet.peft_config["default"].r
    StableDiffusionPipeline.save_lora_weights(
        save_directory=folder,
        unet_lora_layers={name: value.contiguous() for name, value in layers.items()},
        safe_serialization=True,
        unet_lora_adapter_metadata=_metadata(unet, rank),
    )


def _metadata(unet: Any, rank: int) -> dict[str, Any]:
    config = unet.peft_config["default"]
    return {"r": rank, "lora_alpha": config.lora_alpha, "target_modules": sorted(config.target_modules)}


def load_lora(unet: Any, file: Path) -> None:
    """Load an adapter written by :func:`save_lora`, asserting that every tensor of the file found its place.

    Raises:
        UserError: When the file cannot be read or does not fit the model.
    """
    from diffusers import StableDiffusionPipeline
    from safetensors import SafetensorError

    try:
        state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
            str(file.parent), weight_name=file.name, return_lora_metadata=True, use_safetensors=True
        )
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"the adapter {file} cannot be read: copy or export it again") from error
    try:
        StableDiffusionPipeline.load_lora_into_unet(
            state, network_alphas=alphas, unet=unet, adapter_name="default", metadata=metadata
        )
    except (RuntimeError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"the adapter {file} does not fit the model beside it: {first}") from error
    loaded = len(lora_parameters(unet))
    if loaded != len(state):
        raise UserError(f"the adapter {file} has {len(state)} tensors and the model took {loaded}: not the same model")
    unet.eval().requires_grad_(False)
