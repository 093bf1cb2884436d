"""A generator that was trained with one image many times over gives it away; one trained without does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from clinalign.core.images import resize, to_uint8
from clinalign.core.seeds import derive_seed
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.privacy.entries import Looked, LossAttack, RealSet, Reference, look, open_reference
from clinalign.evaluation.privacy.entries import privacy_entries as entries_of
from clinalign.evaluation.privacy.membership import loss_scores
from clinalign.evaluation.suite import case_groups
from clinalign.generation.denoising_error import denoising_errors
from clinalign.generation.generator import Generator
from clinalign.generation.pretrain_autoencoder import train_autoencoder
from clinalign.generation.pretrain_denoiser import DenoiserTraining, train_denoiser

CANARY = 5  # row of the training image that is repeated
COPIES = 240


class Trained(NamedTuple):
    looked: Looked
    reference: Reference


def pixels(images: torch.Tensor) -> torch.Tensor:
    """Compare pictures by themselves: an 8-pixel copy of each."""
    return resize(images, 8).flatten(1)


def train_and_look(tiny: Any, folder: Path, copies: int, steps: int) -> Trained:
    """Train on the split ``train`` and ``copies`` of one of its images more, draw, and look."""
    dataset = PreparedDataset.open(tiny.data)
    train, held_out = dataset.cases("train"), [case for case in dataset.cases() if case.split != "train"]
    images, texts = dataset.images(train), [case.text for case in train]
    rows = [*range(len(train)), *[CANARY] * copies]
    generator = Generator.load(tiny.model)
    train_autoencoder(generator.vae.requires_grad_(True), to_uint8(images), 150, 0)
    generator.vae.eval().requires_grad_(False)
    latents = generator.encode_images(images)[rows]
    train_denoiser(
        generator,
        lambda chosen, chance: latents[chosen],
        [texts[row] for row in rows],
        DenoiserTraining(steps=steps, batch_size=16, learning_rate=2e-3, precision="fp32", ema_decay=0.98),
        0,
        folder,
        True,
    )
    # one image of each training text, as an attacker who knows the prompts would draw
    asked = list(dict.fromkeys(texts))[:40]
    asked = [*asked, texts[CANARY], texts[CANARY]]
    drawn = generator.generate(asked, [derive_seed(0, "canary", i) for i in range(len(asked))], 8, 1.0, 0.0)
    real = {name: RealSet(pixels(dataset.images(c)), case_groups(c)) for name, c in (("t", train), ("h", held_out))}
    reference = open_reference(real["t"], real["h"], "pixels", recognises=True, permutations=100, replicates=100)
    errors = denoising_errors(generator, dataset.images([*train, *held_out]), texts + [c.text for c in held_out])
    member = torch.arange(len(train) + len(held_out)) < len(train)
    loss = LossAttack(loss_scores(errors), member, reference.real_groups)
    return Trained(look(pixels(drawn), [f"q{i}" for i in range(len(asked))], reference, loss=loss), reference)


@pytest.mark.slow
def test_an_image_repeated_in_training_is_found_by_every_measure(tiny: Any, tmp_path: Path) -> None:
    looked, reference = train_and_look(tiny, tmp_path, COPIES, 400)
    assert int(looked.near.row[looked.near.value.argmin()]) == CANARY  # the top of the list
    assert int(looked.scores.argmax()) == CANARY  # the attack from pictures
    assert looked.loss is not None
    assert int(looked.loss.scores[: len(reference.train.groups)].argmax()) == CANARY  # and from the model


@pytest.mark.slow
def test_the_same_training_without_the_copies_is_not_accused(tiny: Any, tmp_path: Path) -> None:
    looked, reference = train_and_look(tiny, tmp_path, 0, 120)
    entries = entries_of(looked, reference)
    assert entries["privacy/near_duplicates"]["ci95"][0] <= 0.01
    assert entries["privacy/nearest_train_share"]["ci95"][0] <= 0.5
    assert entries["privacy/membership_auc"]["ci95"][0] <= 0.5
