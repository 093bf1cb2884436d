"""Train the image-text pair: the consistency reward of CXRL or, on the ``judge`` split, an evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError, nearest
from clinalign.core.precision import pick_device
from clinalign.core.progress import say
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.image_text import image_text_entries
from clinalign.generation.architecture import fit_tokenizer
from clinalign.networks.contrastive import SAME, ContrastiveLoss, flip_score
from clinalign.networks.fit import FitSettings, Labelled, fit
from clinalign.networks.image_text import ImageTextPair
from clinalign.networks.labelled_data import read_labelled
from clinalign.networks.pair_texts import PairTexts, pair_texts
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

DEFAULT_WIDTH = {"train": 64, "judge": 96}
DEFAULT_EPOCHS = {"train": 20, "judge": 40}
DEFAULT_FIT: dict[str, Any] = {"batch_size": 64}
FLIP_DRAWS = 3  # of place, size and zone, so that training sees more than one wrong version of each fact


def train_consistency(
    data: Path | str,
    out: Path | str,
    split: str = "train",
    backbone: str | None = None,
    image_size: int | None = None,
    weights: Path | None = None,
    dropout: float = 0.1,
    width: int | None = None,
    text_width: int = 64,
    text_layers: int = 2,
    flips: int = 4,
    same: str = "text",
    device: str = "auto",
    **fit_settings: Any,
) -> dict[str, Any]:
    """Train an image-text pair on ``split``, stop on ``validation``, measure it on ``test``.

    Args:
        data: Prepared dataset.
        out: Folder to make: ``model.safetensors``, ``card.json``, ``tokenizer/``, ``metrics.json``.
        split: ``train`` (rewards) or ``judge`` (evaluators); the two never share a patient or lesion.
        backbone: timm name; by default another one for ``judge`` than for ``train``.
        image_size: Side at which the network looks; by default the dataset's, and half as much again below 64 px.
        weights: Local safetensors file of pretrained backbone weights.
        dropout: Before the image encoder's last layer.
        width: Of the shared space; by default 64, for ``judge`` 96 (R).
        text_width: Of the text encoder (R).
        text_layers: Its depth (R).
        flips: Hard negatives of each case in a step (R); 0 for plain InfoNCE.
        same: ``text`` or ``attributes``: which pairs of a batch are not negatives (R).
        device: ``cpu``, ``cuda`` or ``auto``.
        **fit_settings: Fields of :class:`clinalign.networks.fit.FitSettings` (``epochs``, ``seconds``, ``seed``, ...);
            ``augmentation`` is that of the dataset's modality.

    Returns:
        ``summary``, ``scores`` (the entries of :func:`clinalign.evaluation.image_text.image_text_entries` on the test
        split) and how it was trained.

    Raises:
        UserError: When the data cannot be used, a setting is unknown or out of range, or ``out`` holds something else.
    """
    data, out = Path(data), Path(out)
    own = ["width", "text_width", "text_layers", "flips", "same"]
    check_names("an image-text pair", fit_settings, (entry.name for entry in fields(FitSettings)), own)
    check_split(split)
    check_free(out)
    _check_own(flips, same, width)
    dataset = PreparedDataset.open(data)
    usual = {**DEFAULT_FIT, "augmentation": augmentation_of(dataset), "epochs": DEFAULT_EPOCHS[split]}
    settings = FitSettings(**{**usual, **fit_settings})
    train, validation = (_cases(dataset, name) for name in (split, "validation"))
    texts = {
        "train": pair_texts(train, dataset.attribute_names, seed=settings.seed, draws=FLIP_DRAWS),
        "validation": pair_texts(validation, dataset.attribute_names, seed=settings.seed),
    }
    _check_texts(texts["train"], train, data, split)
    torch.manual_seed(derive_seed(settings.seed, "weights"))
    model = ImageTextPair(
        fit_tokenizer(texts["train"].texts),
        image_size or default_image_size(dataset.image_size),
        backbone or DEFAULT_BACKBONE[split],
        width or DEFAULT_WIDTH[split],
        text_width,
        text_layers,
        dropout,
        weights,
    ).to(pick_device(device))
    cut = sum(model.truncates([case.text for case in train]))
    if cut:
        limit = int(model.tokenizer.model_max_length)
        say(f"{cut} of {len(train)} training texts are longer than {limit} tokens and lose their end")
    draws = torch.Generator().manual_seed(derive_seed(settings.seed, "flips"))
    result = fit(
        model,
        _numbered(dataset, train),
        _numbered(dataset, validation),
        settings,
        loss=ContrastiveLoss(model, texts["train"], flips, same, draws),
        score=flip_score(model, texts["validation"]),
        forward=model.encode_images,
        words=f"training {model.backbone_name}",
    )
    test = _cases(dataset, "test")
    metrics: dict[str, Any] = {
        "scores": image_text_entries(model, dataset.images(test), test, seed=0),
        "split": "test",
        "truncated": cut,
        "texts": len({case.text for case in train}),
        **how_long(result),
    }
    metrics["summary"] = _summary(metrics)
    # the identity in the scores hashes the weights alone, and the card, which is beside them, says it once
    scores = {key: {**entry, "evaluator": "this model"} for key, entry in metrics["scores"].items()}
    return save_trained(
        model,
        out,
        dataset,
        split,
        metrics,
        metrics={**metrics, "scores": scores},
        flips=flips,
        same=same,
        fit=asdict(settings),
        history=result.history,
    )


def _check_own(flips: int, same: str, width: int | None) -> None:
    """Check the settings that are ours.

    Raises:
        UserError: Naming the one that is out of range.
    """
    if not isinstance(flips, int) or flips < 0:
        raise UserError(f"flips must be a whole number of 0 or more, got {flips!r}")
    if same not in SAME:
        raise UserError(f"unknown value '{same}' of same: {nearest(str(same), SAME)}")
    if width is not None and (not isinstance(width, int) or width < 2):
        raise UserError(f"width must be a whole number of 2 or more, got {width!r}")


def _cases(dataset: PreparedDataset, split: str) -> list[Case]:
    """Return the cases of ``split`` that have a text.

    Raises:
        UserError: When none has.
    """
    cases = [case for case in dataset.cases(split) if case.text.strip()]
    if not cases:
        raise UserError(f"{dataset.path}: no case of split '{split}' has a text: there is nothing to pair images with")
    return cases


def _check_texts(texts: PairTexts, cases: Sequence[Case], data: Path, split: str) -> None:
    """Refuse data from which no pair can be learnt."""
    if len(set(texts.own.tolist())) < 2:
        raise UserError(
            f"{data}: the {len(cases)} cases of split '{split}' with a text hold fewer than two different texts: "
            "there is nothing to tell apart"
        )


def _numbered(dataset: PreparedDataset, cases: Sequence[Case]) -> Labelled:
    """Read images with their case's number as the one label."""
    numbers = torch.arange(len(cases), dtype=torch.float32)[:, None]
    images = read_labelled(dataset, cases, ()).images
    return Labelled(images, numbers, torch.ones_like(numbers, dtype=torch.bool))


def _summary(metrics: dict[str, Any]) -> str:
    """Say the result in a line."""
    scores = metrics["scores"]
    words = {
        "flipped_accuracy": "flipped texts told apart",
        "finding_auroc": "finding AUROC",
        "matched_auroc": "matched AUROC",
        "recall_at_1": "R@1",
    }
    found = {text: scores.get(f"alignment/{key}") for key, text in words.items()}
    parts = [f"{text} {entry['value']:.3f}" for text, entry in found.items() if entry is not None]
    return ", ".join([*parts, f"{metrics['epochs']} epochs"])
