"""Train the encoder that recognises patients or lesions, for the re-identification measure of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError
from clinalign.core.precision import pick_device
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.intervals import mean_interval
from clinalign.evaluation.suite import case_groups
from clinalign.networks.augment import augment
from clinalign.networks.fit import FitSettings, Labelled, fit, predict
from clinalign.networks.identity import IdentityEncoder
from clinalign.networks.identity_pairs import TwoViews, identity_loss
from clinalign.networks.labelled_data import read_labelled
from clinalign.networks.verification import Verification, verification_auc, verify
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

DEFAULT_FIT: dict[str, Any] = {"batch_size": 64, "epochs": 40, "weight_decay": 0.05}
MINIMUM_PATIENTS = 20  # with two photographs, to learn from and to be measured on; fewer: augmentations
FALSE_ACCEPTS = 0.01
_USE = "measuring whether synthetic images give training patients away; never for recognising people"


def train_identity(
    data: Path | str,
    out: Path | str,
    split: str = "judge",
    backbone: str | None = None,
    image_size: int | None = None,
    weights: Path | None = None,
    dropout: float = 0.0,
    width: int = 128,
    device: str = "auto",
    **fit_settings: Any,
) -> dict[str, Any]:
    """Train an identity encoder on ``split``, stop on ``validation``, measure it on ``test``.

    Genuine pairs are two photographs of one patient or lesion where at least 20 of the split have two, else two random
    changes of one photograph; the card says which (``pairs``).

    Args:
        data: Prepared dataset.
        out: Folder to make: ``model.safetensors``, ``card.json``, ``metrics.json``.
        split: ``judge``, or ``train`` for an encoder that will not measure a generator trained on ``train``.
        backbone: timm name; by default another one for ``judge`` than for ``train``.
        image_size: Side at which the network looks; by default the dataset's, and half as much again below 64 px.
        weights: Local safetensors file of pretrained backbone weights.
        dropout: Before the last layer.
        width: Of the embedding.
        device: ``cpu``, ``cuda`` or ``auto``.
        **fit_settings: Fields of :class:`clinalign.networks.fit.FitSettings` (``epochs``, ``seconds``, ``seed``, ...).

    Returns:
        ``summary``, ``pairs``, how it was trained, and ``verification`` on the test split: ``auc`` and
        ``accepted_at_0.01`` (share of genuine pairs accepted where 1 % of the impostor pairs is), with intervals over
        patients, by ``views`` (photographs and changed copies of them) and, where 20 patients have two, by
        ``photographs`` alone.

    Raises:
        UserError: When the data cannot be used, a setting is unknown or out of range, or ``out`` holds something else.
    """
    data, out = Path(data), Path(out)
    names = [entry.name for entry in fields(FitSettings) if entry.name != "max_pos_weight"]
    check_names("an identity encoder", fit_settings, names, ["width", "backbone", "image_size"])
    check_split(split)
    check_free(out)
    if not isinstance(width, int) or width < 2:
        raise UserError(f"width must be a whole number of 2 or more, got {width!r}")
    dataset = PreparedDataset.open(data)
    recipe = augmentation_of(dataset)
    settings = FitSettings(**{**DEFAULT_FIT, "augmentation": recipe, **fit_settings})
    cases = {name: dataset.cases(name) for name in (split, "validation", "test")}
    pairs = _pairs_of(cases[split])
    if pairs == "augmentations" and settings.augmentation == "none":
        raise UserError(
            f"{data}: fewer than {MINIMUM_PATIENTS} patients or lesions of split '{split}' have two photographs, and "
            "without augmentation there is no pair to learn from: give --set augmentation=..., or other data"
        )
    torch.manual_seed(derive_seed(settings.seed, "weights"))
    model = IdentityEncoder(
        image_size or default_image_size(dataset.image_size),
        backbone or DEFAULT_BACKBONE[split],
        width,
        dropout,
        weights,
    ).to(pick_device(device))
    train = _numbered(dataset, cases[split])
    groups = case_groups(cases[split])
    held = {name: _views(dataset, cases[name], settings, name) for name in ("validation", "test")}
    result = fit(
        model,
        train,
        held["validation"],
        settings,
        loss=identity_loss,
        score=lambda embedded, labels, known: verification_auc(verify(embedded, _names(labels))),
        vary=TwoViews(train.images, groups, settings.augmentation),
        words=f"training {model.backbone_name}",
    )
    metrics: dict[str, Any] = {
        "pairs": pairs,
        **_measure(model, cases["test"], held["test"]),
        "split": "test",
        **how_long(result),
    }
    metrics["summary"] = _summary(metrics)
    return save_trained(
        model,
        out,
        dataset,
        split,
        metrics,
        pairs=pairs,
        intended_use=_USE,
        fit=asdict(settings),
        history=result.history,
    )


def _pairs_of(cases: Sequence[Case]) -> str:
    """Say what genuine pairs are made of."""
    several = sum(count > 1 for count in Counter(case_groups(cases)).values())
    return "photographs" if several >= MINIMUM_PATIENTS else "augmentations"


def _numbered(dataset: PreparedDataset, cases: Sequence[Case]) -> Labelled:
    """Read pictures, each with its row number as its label."""
    numbers = torch.arange(len(cases), dtype=torch.float32)[:, None]
    return Labelled(read_labelled(dataset, cases, ()).images, numbers, torch.ones_like(numbers, dtype=torch.bool))


def _views(dataset: PreparedDataset, cases: Sequence[Case], settings: FitSettings, name: str) -> Labelled:
    """Read pictures, each followed by a changed copy, labelled by patient: validation needs pairs whatever the data."""
    images = read_labelled(dataset, cases, ()).images
    chance = torch.Generator().manual_seed(derive_seed(settings.seed, "views", name))
    copies = Labelled.of(
        torch.cat([augment(part.float() / 255, settings.augmentation, chance) for part in torch.split(images, 256)]),
        torch.zeros(len(images), 1),
        torch.ones(len(images), 1),
    )
    order = {group: number for number, group in enumerate(dict.fromkeys(case_groups(cases)))}
    codes = torch.tensor([float(order[group]) for group in case_groups(cases)]).repeat_interleave(2)[:, None]
    both = torch.stack([images, copies.images], dim=1).flatten(0, 1)
    return Labelled(both, codes, torch.ones_like(codes, dtype=torch.bool))


def _names(labels: torch.Tensor) -> list[str]:
    return [str(int(number)) for number in labels[:, 0].tolist()]


def _measure(model: IdentityEncoder, cases: Sequence[Case], views: Labelled) -> dict[str, Any]:
    """Measure verification on the test split; see :func:`train_identity`."""
    embedded = predict(model, views, next(model.parameters()).device)
    found = {"views": _entries(verify(embedded, _names(views.labels)))}
    if _pairs_of(cases) == "photographs":
        found["photographs"] = _entries(verify(embedded[::2], case_groups(cases)))
    return {"verification": found}


def _entries(found: Verification) -> dict[str, Any]:
    """Estimate the measures over genuine pairs; intervals resample their patients, all impostors staying."""
    groups = [str(code) for code in found.genuine_groups.tolist()]
    order = found.impostor.double().sort().values
    low = torch.searchsorted(order, found.genuine.double(), side="left").double()
    high = torch.searchsorted(order, found.genuine.double(), side="right").double()
    wins = (low + high) / 2 / len(order)
    threshold = order[len(order) - max(1, int(len(order) * FALSE_ACCEPTS))]
    accepted = (found.genuine.double() > threshold).double()
    columns = {"auc": wins, f"accepted_at_{FALSE_ACCEPTS:g}": accepted}
    return {key: mean_interval(values, groups=groups).to_json() for key, values in columns.items()}


def _summary(metrics: dict[str, Any]) -> str:
    """Say the result in a line."""
    parts = [
        f"verification AUC {entries['auc']['value']:.3f} by {name}" for name, entries in metrics["verification"].items()
    ]
    return ", ".join([f"learnt from {metrics['pairs']}", *parts, f"{metrics['epochs']} epochs"])
