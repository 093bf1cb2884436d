"""What a run will cost, told before a weight is loaded: batches, network evaluations, memory, time.

The denoiser is built from its config without memory (PyTorch's ``meta`` device), one forward is traced through it to
count its arithmetic and the size of its activations, and a small convolution is timed to learn this machine's speed.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clinalign.core.config import RewardConfig, TuneConfig
from clinalign.core.errors import UserError
from clinalign.core.precision import pick_device
from clinalign.data.prepared import PreparedDataset
from clinalign.generation.model_folder import check_model_folder, find_model_folder
from clinalign.rewards import REWARDS, load_reward
from clinalign.tuning.plan import Plan, plan_epoch
from clinalign.workflows.check_reward import check_file, require_check
from clinalign.workflows.tune import prompt_source, refuse_tuned

BYTES = 4  # float32 weights and activations
EFFICIENCY = 0.5  # a whole network reaches about half the speed of one well-shaped convolution (R; seen 0.4 to 0.6)


@dataclass(frozen=True)
class Cost:
    """Predicted cost; estimates, good to a factor of about two.

    Attributes:
        parameters: Weights of the denoiser.
        gflop: Arithmetic of one network evaluation, in 10^9 multiply-adds times two.
        memory_gb: Peak memory over the imports, in GiB: weights, one micro-batch of activations, trajectories.
        seconds_per_epoch: Time of an epoch.
        seconds: Time of the run.
    """

    parameters: int
    gflop: float
    memory_gb: float
    seconds_per_epoch: float
    seconds: float


def dry_run(config: TuneConfig, processes: int = 1) -> dict[str, Any]:
    """Check a config as far as possible without loading a model, and predict what the run costs.

    Args:
        config: The run's config.
        processes: Number of processes that would share the work.

    Returns:
        ``plan`` and ``cost`` as plain values, and ``prompts``, the number of distinct prompts.

    Raises:
        UserError: For what is wrong in config, data or model folder.
    """
    device = pick_device(config.train.device)
    plan = plan_epoch(config, processes, device.type == "cuda")
    dataset = PreparedDataset.open(config.data.path)
    prompts = prompt_source(dataset, config)
    refuse_tuned(config.generator.model)
    for reward in config.rewards:
        look_at_reward(reward, device)
    evaluator = config.evaluate.evaluator
    if evaluator is not None and not evaluator.is_dir():
        raise UserError(f"evaluate.evaluator: no folder at {evaluator}; make one with 'clinalign train reward'")
    cost = predict_cost(config, plan, device)
    return {"plan": plan.to_json(), "cost": vars(cost), "prompts": len({name for name, _ in prompts.choices})}


def look_at_reward(config: RewardConfig, device: torch.device) -> None:
    """Check a reward of the config as far as possible without reading its weights.

    Raises:
        UserError: For an unknown reward, a missing folder, or one that was never checked.
    """
    REWARDS.get(config.name)
    if not config.folders:
        reward = load_reward(config.name, None, config.settings, device)  # or it says that it needs a folder
        if config.require_check:
            require_check(reward, None)
    for folder in config.folders:
        if not folder.exists():
            raise UserError(f"reward '{config.name}': nothing at {folder}; make one with 'clinalign train reward'")
        if config.require_check and not check_file(folder).is_file():
            raise UserError(
                f"reward '{config.name}' in {folder} was never checked: "
                f"run 'clinalign reward check {folder} --data DIR'"
            )


def predict_cost(config: TuneConfig, plan: Plan, device: torch.device) -> Cost:
    """Predict the cost of a run from the denoiser's config and a timing of 0.1 s.

    Raises:
        UserError: When the model is not a local folder: its size cannot be known without a download.
    """
    path = find_model_folder(Path(config.generator.model))
    check_model_folder(path)
    from diffusers import UNet2DConditionModel

    settings = json.loads((path / "unet" / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(settings)
    text = json.loads((path / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    flop, activations = _trace(unet, int(text["max_position_embeddings"]))
    parameters = sum(weight.numel() for weight in unet.parameters())
    latent = settings["in_channels"] * settings["sample_size"] ** 2
    stored = plan.images_per_process * (config.rollout.steps + 2) * latent
    # The denoiser itself, or also its gradient, AdamW's two moments, the average, the anchor and a copy for swapping
    # them; the other one or two are the text encoder and the autoencoder.
    copies = 3 if config.generator.adapter.kind == "lora" else 8
    memory = BYTES * (copies * parameters + plan.branches * plan.micro_batch * activations + stored)
    per_second = EFFICIENCY * _measure_speed(device)
    seconds = plan.evaluations / (plan.images // plan.images_per_process) * flop / per_second
    return Cost(parameters, flop / 1e9, memory / 2**30, seconds, seconds * config.train.epochs)


def _trace(unet: Any, tokens: int) -> tuple[float, int]:
    """Return the arithmetic of one forward and the number of activations it leaves for a backward."""
    from torch.utils.flop_counter import FlopCounterMode

    kept = 0

    def count(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        nonlocal kept
        if isinstance(output, torch.Tensor) and not list(module.children()):
            kept += output.numel()

    handles = [module.register_forward_hook(count) for module in unet.modules()]
    side, channels = int(unet.config.sample_size), int(unet.config.in_channels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(
            torch.empty(1, channels, side, side, device="meta"),
            torch.zeros(1, dtype=torch.long, device="meta"),
            torch.empty(1, tokens, int(unet.config.cross_attention_dim), device="meta"),
        )
    for handle in handles:
        handle.remove()
    return float(counter.get_total_flops()), kept


def _measure_speed(device: torch.device) -> float:
    """Return floating-point operations a second of a 3x3 convolution with 128 channels."""
    layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(device)
    images = torch.zeros(16, 128, 16, 16, device=device)
    best = math.inf
    with torch.no_grad():
        for _ in range(4):
            start = time.perf_counter()
            layer(images)
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return 2 * 16 * 16 * 16 * 128 * 128 * 9 / best
