"""Train the classifier of the realism reward: real images against a generator's, and against spoilt real ones."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError
from clinalign.core.images import to_uint8
from clinalign.core.precision import pick_device
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.augment import move
from clinalign.networks.calibration import calibrate
from clinalign.networks.fit import FitSettings, Labelled, fit, predict
from clinalign.networks.labelled_data import CHUNK, read_labelled
from clinalign.networks.realism import REAL, RealismClassifier
from clinalign.networks.scores import auroc
from clinalign.networks.spoil import KINDS, spoil
from clinalign.workflows.evaluation_cases import picture_files
from clinalign.workflows.prompt_table import read_table
from clinalign.workflows.reward_folder import (
    DEFAULT_BACKBONE,
    augmentation_of,
    check_free,
    check_names,
    check_split,
    how_long,
    save_trained,
)
from clinalign.workflows.train_attributes import default_image_size

EPOCHS = 12
MINIMUM_IMAGES = 40  # generated ones; a quarter of them validates and tests
SPOILT_SHARE = 0.3  # of the real images of a step, spoilt and called not real
TABLE = "metadata.csv"


def train_realism(
    data: Path | str,
    out: Path | str,
    split: str = "train",
    generated: Path | str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
    weights: Path | None = None,
    dropout: float = 0.3,
    device: str = "auto",
    **fit_settings: Any,
) -> dict[str, Any]:
    """Train a classifier of real images on ``split`` and on images of the generator that is to be tuned.

    Args:
        data: Prepared dataset.
        out: Folder to make: ``model.safetensors``, ``card.json``, ``metrics.json``.
        split: ``train`` (rewards) or ``judge`` (evaluators).
        generated: Folder of `clinalign sample`: pictures of the base model for prompts of the dataset; an eighth of
            them validates, another eighth tests.
        backbone: timm name; by default another one for ``judge`` than for ``train``.
        image_size: Side at which the network looks; see
            :func:`~clinalign.workflows.train_attributes.default_image_size`.
        weights: Local safetensors file of pretrained backbone weights.
        dropout: Before the last layer.
        device: ``cpu``, ``cuda`` or ``auto``.
        **fit_settings: Fields of :class:`clinalign.networks.fit.FitSettings` but ``augmentation``: pictures are moved
            and never smoothed or made noisy, which is what is to be seen.

    Returns:
        ``summary``, ``auroc`` (real test images over ``generated`` and over each kind of spoilt ones), and how it was
        trained.

    Raises:
        UserError: When the data cannot be used, no generated image is given, or ``out`` holds something else.
    """
    data, out = Path(data), Path(out)
    known = [entry.name for entry in fields(FitSettings) if entry.name != "augmentation"]
    check_names("realism", fit_settings, known, ("generated",))
    check_split(split)
    check_free(out)
    if generated is None:
        raise UserError(
            "realism is learnt against a generator's pictures: give the output of `clinalign sample` on the base model "
            "with --set generated=DIR"
        )
    dataset = PreparedDataset.open(data)
    settings = FitSettings(**{"epochs": EPOCHS, "augmentation": "none", **fit_settings})
    drawn, drawn_by = read_generated(dataset, Path(generated), settings.seed)
    eighth = len(drawn) // 8
    parts = {"test": drawn[:eighth], "validation": drawn[eighth : 2 * eighth], split: drawn[2 * eighth :]}
    torch.manual_seed(derive_seed(settings.seed, "weights"))
    model = RealismClassifier(
        [REAL], image_size or default_image_size(dataset.image_size), backbone or DEFAULT_BACKBONE[split],
        dropout=dropout, weights=weights,
    ).to(pick_device(device))  # fmt: skip
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    real = {name: read_labelled(dataset, dataset.cases(name), ()).images for name in parts}
    train, validation = (_labelled(real[name], parts[name]) for name in (split, "validation"))
    recipe = augmentation_of(dataset)

    def vary(
        images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move every picture, and spoil some of the real ones."""
        images = move(images, recipe, generator)
        draw = torch.rand(len(images), generator=generator, device=images.device)
        chosen = (draw < SPOILT_SHARE) & (labels[:, 0] > 0.5)
        kind = KINDS[int(torch.randint(len(KINDS), (), generator=generator, device=images.device))]
        if chosen.any():
            images, labels = images.clone(), labels.clone()
            images[chosen], labels[chosen] = spoil(images[chosen], kind, generator), 0.0
        return images, labels

    result = fit(
        model, train, validation, settings, forward=model.raw_logits, words=f"training {model.backbone_name}", vary=vary
    )
    raw = predict(model.raw_logits, validation, model.device)
    lines = calibrate(
        model, raw, validation.labels, validation.known, train.labels, train.known, settings.max_pos_weight
    )
    areas = measure(model, real["test"], parts["test"], settings.seed)
    metrics: dict[str, Any] = {
        "auroc": areas,
        "n": {"real": len(real["test"]), "generated": len(parts["test"])},
        **how_long(result),
        "summary": "AUROC of real images over " + ", ".join(f"{name} {value:.3f}" for name, value in areas.items()),
    }
    return save_trained(
        model,
        out,
        dataset,
        split,
        metrics,
        generated={"images": len(drawn), "model": drawn_by},
        calibration={REAL: asdict(lines[REAL])},
        fit=asdict(settings),
        history=result.history,
    )


def read_generated(dataset: PreparedDataset, folder: Path, seed: int) -> tuple[torch.Tensor, str]:
    """Read the pictures of a folder of `clinalign sample`.

    Returns:
        The pictures in random order, ``(N, 3, H, W)`` uint8, and the identity of the generator, as the table states it.

    Raises:
        UserError: When the folder is none, names a file that is not there, or holds too few.
    """
    table = folder / TABLE
    if not table.is_file():
        raise UserError(f"generated={folder} has no {TABLE}: give the output of `clinalign sample`")
    rows = read_table(table, "file_name")
    paths = picture_files(table, rows)
    if len(paths) < MINIMUM_IMAGES:
        raise UserError(f"{folder} holds {len(paths)} pictures, at least {MINIMUM_IMAGES} are needed: sample more")
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(derive_seed(seed, "generated")))
    cases = [Case(paths[row].name, "", image=paths[row]) for row in order.tolist()]
    pictures = [to_uint8(dataset.images(cases[start : start + CHUNK])) for start in range(0, len(cases), CHUNK)]
    return torch.cat(pictures), rows[0].get("model", "unknown")


def measure(model: RealismClassifier, real: torch.Tensor, generated: torch.Tensor, seed: int) -> dict[str, float]:
    """Return the AUROC of real test images over generated ones and over each kind of spoilt real ones."""
    chance = torch.Generator().manual_seed(derive_seed(seed, "spoil"))
    rivals = {"generated": generated}
    for kind in KINDS:
        rivals[kind] = to_uint8(spoil(real.float() / 255, kind, chance))
    return {name: _area(model, real, pictures) for name, pictures in rivals.items()}


def _area(model: RealismClassifier, real: torch.Tensor, rivals: torch.Tensor) -> float:
    data = _labelled(real, rivals)
    return auroc(predict(model, data, model.device)[:, 0], data.labels[:, 0])


def _labelled(real: torch.Tensor, not_real: torch.Tensor) -> Labelled:
    """Put real and other pictures together with their one label."""
    labels = torch.cat([torch.ones(len(real), 1), torch.zeros(len(not_real), 1)])
    return Labelled(torch.cat([real, not_real]), labels, torch.ones_like(labels, dtype=torch.bool))
