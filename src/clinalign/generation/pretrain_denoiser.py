"""Stage 1: supervised training of the denoiser (and of a text encoder built from scratch) on captioned latents."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clinalign.core.average import WeightAverage
from clinalign.core.checkpoint import (
    latest_state,
    load_state,
    optimizer_tensors,
    prune_states,
    restore_optimizer,
    save_state,
    with_prefix,
    without_prefix,
)
from clinalign.core.errors import UserError
from clinalign.core.precision import Precision, autocast
from clinalign.core.progress import track
from clinalign.core.seeds import derive_seed
from clinalign.generation.generator import Generator
from clinalign.generation.noising import add_noise, min_snr_weight, prediction_target
from clinalign.generation.one_cycle import one_cycle, restore_schedule

LatentBatch = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class DenoiserTraining:
    """Hyper-parameters of stage 1.

    Attributes:
        steps: Optimiser steps.
        batch_size: Pictures a step.
        learning_rate: Peak of the cosine schedule (R: 1e-3 from scratch at these sizes; 1e-5 for fine-tuning, PRISM).
        weight_decay: Of AdamW.
        caption_dropout: Share of captions replaced by the empty one, so that guidance works (R).
        balance: Pictures of rare captions are drawn up to so many times as often (see :func:`caption_weights`); 1 draws
            every picture alike.
        snr_gamma: Min-SNR weight of the loss (arXiv 2303.09556); 0 switches it off.
        noisy_steps: Give the noisiest steps of v-prediction their full weight (see
            :func:`~clinalign.generation.noising.min_snr_weight`).
        ema_decay: Decay of the weight average that is saved.
        grad_clip: Largest gradient norm.
        checkpoint_every: Steps between checkpoints.
        precision: ``auto`` takes bf16 where this machine is fast at it.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    caption_dropout: float = 0.1
    balance: float = 1.0
    snr_gamma: float = 5.0
    noisy_steps: bool = False
    ema_decay: float = 0.999
    grad_clip: float = 1.0
    checkpoint_every: int = 500
    precision: Precision = "auto"


def train_denoiser(
    generator: Generator,
    latents: LatentBatch,
    texts: Sequence[str],
    settings: DenoiserTraining,
    seed: int,
    state_folder: Path,
    train_text_encoder: bool,
    tokens_alone: bool = False,
) -> float:
    """Train in place, leaving the averaged weights in the generator.

    Args:
        generator: Its ``unet`` is trained, and its text encoder where asked, and its condition tokens if it has any.
        latents: Returns the ``(B, C, H, W)`` scaled latents of given rows (with any augmentation drawn from the
            random generator that it is handed).
        texts: Caption of each row.
        settings: Hyper-parameters.
        seed: Of order, noise, timesteps and dropout; step k is the same whenever the training was interrupted.
        state_folder: Where checkpoints go; the newest is resumed from.
        train_text_encoder: Train the text encoder too (from scratch); otherwise captions are embedded once.
        tokens_alone: Train the condition tokens and nothing else: prompt tuning, to be told apart from tuning by
            reinforcement (methods 5.4).

    Returns:
        Mean loss of the last tenth of the steps.

    Raises:
        UserError: When the training diverges.
    """
    device = generator.device
    modules: dict[str, torch.nn.Module] = {} if tokens_alone else {"unet": generator.unet}
    if train_text_encoder:
        modules["text_encoder"] = generator.text_encoder
    if generator.ace is not None:
        modules["ace"] = generator.ace
    parameters = {
        f"{part}.{name}": parameter.requires_grad_(True)
        for part, module in modules.items()
        for name, parameter in module.named_parameters()
    }
    optimizer = torch.optim.AdamW(
        parameters.values(),
        settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
        fused=True,  # five times faster than the default at these sizes on a CPU
    )
    schedule = one_cycle(optimizer, settings.learning_rate, settings.steps, warm_up=0.05, final_div_factor=20.0)
    average = WeightAverage(parameters, settings.ema_decay)
    losses: list[float] = []
    first = 0
    if (found := latest_state(state_folder)) is not None:
        tensors, info = load_state(found)
        with torch.no_grad():
            for name, value in without_prefix("weights", tensors).items():
                parameters[name].copy_(value)
        average.shadow = {name: value.to(device) for name, value in without_prefix("average", tensors).items()}
        restore_optimizer(optimizer, without_prefix("optimizer", tensors))
        restore_schedule(schedule, info["schedule"])
        first, average.steps, losses = info["step"], info["step"], info["losses"]

    cumulative = generator.scheduler.alphas_cumprod.to(device)
    embedded, token_rows = _prepare_texts(generator, texts, train_text_encoder)
    weights = caption_weights(texts, settings.balance) if settings.balance > 1 else None
    for module in modules.values():
        module.train()
    for step in track(range(first, settings.steps), "denoiser"):
        chance = torch.Generator().manual_seed(derive_seed(seed, "denoiser", step))
        if weights is None:
            rows = torch.randint(0, len(texts), (settings.batch_size,), generator=chance)
        else:
            rows = torch.multinomial(weights, settings.batch_size, replacement=True, generator=chance)
        clean = latents(rows, chance).to(device)
        noise = torch.randn(clean.shape, generator=chance).to(device)
        timesteps = torch.randint(0, len(cumulative), (len(rows),), generator=chance).to(device)
        dropped = torch.rand(len(rows), generator=chance) < settings.caption_dropout
        captions = torch.where(dropped, len(embedded) - 1, token_rows[rows])
        alpha = cumulative[timesteps].reshape(-1, 1, 1, 1)
        with autocast(settings.precision, device):
            if train_text_encoder:
                distinct, inverse = captions.unique(return_inverse=True)  # type: ignore[no-untyped-call]
                condition = generator.text_encoder(embedded[distinct].to(device))[0][inverse]
            else:
                condition = embedded[captions].to(device)
            noisy = add_noise(clean, noise, alpha)
            if generator.ace is not None:
                condition = generator.ace.extend(condition)
            prediction = generator.unet(noisy, timesteps, condition).sample
        target = prediction_target(clean, noise, alpha, generator.prediction_type)
        weight = min_snr_weight(alpha, settings.snr_gamma, generator.prediction_type, settings.noisy_steps)
        loss = (weight * (prediction.float() - target).square().flatten(1).mean(1)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), settings.grad_clip)
        optimizer.step()
        schedule.step()
        average.update(parameters)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise UserError(f"the loss is not a number at step {step + 1}: take a smaller --learning-rate or fp32")
        if (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
            tensors = {
                **with_prefix("weights", parameters),
                **with_prefix("average", average.shadow),
                **with_prefix("optimizer", optimizer_tensors(optimizer)),
            }
            info = {"step": step + 1, "schedule": schedule.state_dict(), "losses": losses}
            save_state(state_folder / f"step_{step + 1:07d}", tensors, info)
            prune_states(state_folder, keep=1)
    with torch.no_grad():
        for name, value in average.shadow.items():
            parameters[name].copy_(value)
    for module in modules.values():
        module.eval().requires_grad_(False)
    tail = losses[-max(1, settings.steps // 10) :]
    return sum(tail) / len(tail)


def caption_weights(texts: Sequence[str], balance: float) -> torch.Tensor:
    """Return how often each picture is drawn beside one of the commonest caption, ``(N,)`` float64.

    A caption that is k times rarer than the commonest has its pictures drawn ``min(k, balance)`` times as often: the
    limit keeps a caption with a single picture from being learnt by heart.

    Args:
        texts: Caption of each picture.
        balance: Largest weight, at least 1.
    """
    counts = Counter(texts)
    most = max(counts.values())
    return torch.tensor([min(most / counts[text], balance) for text in texts], dtype=torch.float64)


def _prepare_texts(generator: Generator, texts: Sequence[str], as_tokens: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids (or embeddings) of each distinct caption with the empty one last, and each row's caption."""
    distinct = [*dict.fromkeys(texts), ""]
    place = {text: row for row, text in enumerate(distinct[:-1])}
    if as_tokens:
        limit = generator.tokenizer.model_max_length
        tokens = generator.tokenizer(
            distinct, padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
        )
        values: torch.Tensor = tokens.input_ids
    else:
        values = generator.encode_text(distinct).embeddings
    return values, torch.tensor([place[text] for text in texts])
