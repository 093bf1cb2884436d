"""Train the alignment network of the posture reward on frontal chest films, without labels (posture of CXRL, R)."""

from __future__ import annotations

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
from clinalign.networks.affine import identity
from clinalign.networks.alignment import AlignmentNetwork
from clinalign.networks.fit import FitSettings, Labelled
from clinalign.networks.labelled_data import read_labelled
from clinalign.networks.warps import Warps
from clinalign.workflows.posture_measures import measure
from clinalign.workflows.posture_rounds import PostureSettings, calibrate, train_rounds
from clinalign.workflows.reward_folder import DEFAULT_BACKBONE, check_free, check_names, check_split, save_trained

MODALITY = "chest x-ray"
FRONTAL = ("pa", "ap", "frontal")
MINIMUM_FILMS = 16
LARGEST_VIEW = 32  # pixels: posture is coarse, and a small view sees several times the steps in the same time
DEFAULT_EPOCHS = {"train": 40, "judge": 60}


def train_posture(
    data: Path | str,
    out: Path | str,
    split: str = "train",
    backbone: str | None = None,
    image_size: int | None = None,
    weights: Path | None = None,
    dropout: float = 0.0,
    device: str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train an alignment network on ``split``, calibrate it on ``validation``, measure it on ``test``.

    Args:
        data: Prepared dataset of chest films; those of a known view that is not frontal are left out.
        out: Folder to make: ``model.safetensors``, ``card.json``, ``metrics.json``.
        split: ``train`` (rewards) or ``judge`` (evaluators); the two never share a patient.
        backbone: timm name; by default another one for ``judge`` than for ``train``.
        image_size: Side at which the network looks; by default the dataset's, at most 32.
        weights: Local safetensors file of pretrained backbone weights.
        dropout: Before the last layer.
        device: ``cpu``, ``cuda`` or ``auto``.
        **settings: Fields of :class:`PostureSettings`, :class:`clinalign.networks.warps.Warps` and
            :class:`clinalign.networks.fit.FitSettings`; ``epochs`` (40, ``judge`` 60) and ``seconds`` are those of both
            rounds together.

    Returns:
        ``summary``, the errors, scores and ladders of :func:`clinalign.workflows.posture_measures.measure`, and how it
        was trained.

    Raises:
        UserError: When the data cannot be used, a setting is unknown or out of range, or ``out`` holds something else.
    """
    data, out = Path(data), Path(out)
    own, warps, fitting = _sort_settings(settings, split)
    check_free(out)
    dataset = PreparedDataset.open(data)
    if dataset.modality != MODALITY:
        raise UserError(
            f"posture is learnt from {MODALITY} films, and {data} holds {dataset.modality}: give other data"
        )
    cases = {name: _frontal(dataset, name) for name in (split, "validation", "test")}
    torch.manual_seed(derive_seed(fitting.seed, "weights"))
    size = image_size or min(dataset.image_size, LARGEST_VIEW)
    model = AlignmentNetwork(size, backbone or DEFAULT_BACKBONE[split], own.hidden, dropout, weights)
    model = model.to(pick_device(device))
    # Warps are made at twice the network's side at most: finer pixels would be averaged away by the network's resize.
    films = {name: _read(dataset, rows, min(dataset.image_size, 2 * size)) for name, rows in cases.items()}
    rounds = train_rounds(model, films[split], films["validation"], own, warps, fitting)
    calibrate(model, films[split], films["validation"], own)
    metrics: dict[str, Any] = {
        **measure(model, dataset, cases["test"], films["test"].images, warps),
        "left_out": {name: len(dataset.cases(name)) - len(rows) for name, rows in cases.items()},
        "epochs": [len(result.history) for result in rounds],
        "best_epochs": [result.best_epoch for result in rounds],
        "seconds": round(sum(result.seconds for result in rounds), 1),
    }
    return save_trained(
        model,
        out,
        dataset,
        split,
        metrics,
        calibration={
            "centre": model.centre.tolist(),
            "tolerance": model.tolerance.tolist(),
            "typical_likeness": model.typical.item(),
        },
        settings={**asdict(own), "warps": asdict(warps)},
        fit=asdict(fitting),
        history=[result.history for result in rounds],
    )


def _sort_settings(settings: dict[str, Any], split: str) -> tuple[PostureSettings, Warps, FitSettings]:
    """Divide what the user set among the three groups of settings."""
    check_split(split)
    # Its own warps and looks take the place of the recipes, and there is no attribute to weigh.
    fit_names = [entry.name for entry in fields(FitSettings) if entry.name not in ("augmentation", "max_pos_weight")]
    groups = ([entry.name for entry in fields(PostureSettings)], [entry.name for entry in fields(Warps)], fit_names)
    known = [name for group in groups for name in group]
    check_names("posture", settings, known)
    own, warps, fitting = ({name: settings[name] for name in settings if name in group} for group in groups)
    fitting = {"augmentation": "none", "epochs": DEFAULT_EPOCHS[split], **fitting}
    return PostureSettings(**own), Warps(**warps), FitSettings(**fitting)


def _frontal(dataset: PreparedDataset, split: str) -> list[Case]:
    """Return the cases of ``split`` but those of a known view that is not frontal."""
    cases = dataset.cases(split)
    kept = [case for case in cases if (case.subgroups.get("view") or FRONTAL[0]).lower() in FRONTAL]
    patients = len({case.group_id or case.case_id for case in kept})
    if len(kept) < MINIMUM_FILMS or patients < 2:
        raise UserError(
            f"{dataset.path} has {len(kept)} frontal films of {patients} patients among {len(cases)} cases of split "
            f"'{split}', and posture needs {MINIMUM_FILMS} of two patients or more: prepare more"
        )
    return kept


def _read(dataset: PreparedDataset, cases: Sequence[Case], size: int) -> Labelled:
    """Read films into memory, each labelled as canonical."""
    images = read_labelled(dataset, cases, (), size).images
    return Labelled(images, identity(len(images)), torch.ones((len(images), 5), dtype=torch.bool))
