"""What an evaluation needs to look for memorised training images: both sides of the split, and an extractor."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clinalign.core.config import TuneConfig
from clinalign.core.errors import UserError
from clinalign.core.progress import track
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case, Extractor
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.extractors import FeatureExtractor
from clinalign.evaluation.privacy.entries import (
    Looked,
    LossAttack,
    RealSet,
    Reference,
    look,
    open_reference,
)
from clinalign.evaluation.privacy.matching import matched
from clinalign.evaluation.privacy.membership import loss_scores
from clinalign.evaluation.privacy.nearest_train import MINIMUM_GROUPS, one_of_each
from clinalign.evaluation.suite import case_groups
from clinalign.generation.denoising_error import denoising_errors
from clinalign.generation.generator import Generator
from clinalign.generation.model_folder import find_model_folder
from clinalign.networks.identity import IdentityEncoder
from clinalign.workflows.evaluation_measure import Measured
from clinalign.workflows.evaluation_setup import READ_AT_ONCE, Bench, EvaluateSettings
from clinalign.workflows.train_base import CARD

SPACE = "identity"  # name of the encoder's features among those that are measured
MANY = 3  # images of a patient that count as many
LOSS_IMAGES = 512  # of either side that the loss attack asks about, one of each patient or lesion


@dataclass(frozen=True)
class PrivacyBench:
    """What images are compared with.

    Attributes:
        dataset: The prepared dataset.
        train: Cases of the training split.
        held_out: Cases that neither generator nor extractor was trained on.
        asked: Cases that the loss attack asks about, members first.
        asked_members: How many of them are members.
        space: Name of the extractor's features in :class:`Measured`.
        extractors: The extractor, where the evaluation does not take its features anyway.
        reference: Their features and the thresholds.
        facts: What ``privacy.json`` says of all this.
    """

    dataset: PreparedDataset
    train: list[Case]
    held_out: list[Case]
    asked: list[Case]
    asked_members: int
    space: str
    extractors: Mapping[str, Extractor]
    reference: Reference
    facts: dict[str, Any]

    def taken(self, bench: Bench) -> Bench:
        """Return ``bench`` with instruments that take these features too, and with these notes."""
        instruments = replace(bench.instruments, spaces=self.extractors)
        return replace(bench, instruments=instruments, notes=[*bench.notes, *self.facts["notes"]])

    def strangers(self, cases: Sequence[Case]) -> Looked:
        """Put the real images of ``cases``, which are held out, in the place of generated ones: the null."""
        rows = {case.case_id: row for row, case in enumerate(self.held_out)}
        chosen = [rows[case.case_id] for case in cases]
        return look(self.reference.held_out.features[chosen], case_groups(cases), self.reference, strangers=True)

    def look(self, measured: Measured, generator: Generator | None, seed: int) -> Looked:
        """Look at generated images, and at the generator that drew them where there is one."""
        loss = None if generator is None else self._ask(generator, seed)
        return look(measured.features[self.space], case_groups(measured.cases), self.reference, loss=loss)

    def _ask(self, generator: Generator, seed: int) -> LossAttack:
        """Let the generator denoise members and strangers."""
        parts = [self.asked[start : start + READ_AT_ONCE] for start in range(0, len(self.asked), READ_AT_ONCE)]
        errors = [
            denoising_errors(generator, self.dataset.images(part), [case.text for case in part], seed)
            for part in track(parts, "denoising real images")
        ]
        member = torch.arange(len(self.asked)) < self.asked_members
        return LossAttack(loss_scores(torch.cat(errors)), member, case_groups(self.asked))


def open_privacy(
    bench: Bench,
    settings: EvaluateSettings,
    device: torch.device,
    config: TuneConfig | None = None,
    models: Sequence[str | Path | Generator | None] = (),
) -> PrivacyBench:
    """Read both sides of the split; before any image is drawn.

    Args:
        bench: Of the evaluation.
        settings: Names the training split and the identity encoder.
        device: Where networks compute.
        config: Of the run that is evaluated.
        models: Generators that are evaluated; the card of the first that has one must name the same training split.

    Raises:
        UserError: Without a training split, with too few patients on a side, or with an extractor that was trained on
            the very images it is to compare.
    """
    dataset, split = bench.dataset, settings.train_split
    if split == settings.split:
        raise UserError(
            f"privacy compares training images with others, and split '{split}' is both: give another --split or "
            "--train-split"
        )
    train = dataset.cases(split)
    notes = _check_training(dataset, split, [*models, config.generator.model if config else None])
    space, extractor, card = _space(bench, settings, device)
    seen = str(card.get("split")) if card.get("dataset") == dataset.fingerprint else None
    name = f"identity encoder {settings.identity}" if settings.identity else "evaluator, whose features are compared,"
    if seen is None:
        notes.append(f"the {name} was trained on another dataset: it may know some of these patients")
    if seen in (split, settings.split):
        raise UserError(
            f"the {name} was trained on split '{seen}', which it is to compare here: make one with "
            "`clinalign train identity --split judge` and give it with --identity"
        )
    unseen = [case for case in dataset.cases() if case.split != split]
    held_out = [case for case in unseen if case.split != seen]
    for words, cases in (("in training", train), ("held out", held_out)):
        groups = len(set(case_groups(cases)))
        if groups < MINIMUM_GROUPS:
            raise UserError(
                f"{dataset.path}: privacy needs {MINIMUM_GROUPS} patients or lesions {words}, got {groups}: prepare "
                "more cases"
            )
    kinds, matched_by = strata_of(dataset, train, unseen)
    reference = open_reference(
        _real_set(dataset, train, extractor, kinds, "training images"),
        _real_set(dataset, held_out, extractor, kinds, "held-out images"),
        extractor.identity,
        recognises=settings.identity is not None,
        replicates=settings.resamples,
        seed=settings.seed,
    )
    members, others = _asked(train, unseen, kinds, settings.seed)
    facts = {
        "extractor": extractor.identity,
        "train_split": split,
        "held_out_splits": sorted({case.split for case in held_out}),
        "train": {"images": len(train), "groups": len(set(case_groups(train)))},
        "held_out": {"images": len(held_out), "groups": len(set(case_groups(held_out)))},
        "matched_by": matched_by,
        "pairs_of_the_encoder": card.get("pairs"),
        "notes": notes,
    }
    return PrivacyBench(
        dataset,
        train,
        held_out,
        [*members, *others],
        len(members),
        space,
        {} if settings.identity is None else {SPACE: extractor},
        reference,
        facts,
    )


def _space(bench: Bench, settings: EvaluateSettings, device: torch.device) -> tuple[str, Extractor, Mapping[str, Any]]:
    """Return name, extractor and card of the features that are compared."""
    if settings.identity is None:
        headline = bench.instruments.headline
        return headline, bench.instruments.extractors[headline], bench.instruments.evaluator.card
    encoder = IdentityEncoder.load(settings.identity, device)
    return SPACE, FeatureExtractor(encoder.identity, encoder, device), encoder.card


def _check_training(dataset: PreparedDataset, split: str, models: Sequence[str | Path | Generator | None]) -> list[str]:
    """Compare the training split with what the base model's card says; return notes.

    Raises:
        UserError: When the card names another split of this dataset.
    """
    for model in models:
        if model is None or isinstance(model, Generator):
            continue
        path = find_model_folder(Path(model)) / CARD
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            trained, stated = str(card["settings"]["split"]), str(card["dataset"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if stated != dataset.fingerprint:
            return [f"the card of {Path(model).name} names another dataset: its training images may be others"]
        if trained != split:
            raise UserError(f"{model} was trained on split '{trained}', not '{split}': give --train-split {trained}")
        return []
    return [f"no card says what the generator was trained on: split '{split}' is taken on trust"]


def strata_of(
    dataset: PreparedDataset, train: Sequence[Case], held_out: Sequence[Case]
) -> tuple[dict[str, str], list[str]]:
    """Sort cases into kinds of which both sides have some.

    The kind is how many images the patient has (1, 2, or more) with all labels; where fewer than half of the smaller
    side would find a partner, the number of images alone.

    Returns:
        Case id to kind, and what the kind is made of.
    """
    sizes = Counter(case_groups([*train, *held_out]))
    labels = ["images of the patient", *dataset.attribute_names]
    for names in (labels, labels[:1]):
        kinds = {
            case.case_id: "|".join(
                [str(min(MANY, sizes[group])), *(str(case.attributes.get(name)) for name in names[1:])]
            )
            for case, group in zip([*train, *held_out], case_groups([*train, *held_out]), strict=True)
        }
        sides = [[kinds[case.case_id] for case in cases] for cases in (train, held_out)]
        if 2 * matched(sides[0], sides[1]) >= min(len(train), len(held_out)):
            break
    return kinds, names


def _real_set(
    dataset: PreparedDataset, cases: Sequence[Case], extractor: Extractor, kinds: Mapping[str, str], words: str
) -> RealSet:
    """Take features of real images, which are read and let go in parts."""
    parts = [cases[start : start + READ_AT_ONCE] for start in range(0, len(cases), READ_AT_ONCE)]
    features = torch.cat([extractor(dataset.images(part)) for part in track(parts, f"measuring {words}")])
    return RealSet(features, case_groups(cases), [kinds[case.case_id] for case in cases])


def _asked(
    train: Sequence[Case], held_out: Sequence[Case], kinds: Mapping[str, str], seed: int
) -> tuple[list[Case], list[Case]]:
    """Choose at most ``LOSS_IMAGES`` cases of either side, one of each patient, equally many of each kind."""
    found: list[dict[str, list[Case]]] = []
    for cases in (train, held_out):
        by_kind: dict[str, list[Case]] = {}
        for row in one_of_each(case_groups(cases), seed).tolist():
            by_kind.setdefault(kinds[cases[row].case_id], []).append(cases[row])
        found.append(by_kind)
    pairs = [pair for kind, first in found[0].items() for pair in zip(first, found[1].get(kind, []))]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(derive_seed(seed, "asked")))
    chosen = [pairs[row] for row in order[:LOSS_IMAGES].tolist()]
    return [first for first, _ in chosen], [second for _, second in chosen]
