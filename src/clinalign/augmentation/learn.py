"""The fixed classifier: the same network, steps, batches and rule of stopping for every arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from clinalign.augmentation.arms import Arm
from clinalign.augmentation.batches import Stratum, balanced_rows, class_shares, natural_rows, stream
from clinalign.augmentation.cells import Problem
from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.networks.backbones import check_backbone
from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.fit import FitSettings, Labelled, fit, predict
from clinalign.networks.losses import masked_bce
from clinalign.networks.scores import mean_auroc


@dataclass(frozen=True)
class LearnSettings:
    """How the classifier is trained, the same for every arm.

    Attributes:
        steps: Optimiser steps.
        batch_size: Images in a step.
        learning_rate: Peak of a cosine schedule with warm-up.
        backbone: timm name.
        image_size: Side in pixels at which it looks; ``None`` takes the dataset's.
        checks: Looks at the validation split, evenly spread over the steps; the best one's weights are kept.
        augmentation: Recipe of :mod:`clinalign.networks.augment` for the arms with classical augmentation.
        synthetic_share: Share of generated images in a filled cell of an arm with balanced classes.
        first_share: Share of the steps on generated images where they come first.
    """

    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 2e-3
    backbone: str = "test_resnet"
    image_size: int | None = None
    checks: int = 10
    augmentation: str = "dermoscopy"
    synthetic_share: float = 0.5
    first_share: float = 0.33

    def __post_init__(self) -> None:
        """Refuse what trains nothing.

        Raises:
            UserError: Naming the option.
        """
        if not 1 <= self.checks <= self.steps:
            raise UserError(f"--steps {self.steps}: write at least {self.checks}, as many as looks at the validation")
        if self.batch_size < 2:
            raise UserError(f"--train-batch {self.batch_size}: write at least 2")
        if not 0 < self.synthetic_share <= 1:
            raise UserError(f"--synthetic-share {self.synthetic_share:g}: write a share above 0 and at most 1")
        if not 0 < self.first_share < 1:
            raise UserError(f"first_share {self.first_share:g}: write a share between 0 and 1")
        check_backbone(self.backbone)

    @property
    def used_steps(self) -> int:
        """Steps that divide evenly into the looks."""
        return self.steps - self.steps % self.checks


@dataclass(frozen=True)
class Material:
    """Everything that an arm may be trained on.

    Attributes:
        images: Real training images, then generated ones.
        real: Class and stratum of each real image.
        added: Side to row and stratum of its filtered images.
        every: Side to rows of its images of every class, as drawn.
    """

    images: Labelled
    real: Sequence[Stratum]
    added: Mapping[str, Sequence[tuple[int, str]]]
    every: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Learned:
    """What a trained classifier said.

    Attributes:
        logits: Name of a test set to ``(N, K)`` scores: log-probabilities of exclusive classes, else logits.
        shares: ``(K,)`` share of each class in what it was trained on.
        best_step: Step whose weights were kept.
        score: Their mean AUROC on the validation split.
    """

    logits: dict[str, torch.Tensor]
    shares: torch.Tensor
    best_step: int
    score: float


def plan_rows(arm: Arm, material: Material, settings: LearnSettings, seed: int) -> torch.Tensor:
    """Return the ``(steps, batch size)`` rows of an arm.

    Args:
        arm: The arm.
        material: What there is.
        settings: See :class:`LearnSettings`.
        seed: The same for all arms of a pair.

    Raises:
        UserError: When an arm of generated images has none.
    """
    slots = settings.used_steps * settings.batch_size
    key = derive_seed(seed, "rows")
    added = list(material.added.get(arm.side, ())) if arm.side else []
    if arm.only:
        rows = stream(list(material.every.get(str(arm.side), ())), slots, derive_seed(key, "generated"))
        return rows.view(-1, settings.batch_size)
    mixed = [] if arm.first else added
    if arm.balanced:
        rows = balanced_rows(material.real, mixed, slots, key, settings.synthetic_share)
    else:
        rows = natural_rows(len(material.real), [row for row, _ in mixed], slots, key)
    if arm.first:
        both = [row for row, _ in added] + list(material.every.get(str(arm.side), ()))
        early = round(settings.first_share * settings.used_steps) * settings.batch_size
        rows = torch.cat([stream(both, early, derive_seed(key, "generated")), rows[: slots - early]])
    return rows.view(-1, settings.batch_size)


def learn(
    arm: Arm,
    material: Material,
    validation: Labelled,
    tests: Mapping[str, Labelled],
    problem: Problem,
    settings: LearnSettings,
    seed: int,
    device: torch.device | str = "cpu",
) -> Learned:
    """Train the classifier of one arm and seed, and let it look at the test sets.

    First weights, dropout and the order of real images depend on ``seed`` alone, so that arms of one seed are a pair.

    Args:
        arm: What to train on.
        material: What there is.
        validation: Real images that decide which weights are kept.
        tests: Test sets by name.
        problem: Classes, and whether they exclude each other.
        settings: See :class:`LearnSettings`.
        seed: See above.
        device: Where to train.

    Raises:
        UserError: See :func:`plan_rows` and :func:`clinalign.networks.fit.fit`.
    """
    rows = plan_rows(arm, material, settings, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        size = settings.image_size or int(material.images.images.shape[-1])
        model = AttributeClassifier(problem.classes, size, settings.backbone).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    exclusive = problem.exclusive

    def forward(images: torch.Tensor) -> torch.Tensor:
        logits = model.raw_logits(images)
        return logits.log_softmax(1) if exclusive else logits

    fit_settings = FitSettings(
        epochs=settings.checks,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        patience=0,  # every arm takes all steps; the best look at the validation split is kept
        augmentation=settings.augmentation if arm.augmented else "none",
        seed=seed,
    )
    result = fit(
        model, material.images, validation, fit_settings, _loss(problem), mean_auroc, forward, f"{arm.name}", rows=rows
    )
    known = material.images.known.float()
    present, counted = (class_shares(rows.flatten(), part) for part in (material.images.labels * known, known))
    return Learned(
        {name: predict(forward, data, torch.device(device)) for name, data in tests.items()},
        present / counted.clamp_min(1e-6),
        result.best_epoch * (settings.used_steps // settings.checks),
        result.best_score,
    )


def _loss(problem: Problem) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the loss: cross-entropy of exclusive classes, else binary cross-entropy over known labels.

    Neither weights classes: how often an arm sees a class is decided by its batches alone.
    """
    if problem.exclusive:
        return lambda outputs, labels, known: F.nll_loss(outputs, labels.argmax(1))
    one = torch.ones(1, len(problem.classes))
    return masked_bce(one, one.bool(), 1.0)
