"""What is trained, how fast, and how to get back to what it was before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from clinalign.core.average import WeightAverage
from clinalign.core.config import TrainConfig, TuneConfig
from clinalign.generation.adapters import lora_parameters
from clinalign.generation.generator import Generator
from clinalign.tuning.objectives.base import Context

ACE_TOKENS = "ace.tokens"  # name of the condition tokens among the trained parameters


def decay_at(train: TrainConfig, epochs_done: float) -> float:
    """Return the factor of the learning rates after ``epochs_done`` epochs; it depends on nothing else."""
    if train.decay == "none":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, epochs_done / train.epochs)))


def build_optimizer(config: TuneConfig, parameters: Mapping[str, torch.nn.Parameter]) -> torch.optim.AdamW:
    """Return AdamW with the condition tokens in a group of their own; ``peak`` is the learning rate before decay."""
    train, ace = config.train, config.generator.ace
    network = [value for name, value in parameters.items() if name != ACE_TOKENS]
    groups = [{"params": network, "peak": train.learning_rate, "weight_decay": train.weight_decay}]
    if ACE_TOKENS in parameters:
        groups.append({"params": [parameters[ACE_TOKENS]], "peak": ace.learning_rate, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, train.learning_rate, train.betas, train.epsilon, fused=True)


def trainable_parameters(generator: Generator) -> dict[str, torch.nn.Parameter]:
    """Switch on and return what is trained: adapter, or without one the whole denoiser, and condition tokens."""
    chosen = lora_parameters(generator.unet) or dict(generator.unet.named_parameters())
    if generator.ace is not None:
        chosen[ACE_TOKENS] = generator.ace.tokens
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def anchor_of(generator: Generator, parameters: Mapping[str, torch.Tensor]) -> Context:
    """Return the context in which the generator is the anchor: its adapter off, or its first weights put back."""
    if lora_parameters(generator.unet):
        return generator.anchor
    first = WeightAverage(parameters, 0.0)  # never updated: a copy of the weights from before tuning

    @contextmanager
    def anchor() -> Iterator[None]:
        with generator.without_ace(), first.applied_to(parameters):
            yield

    return anchor
