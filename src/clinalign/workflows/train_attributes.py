"""Train the attribute classifier: a reward or, on the ``judge`` split, an evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError
from clinalign.core.precision import pick_device
from clinalign.core.progress import say
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.calibration import calibrate
from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.fit import FitSettings, Labelled, fit, predict
from clinalign.networks.labelled_data import read_labelled, usable_attributes
from clinalign.networks.scores import attribute_scores, auroc_interval
from clinalign.workflows.reward_folder import (
    DEFAULT_BACKBONE,
    augmentation_of,
    check_free,
    check_names,
    check_split,
    how_long,
    save_trained,
)

MINIMUM_POSITIVES = 5
DEFAULT_EPOCHS = {"train": 20, "judge": 60}  # the judge's backbone is faster an epoch and needs more of them


def train_attributes(
    data: Path | str,
    out: Path | str,
    split: str = "train",
    backbone: str | None = None,
    image_size: int | None = None,
    weights: Path | None = None,
    dropout: float = 0.3,
    device: str = "auto",
    **fit_settings: Any,
) -> dict[str, Any]:
    """Train an attribute classifier on ``split``, calibrate it on ``validation``, measure it on ``test``.

    Args:
        data: Prepared dataset.
        out: Folder to make: ``model.safetensors``, ``card.json``, ``metrics.json``.
        split: ``train`` (rewards) or ``judge`` (evaluators); the two never share a patient or lesion.
        backbone: timm name; by default another one for ``judge`` than for ``train``.
        image_size: Side at which the network looks; by default the dataset's, and half as much again below 64 px.
        weights: Local safetensors file of pretrained backbone weights.
        dropout: Before the last layer.
        device: ``cpu``, ``cuda`` or ``auto``.
        **fit_settings: Fields of :class:`clinalign.networks.fit.FitSettings` (``epochs``, ``seconds``, ``seed``, ...);
            ``augmentation`` is that of the dataset's modality, ``epochs`` 20 (``judge``: 60) unless given.

    Returns:
        ``summary``, ``mean_auroc``, ``attributes`` (name to scores on the test split), ``left_out`` (name to reason)
        and how it was trained.

    Raises:
        UserError: When the data cannot be used, nothing can be learnt, or ``out`` holds something else.
    """
    data, out = Path(data), Path(out)
    check_names("a classifier", fit_settings, (entry.name for entry in fields(FitSettings)))
    check_split(split)
    check_free(out)
    dataset = PreparedDataset.open(data)
    settings = FitSettings(
        **{"augmentation": augmentation_of(dataset), "epochs": DEFAULT_EPOCHS[split], **fit_settings}
    )
    cases = {name: dataset.cases(name) for name in (split, "validation", "test")}
    names, left_out = usable_attributes(*dataset.labels(cases[split]), dataset.attribute_names, MINIMUM_POSITIVES)
    for name, reason in left_out.items():
        say(f"left out: {name} ({reason})")
    if not names:
        raise UserError(f"no attribute of {data} can be learnt from split '{split}': {left_out}")
    torch.manual_seed(derive_seed(settings.seed, "weights"))
    model = AttributeClassifier(
        names,
        image_size or default_image_size(dataset.image_size),
        backbone or DEFAULT_BACKBONE[split],
        exclusive=_kept_groups(dataset.info.get("attribute_groups", {}), names),
        dropout=dropout,
        weights=weights,
    ).to(pick_device(device))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train, validation = (read_labelled(dataset, cases[name], names) for name in (split, "validation"))
    result = fit(model, train, validation, settings, forward=model.raw_logits, words=f"training {model.backbone_name}")
    raw = predict(model.raw_logits, validation, model.device)
    lines = calibrate(
        model, raw, validation.labels, validation.known, train.labels, train.known, settings.max_pos_weight
    )
    del train
    metrics: dict[str, Any] = {
        **measure(model, read_labelled(dataset, cases["test"], names), cases["test"]),
        "left_out": left_out,
        **how_long(result),
    }
    mean = metrics["mean_auroc"]
    quality = "no AUROC: a class is missing in the test split" if mean is None else f"mean AUROC {mean:.3f}"
    metrics["summary"] = f"{quality}, {metrics['epochs']} epochs"
    return save_trained(
        model,
        out,
        dataset,
        split,
        metrics,
        decision="probability at an even prior above the threshold",
        thresholds=dict.fromkeys(names, 0.5),
        calibration={name: asdict(line) for name, line in lines.items()},
        fit=asdict(settings),
        history=result.history,
    )


def measure(model: AttributeClassifier, data: Labelled, cases: Sequence[Case]) -> dict[str, Any]:
    """Score ``model`` on images that it was not trained on.

    Args:
        model: A calibrated classifier.
        data: Images and labels with the model's attributes as columns.
        cases: The cases of ``data``, in its order; intervals are drawn over their groups (patients or lesions).

    Returns:
        ``mean_auroc`` and ``attributes``: name to ``auroc``, ``auroc_ci95``, ``accuracy``, ``balanced_accuracy``,
        ``f1``, ``ece``, ``n`` and ``positives``; what cannot be computed is ``None``.
    """
    logits = predict(model, data, model.device)
    natural = torch.sigmoid(logits + model.log_prior_odds.cpu())
    groups = [case.group_id or case.case_id for case in cases]
    attributes: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(model.attribute_names):
        rows = data.known[:, k]
        known_groups = [group for group, is_known in zip(groups, rows.tolist()) if is_known]
        attributes[name] = {
            **attribute_scores(natural[rows, k], torch.sigmoid(logits[rows, k]), data.labels[rows, k]),
            "auroc_ci95": auroc_interval(logits[rows, k], data.labels[rows, k], known_groups, seed=0),
        }
    defined = [row["auroc"] for row in attributes.values() if row["auroc"] is not None]
    return {"mean_auroc": sum(defined) / len(defined) if defined else None, "split": "test", "attributes": attributes}


def default_image_size(dataset_size: int) -> int:
    """Return where the network looks: images below 64 px are enlarged by half, for early strides lose fine detail.

    Twice the size sees no more for the same time: it costs passes over the data.
    """
    return dataset_size * 3 // 2 if dataset_size < 64 else dataset_size


def _kept_groups(groups: dict[str, list[str]], names: list[str]) -> dict[str, list[str]]:
    """Return the exclusive groups restricted to the attributes that are learnt; one member alone is no group."""
    kept = {group: [name for name in members if name in names] for group, members in groups.items()}
    return {group: members for group, members in kept.items() if len(members) > 1}
