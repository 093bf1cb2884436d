"""A tuner on the tiny generator, and a toy policy of a few numbers that learns in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clinalign.core.config import TuneConfig, parse_config
from clinalign.core.runs import RunFolder
from clinalign.core.types import Case, Reward


class ToyDenoiser(torch.nn.Module):
    """A policy of four numbers: it predicts one v a channel, the same everywhere, which fades as the noise does.

    Without the fading the step that lands on t = 1, whose noise is 0.04 and says nothing about the picture, would have
    fourteen times the gradient of the others and drown them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> SimpleNamespace:
        fading = (timesteps / 1000).pow(3).reshape(-1, 1, 1, 1)
        return SimpleNamespace(sample=(fading * self.shift.reshape(1, -1, 1, 1)).expand_as(x))


def toy_decode(latents: torch.Tensor) -> torch.Tensor:
    """Show the first three channels as red, green and blue around mid-grey."""
    return (0.5 + 0.1 * F.interpolate(latents[:, :3], scale_factor=2)).clamp(0, 1)


@pytest.fixture(scope="session")
def cases(tiny: Any) -> list[Case]:
    from clinalign.data.prepared import PreparedDataset

    return PreparedDataset.open(tiny.data).prompts("train")


@pytest.fixture
def tiny_config(tiny: Any) -> Callable[..., TuneConfig]:
    """Return a config of 4 prompts x 4 images and 4 steps, changed by dotted keys."""

    def make(changes: dict[str, Any] | None = None) -> TuneConfig:
        tree: dict[str, Any] = {
            "data": {"path": str(tiny.data)},
            "generator": {"model": str(tiny.model), "adapter": {"rank": 2, "targets": "all"}},
            "rollout": {"steps": 4, "guidance": 1.0, "images_per_prompt": 4, "prompts_per_epoch": 4},
            "rewards": [{"name": "brightness"}],
            "objective": {"clip_range": 0.1},
            "train": {"epochs": 2, "device": "cpu", "checkpoint_every": 1, "micro_batch": 64},
            "evaluate": {"every": 100, "prompts": 1, "images_per_prompt": 2},
        }
        for key, value in (changes or {}).items():
            *sections, last = key.split(".")
            node = tree
            for section in sections:
                node = node.setdefault(section, {})
            node[last] = value
        return parse_config(tree)

    return make


@pytest.fixture
def make_tuner(tiny_config: Callable[..., TuneConfig], cases: list[Case], tmp_path: Path) -> Callable[..., Any]:
    """Return a tuner of one process; ``toy`` puts the policy of four numbers in the denoiser's place."""
    from accelerate import Accelerator

    from clinalign.generation.adapters import add_lora
    from clinalign.generation.generator import Generator
    from clinalign.rewards import load_reward
    from clinalign.rewards.compose import CombinedReward
    from clinalign.tuning.loop import Tuner
    from clinalign.tuning.plan import plan_epoch
    from clinalign.tuning.prompts import PromptSource

    def make(
        changes: dict[str, Any] | None = None,
        reward: Reward | None = None,
        toy: bool = False,
        change_generator: Callable[[Generator], object] = lambda generator: None,
    ) -> Tuner:
        config = tiny_config(changes)
        generator = Generator.load(config.generator.model)
        change_generator(generator)
        if toy:
            generator.unet, generator.decode = ToyDenoiser(), toy_decode  # type: ignore[method-assign]
        elif config.generator.adapter.kind == "lora":
            add_lora(generator.unet, config.generator.adapter.rank, config.generator.adapter.targets, config.seed)
        return Tuner(
            config, generator, CombinedReward({"toy": reward or load_reward("brightness")}, {"toy": 1.0}),
            PromptSource(cases, config.data.prompts, config.seed, config.rollout.seeds_per_prompt), plan_epoch(config),
            RunFolder(tmp_path / "run"), Accelerator(cpu=True),
        )  # fmt: skip

    return make
