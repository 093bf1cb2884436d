"""Train the segmenter of the region reward, or on the ``judge`` split that of an evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinalign.core.errors import UserError, nearest
from clinalign.core.precision import pick_device
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.places import Place, place_of_mask, places_in, true_places
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.augment import augment_with_masks
from clinalign.networks.fit import FitSettings, Labelled, fit
from clinalign.networks.labelled_data import read_masked
from clinalign.networks.losses import mask_loss
from clinalign.networks.place_rules import LUNGS, Sighting, fit_rules
from clinalign.networks.region_places import centre_height, chest_size, left_share, lung_frame
from clinalign.networks.segmenter import Segmenter
from clinalign.workflows.region_metrics import measure, soft_dice
from clinalign.workflows.reward_folder import (
    DEFAULT_BACKBONE,
    augmentation_of,
    check_free,
    check_names,
    check_split,
    how_long,
    save_trained,
)

# Small batches: twelve epochs of 16 do what twenty of 32 do, in three quarters of the time.
DEFAULTS = {"train": {"epochs": 12, "batch_size": 16}, "judge": {"epochs": 24, "batch_size": 16}}
VALIDATION_CASES = 512  # maps of all of a large validation split would not fit into memory
SKIN_REGIONS = ("lesion",)


def train_region(
    data: Path | str,
    out: Path | str,
    split: str = "train",
    backbone: str | None = None,
    image_size: int | None = None,
    regions: Sequence[str] | None = None,
    device: str = "auto",
    **fit_settings: Any,
) -> dict[str, Any]:
    """Train a segmenter on ``split``, learn there how places are read, and measure it on ``test``.

    Args:
        data: Prepared dataset with masks.
        out: Folder to make: ``model.safetensors``, ``card.json``, ``metrics.json``.
        split: ``train`` (rewards) or ``judge`` (evaluators); the two never share a patient or lesion.
        backbone: timm name; by default another one for ``judge`` than for ``train``.
        image_size: Side at which the network looks; by default the dataset's.
        regions: Masks to learn; by default the lesion on skin, and all masks otherwise.
        device: ``cpu``, ``cuda`` or ``auto``.
        **fit_settings: Fields of :class:`clinalign.networks.fit.FitSettings` (``epochs``, ``seconds``, ``seed``, ...);
            ``augmentation`` is that of the dataset's modality, ``epochs`` 12 (``judge``: 24), ``batch_size`` 16
            unless given.

    Returns:
        ``summary``, ``mean_dice``, ``regions`` (name to Dice and how often it is found), ``agreement`` with the true
        sides, zones and sizes, ``split`` and how it was trained.

    Raises:
        UserError: When the data has no masks, a setting is unknown, or ``out`` holds something else.
    """
    data, out = Path(data), Path(out)
    check_names("a segmenter", fit_settings, (entry.name for entry in fields(FitSettings)), ["regions"])
    check_split(split)
    check_free(out)
    dataset = PreparedDataset.open(data)
    names = _regions(dataset, regions)
    settings = FitSettings(**{**DEFAULTS[split], "augmentation": augmentation_of(dataset), **fit_settings})
    size = image_size or dataset.image_size
    torch.manual_seed(derive_seed(settings.seed, "weights"))
    model = Segmenter(names, size, backbone or DEFAULT_BACKBONE[split]).to(pick_device(device))
    cases = dataset.cases(split)
    train = read_masked(dataset, cases, names, size)
    missing = [name for k, name in enumerate(names) if not train.labels[train.known[:, k], k].any()]
    if missing:
        raise UserError(f"no mask of '{missing[0]}' in split '{split}' of {data}: leave it out of the regions")
    kept = dataset.cases("validation")[:VALIDATION_CASES]
    result = fit(
        model,
        train,
        read_masked(dataset, kept, names, size),
        settings,
        loss=mask_loss,
        score=soft_dice,
        words=f"training {model.backbone_name}",
        vary=lambda images, masks, generator: augment_with_masks(images, masks, settings.augmentation, generator),
    )
    sightings, lung_area = _sightings(model, train, [stated_places(dataset, case) for case in cases])
    model.rules = fit_rules(sightings, dataset.modality == "chest x-ray", lung_area)
    del train
    tested = dataset.cases("test")
    masked = read_masked(dataset, tested, names, size)
    metrics: dict[str, Any] = {
        **measure(model, masked, tested, _truth(dataset, tested, masked, names)),
        "split": "test",
        **how_long(result),
    }
    metrics["summary"] = _summary(metrics)
    return save_trained(model, out, dataset, split, metrics, fit=asdict(settings), history=result.history)


def stated_places(dataset: PreparedDataset, case: Case) -> tuple[Place, ...]:
    """Return a phantom's true places, and for other cases what their text says."""
    return true_places(dataset.parameters(case)) or places_in(case.text)


def _regions(dataset: PreparedDataset, wanted: Sequence[str] | None) -> list[str]:
    """Return the regions to learn."""
    if not dataset.mask_names:
        raise UserError(f"{dataset.path} has no masks: a segmenter cannot learn where anything lies")
    if isinstance(wanted, str) or (wanted is not None and not wanted):
        raise UserError(f"regions is {wanted!r}: write a list, for example [lesion]")
    for name in wanted or ():
        if name not in dataset.mask_names:
            raise UserError(f"{dataset.path}: no masks called '{name}'; {nearest(name, dataset.mask_names)}")
    if wanted is not None:
        return list(wanted)
    skin = [name for name in SKIN_REGIONS if name in dataset.mask_names]
    return skin if dataset.modality == "dermoscopy" and skin else list(dataset.mask_names)


def _sightings(
    model: Segmenter, data: Labelled, places: Sequence[Sequence[Place]], batch_size: int = 128
) -> tuple[list[Sighting], float]:
    """Measure every finding of ``data`` on the network's maps; return them and the usual area of the lung fields."""
    found: list[Sighting] = []
    lung_areas: list[float] = []
    lungs = [model.regions.index(name) for name in LUNGS if name in model.regions]
    for start in range(0, len(data), batch_size):
        rows = slice(start, start + batch_size)
        with torch.no_grad():
            maps = model.maps(data.images[rows].float() / 255.0).cpu()
        masks, known = data.labels[rows], data.known[rows]
        frame = lung_frame(maps, model.regions, model.rules)
        if lungs:
            lung_areas += masks[:, lungs].any(1).float().mean((1, 2)).tolist()
        heights = torch.stack([centre_height(maps[:, k], frame) for k in range(maps.shape[1])], 1)
        sides = torch.stack([left_share(maps[:, k], frame) for k in range(maps.shape[1])], 1)
        sizes = [chest_size(maps[:, k], name, frame, 1.0) for k, name in enumerate(model.regions)]
        true_areas = masks.float().mean((2, 3))
        for row, region in (known & (true_areas > 0)).nonzero().tolist():
            said = {place.region: place for place in places[start + row]}.get(model.regions[region])
            if not frame.visible[row]:
                said = None  # the rules are about places in the lungs
            found.append(
                Sighting(
                    model.regions[region],
                    float(true_areas[row, region]),
                    float(sides[row, region]),
                    float(heights[row, region]),
                    float(sizes[region][row]),
                    said.side if said else None,
                    said.zone if said else None,
                    said.size if said else None,
                )
            )
    return found, float(np.median(lung_areas)) if lung_areas else 0.3


def _truth(
    dataset: PreparedDataset, cases: Sequence[Case], data: Labelled, names: Sequence[str]
) -> list[tuple[Place, ...]]:
    """Return where findings truly are: from the masks on skin, else a phantom's parameters or the text."""
    if dataset.modality != "dermoscopy" or "lesion" not in names:
        return [stated_places(dataset, case) for case in cases]
    lesion = list(names).index("lesion")
    masks = data.labels[:, lesion] & data.known[:, lesion, None, None]  # an unknown mask is empty: no place
    places = [place_of_mask(mask.numpy()) for mask in masks]
    return [(place,) if place is not None else () for place in places]


def _summary(metrics: dict[str, Any]) -> str:
    """One line about quality."""
    dice = "no Dice: a region is missing in the test split"
    if metrics["mean_dice"] is not None:
        dice = f"mean Dice {metrics['mean_dice']:.3f}"
    agreed = [f"{kind} {entry['value']:.3f}" for kind, entry in metrics["agreement"].items()]
    return f"{dice}, {', '.join(agreed) or 'no true places to agree with'}, {metrics['epochs']} epochs"
