"""The one supervised training loop for small networks.

AdamW, warm-up and cosine decay, an exponential moving average of the weights, augmentation on the fly, early stopping
on the validation score. Images stay 8-bit in memory and become float one batch at a time.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

import torch
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.images import to_uint8
from clinalign.core.progress import track
from clinalign.core.seeds import derive_seed
from clinalign.networks.augment import augment, check_recipe
from clinalign.networks.losses import masked_bce
from clinalign.networks.scores import mean_auroc

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Score = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], float]
Vary = Callable[[torch.Tensor, torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Labelled:
    """Images and what is known of them.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        labels: ``(N, K)`` float32, or masks ``(N, K, H, W)`` bool; meaningless where not known.
        known: ``(N, K)`` bool.
    """

    images: torch.Tensor
    labels: torch.Tensor
    known: torch.Tensor

    @classmethod
    def of(cls, images: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> Labelled:
        """Build from float images in ``[0, 1]``."""
        return cls(to_uint8(images), labels.float(), known.bool())

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


@dataclass(frozen=True)
class FitSettings:
    """How long and how hard to train.

    Attributes:
        epochs: Passes over the data; the cosine ends with the last one.
        batch_size: Images in a step.
        learning_rate: Peak of the schedule, reached after ``warmup`` of all steps.
        weight_decay: AdamW's.
        warmup: Share of the steps with a rising learning rate.
        ema: Decay of the averaged weights, which are the ones that are kept; 0 keeps the last weights.
        patience: Stop after so many epochs without a better validation score; 0 never stops early.
        augmentation: A recipe of :mod:`clinalign.networks.augment`.
        max_pos_weight: Ceiling of the weight of a rare attribute's positive images.
        seconds: Time budget; where it binds, the cosine is shortened to end with it, and the result depends on the
            speed of the machine. ``None`` for no limit.
        seed: Fixes order, augmentation and dropout.
    """

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    ema: float = 0.99
    patience: int = 15
    augmentation: str = "dermoscopy"
    max_pos_weight: float = 20.0
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: Naming the setting that is out of range.
        """
        for entry in fields(self):
            value, numeric = getattr(self, entry.name), entry.name == "seconds" or isinstance(entry.default, float)
            wanted = (int, float) if numeric else type(entry.default)
            if value is None and entry.default is None:
                continue
            if not isinstance(value, wanted) or isinstance(value, bool):
                kind = "a number" if numeric else "a whole number" if wanted is int else "a word"
                raise UserError(f"{entry.name} must be {kind}, got {value!r}")
        check_recipe(self.augmentation)
        for name in ("epochs", "batch_size", "learning_rate", "max_pos_weight"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise UserError(f"ema must lie in [0, 1), got {self.ema}")
        if self.seconds is not None and self.seconds <= 0:
            raise UserError(f"seconds must be above 0, got {self.seconds}")


@dataclass
class FitResult:
    """What happened: the best epoch (from 1), its validation score, seconds, and one row an epoch."""

    best_epoch: int = 0
    best_score: float = -math.inf
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    model: nn.Module,
    train: Labelled,
    validation: Labelled,
    settings: FitSettings,
    loss: Loss | None = None,
    score: Score = mean_auroc,
    forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
    words: str = "training",
    vary: Vary | None = None,
    rows: torch.Tensor | None = None,
) -> FitResult:
    """Train ``model`` in place and leave the best averaged weights in it, in evaluation mode.

    Args:
        model: The network, on the device to train on.
        train: What to learn from.
        validation: What decides when to stop; other patients or lesions than ``train``.
        settings: See :class:`FitSettings`.
        loss: ``(outputs, labels, known)`` to a scalar; by default binary cross-entropy over known labels, with the
            positives of rare attributes weighted up.
        score: ``(outputs, labels, known)`` to a number, higher is better, NaN when undefined (the last epoch wins).
        forward: How to call the network on float images; ``model`` itself by default.
        words: Shown beside the progress bar.
        vary: ``(images, labels, generator)`` to changed images and the labels that follow the change; by default the
            augmentation of the settings, which leaves labels as they are.
        rows: ``(steps, batch size)`` numbers of the images of every step, in place of passes over the data in a random
            order; an epoch is then an equal part of the steps.

    Returns:
        The history.

    Raises:
        UserError: When there are no images, or the loss stops being finite.
    """
    if not len(train) or not len(validation):
        raise UserError(f"nothing to train on: {len(train)} training and {len(validation)} validation images")
    forward = forward or model
    device = next(model.parameters()).device
    loss = loss or masked_bce(train.labels, train.known, settings.max_pos_weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    averaged = copy.deepcopy(model.state_dict())
    best = averaged
    generator = torch.Generator(device).manual_seed(derive_seed(settings.seed, "augmentation"))
    order = torch.Generator().manual_seed(derive_seed(settings.seed, "order"))
    steps_an_epoch = max(1, len(train) // settings.batch_size if rows is None else len(rows) // settings.epochs)
    result, step, start = FitResult(), 0, time.monotonic()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(settings.seed, "dropout"))
        for epoch in track(range(1, settings.epochs + 1), words):
            model.train()
            total = 0.0
            drawn = (
                _batches(len(train), settings.batch_size, steps_an_epoch, order)
                if rows is None
                else iter(rows[(epoch - 1) * steps_an_epoch : epoch * steps_an_epoch])
            )
            for batch in drawn:
                images, labels, known = _take(train, batch, device)
                progress = _progress(step, steps_an_epoch * settings.epochs, time.monotonic() - start, settings.seconds)
                for group in optimizer.param_groups:
                    group["lr"] = settings.learning_rate * schedule(progress, settings.warmup)
                if vary is not None:
                    images, labels = vary(images, labels, generator)
                else:
                    images = augment(images, settings.augmentation, generator)
                value = loss(forward(images), labels, known)
                if not torch.isfinite(value):
                    raise UserError(f"the loss became {value.item()} in epoch {epoch}: lower the learning rate")
                optimizer.zero_grad(set_to_none=True)
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                step += 1
                total += value.item()
                average_weights(averaged, model.state_dict(), min(settings.ema, step / (step + 10)))
            reached = _validate(model, averaged, forward, validation, score, settings.batch_size)
            row = {"epoch": float(epoch), "loss": total / steps_an_epoch, "score": reached}
            result.history.append(row)
            if not reached <= result.best_score:  # also when NaN: nothing better is known
                result.best_epoch, result.best_score = epoch, reached
                best = copy.deepcopy(averaged)
            late = settings.seconds is not None and time.monotonic() - start >= settings.seconds
            if late or (settings.patience and epoch - result.best_epoch >= settings.patience):
                break
    model.load_state_dict(best)
    model.eval()
    result.seconds = time.monotonic() - start
    return result


def schedule(progress: float, warmup: float) -> float:
    """Return the share of the peak learning rate at ``progress`` in ``[0, 1]``: linear warm-up, then cosine to 1 %."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))


def average_weights(averaged: dict[str, torch.Tensor], current: dict[str, torch.Tensor], decay: float) -> None:
    """Move ``averaged`` towards ``current`` in place; integer buffers are copied."""
    with torch.no_grad():
        for name, tensor in current.items():
            if tensor.is_floating_point():
                averaged[name].lerp_(tensor, 1.0 - decay)
            else:
                averaged[name].copy_(tensor)


def predict(
    forward: Callable[[torch.Tensor], torch.Tensor], data: Labelled, device: torch.device, batch_size: int = 128
) -> torch.Tensor:
    """Run ``forward`` over all images of ``data`` without gradients; outputs on the CPU. The caller sets the mode."""
    with torch.no_grad():
        parts = [forward(part.to(device).float() / 255.0).cpu() for part in torch.split(data.images, batch_size)]
    return torch.cat(parts)


def _batches(count: int, size: int, steps: int, order: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield ``steps`` batches of row numbers in a new random order; an incomplete last batch is left out."""
    rows = torch.randperm(count, generator=order)
    for step in range(steps):
        yield rows[step * size : (step + 1) * size]


def _take(data: Labelled, rows: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return float images, labels and known of ``rows`` on ``device``."""
    images = data.images[rows].to(device).float() / 255.0
    return images, data.labels[rows].to(device), data.known[rows].to(device)


def _progress(step: int, steps: int, elapsed: float, seconds: float | None) -> float:
    """Return how far the schedule is: by steps, or by time where the time budget is the nearer end."""
    return min(1.0, max(step / steps, elapsed / seconds if seconds else 0.0))


def _validate(
    model: nn.Module,
    averaged: dict[str, torch.Tensor],
    forward: Callable[[torch.Tensor], torch.Tensor],
    data: Labelled,
    score: Score,
    batch_size: int,
) -> float:
    """Score the averaged weights, then put the current ones back."""
    current = copy.deepcopy(model.state_dict())
    model.load_state_dict(averaged)
    model.eval()
    outputs = predict(forward, data, next(model.parameters()).device, 4 * batch_size)
    model.load_state_dict(current)
    return score(outputs, data.labels, data.known)
