"""A tuner on the tiny generator, and a toy policy of a few numbers that learns in a second."""

from __future__ import annotations

import copy
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
from clinalign.tuning.advantage import Advantages
from clinalign.tuning.objectives.base import Rows, Turn
from clinalign.tuning.rollout import Rollout, roll_out
from clinalign.tuning.update import UpdateLog, accumulate


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


@pytest.fixture(scope="session")
def opened(tiny: Any) -> Any:
    """The tiny generator, opened once; copies of it are cheap."""
    from clinalign.generation.generator import Generator

    return Generator.load(tiny.model)


@pytest.fixture
def make_tuner(
    tiny_config: Callable[..., TuneConfig], cases: list[Case], opened: Any, tmp_path: Path
) -> Callable[..., Any]:
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
        generator = copy.deepcopy(opened)
        change_generator(generator)
        if toy:
            generator.unet = ToyDenoiser()
            generator.decode = generator.decode_with_gradient = toy_decode  # type: ignore[method-assign]
        elif config.generator.adapter.kind == "lora":
            add_lora(generator.unet, config.generator.adapter.rank, config.generator.adapter.targets, config.seed)
        return Tuner(
            config, generator, CombinedReward({"toy": reward or load_reward("brightness")}, {"toy": 1.0}),
            PromptSource(cases, config.data.prompts, config.seed, config.rollout.seeds_per_prompt), plan_epoch(config),
            RunFolder(tmp_path / "run"), Accelerator(cpu=True),
        )  # fmt: skip

    return make


@pytest.fixture
def drawn() -> Callable[..., tuple[Rollout, Rows]]:
    """Return the first pictures of an epoch, one an advantage, and the rows of an optimiser step on them."""

    def make(
        tuner: Any,
        advantages: torch.Tensor,
        epoch: int = 1,
        update: int = 0,
        updates: int = 1,
        rollout: Rollout | None = None,
    ) -> tuple[Rollout, Rows]:
        objective, count = tuner.objective, len(advantages)
        if rollout is None:
            objective.begin_epoch()
            with objective.behaviour():
                rollout = roll_out(tuner.generator, tuner.requests(epoch)[:count], objective.sampler(epoch), count)
        everyone = torch.ones(count, dtype=torch.bool)
        turn = Turn(
            epoch, update, updates, Advantages(advantages, everyone, 0.0), everyone,
            tuner.config.rollout.images_per_prompt, first=0, mine=count,
        )  # fmt: skip
        return rollout, objective.rows(turn, rollout)

    return make


@pytest.fixture
def perturb() -> Callable[..., None]:
    """Move what a tuner trains, each weight by a random amount of a given size."""

    def move(tuner: Any, size: float, seed: int = 5) -> None:
        chance = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in tuner.parameters.values():
                parameter.add_(size * torch.randn(parameter.shape, generator=chance))

    return move


@pytest.fixture
def gradients() -> Callable[..., tuple[UpdateLog, dict[str, torch.Tensor]]]:
    """Return the log and the gradients of one optimiser step's rows, by name."""

    def make(
        tuner: Any, rollout: Rollout, rows: Rows, micro_batch: int = 64
    ) -> tuple[UpdateLog, dict[str, torch.Tensor]]:
        tuner.optimizer.zero_grad()
        log = accumulate(tuner.objective, rollout, rows, micro_batch)
        found = {name: parameter.grad.clone() for name, parameter in tuner.parameters.items()}
        tuner.optimizer.zero_grad()
        return log, found

    return make
