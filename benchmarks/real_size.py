"""Stable Diffusion 1.5's sizes with random weights: images a second sampled and trained, against a bare loop.

    python benchmarks/real_size.py --json            # on a GPU: 512 px, 860 M parameters
    python benchmarks/real_size.py --tiny --json     # the same code at toy size, on a CPU

The bare loop calls the same network in the same batches and precision, with guidance, LoRA and the same number of
forwards and backwards, and does nothing else. The share of the card's peak is counted arithmetic over time and
``--peak-tflops``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from settings import machine, print_json

from clinalign.core.config import TuneConfig, parse_config
from clinalign.core.precision import autocast
from clinalign.core.types import Case, RewardResult
from clinalign.generation.adapters import add_lora, lora_parameters
from clinalign.generation.architecture import fit_tokenizer
from clinalign.generation.generator import Generator
from clinalign.tuning.advantage import Advantages
from clinalign.tuning.objectives import build_objective
from clinalign.tuning.objectives.base import Policy, Turn
from clinalign.tuning.prompts import Request
from clinalign.tuning.rollout import Rollout, roll_out
from clinalign.tuning.update import accumulate

REAL = {"channels": (320, 640, 1280, 1280), "width": 768, "layers": 12, "side": 64, "vae": (128, 256, 512, 512)}
TINY = {"channels": (32, 64), "width": 32, "layers": 1, "side": 8, "vae": (16, 32)}


class NoReward:
    """A reward that costs nothing."""

    name = identity = "none"

    def __init__(self) -> None:
        self.rewards: dict[str, Any] = {}
        self.weights: dict[str, float] = {}

    def __call__(self, images: torch.Tensor, cases: Any) -> RewardResult:
        """Score every image 0."""
        return RewardResult(torch.zeros(len(images)), torch.ones(len(images), dtype=torch.bool))


def build(size: dict[str, Any], device: str) -> Generator:
    """Return a Stable Diffusion pipeline of a size, with random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = fit_tokenizer(["a dermoscopic image with melanoma (MEL) showing hair"])
    levels, width = len(size["channels"]), size["width"]
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width,
            num_hidden_layers=size["layers"], num_attention_heads=max(1, width // 64),
            max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=size["side"], cross_attention_dim=width, block_out_channels=size["channels"],
        attention_head_dim=8, norm_num_groups=32,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=size["vae"], latent_channels=4, norm_num_groups=16,
        down_block_types=("DownEncoderBlock2D",) * len(size["vae"]),
        up_block_types=("UpDecoderBlock2D",) * len(size["vae"]),
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1,
        clip_sample=False,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae,
        text,
        tokenizer,
        unet,
        scheduler,
        None,
        None,
        requires_safety_checker=False,  # type: ignore[arg-type]
    )
    return Generator(pipeline, device)


def seconds(action: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of an action, after one that is not counted."""
    found = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return median(found[1:])


def config_for(steps: int, guidance: float, precision: str) -> TuneConfig:
    """Return the config whose update rule is timed."""
    return parse_config(
        {
            "data": {"path": "."},
            "generator": {"model": "random"},
            "rewards": [{"name": "brightness"}],
            "rollout": {"steps": steps, "guidance": guidance},
            "train": {"precision": precision},
        }
    )


def main() -> None:
    """Time the engine and the bare loop in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="toy size")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument(
        "--precision", choices=["fp32", "bf16"], default="bf16" if torch.cuda.is_available() else "fp32"
    )
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, help="of the card in this precision, for the share of its peak")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("the real size needs a GPU: try --tiny")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    generator = build(TINY if arguments.tiny else REAL, device)
    add_lora(generator.unet, 4, "attention", 0)
    config = config_for(arguments.steps, arguments.guidance, arguments.precision)
    parameters = dict(lora_parameters(generator.unet))
    objective = build_objective(config, Policy(generator, parameters, generator.anchor, NoReward()))
    count = arguments.images
    requests = [Request(Case(str(k), "melanoma showing hair"), "p", k) for k in range(count)]
    sampler = objective.sampler(1)
    rollout: Rollout = roll_out(generator, requests, sampler, count)
    signs = torch.tensor([1.0, -1.0]).repeat(count)[:count]
    active = torch.ones(count, dtype=torch.bool)
    turn = Turn(1, 0, 1, Advantages(signs, active, 0.0), active, count, 0, count)

    def train() -> None:
        for parameter in parameters.values():
            parameter.grad = None
        accumulate(objective, rollout, objective.rows(turn, rollout), arguments.micro_batch)

    condition, schedule = rollout.condition, sampler.schedule
    text = torch.cat([condition.empty.expand_as(condition.embeddings), condition.embeddings])

    def predict(x: torch.Tensor, step: int, words: torch.Tensor) -> torch.Tensor:
        at = schedule.timesteps[step].to(device).expand(2 * len(x))
        with autocast(config.train.precision, generator.device):
            empty, full = generator.unet(torch.cat([x, x]), at, words).sample.chunk(2)
        return empty + arguments.guidance * (full - empty)

    @torch.no_grad()
    def bare_sampling() -> None:
        x = torch.randn(count, *generator.latent_shape, device=device)
        for step in range(arguments.steps):
            x = x + 0.1 * predict(x, step, text).float()
        generator.decode(x)

    def bare_training() -> None:
        for parameter in parameters.values():
            parameter.grad = None
        for step in range(arguments.steps):
            for start in range(0, count, arguments.micro_batch):
                part = slice(start, start + arguments.micro_batch)
                words = torch.cat([half[part] for half in text.chunk(2)])
                predict(rollout.latents[part, step], step, words).float().square().mean().backward()

    engine = [seconds(lambda: roll_out(generator, requests, sampler, count), arguments.repeats)]
    bare = [seconds(bare_sampling, arguments.repeats)]
    engine.append(seconds(train, arguments.repeats))
    bare.append(seconds(bare_training, arguments.repeats))
    result: dict[str, Any] = {
        "benchmark": "real_size",
        "parameters": sum(weight.numel() for weight in generator.unet.parameters()),
        "images_per_second": {"sampled": count / engine[0], "trained": count / engine[1]},
        "over_bare_loop": {"sampling": engine[0] / bare[0], "training": engine[1] / bare[1]},
        "settings": {name: value for name, value in vars(arguments).items() if name != "json"},
        "machine": machine(),
    }
    if arguments.peak_tflops:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            bare_sampling()
        result["share_of_peak_sampling"] = counter.get_total_flops() / engine[0] / (arguments.peak_tflops * 1e12)
    if torch.cuda.is_available():
        result["peak_gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if arguments.json:
        print_json(result)
        return
    print({name: result[name] for name in ("images_per_second", "over_bare_loop")})


if __name__ == "__main__":
    main()
