"""What is taken from images as they come, batch by batch, and the metrics that follow from it.

Images are looked at once and let go: features and probabilities are small. Only the pictures that MS-SSIM compares are
held, as 8 bits and at most 256 pixels wide, a few of each prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from clinalign.core.errors import UserError
from clinalign.core.images import resize, to_uint8
from clinalign.core.types import Case, Extractor, Reward
from clinalign.evaluation.alignment import case_labels, decide
from clinalign.evaluation.diversity import text_ids
from clinalign.evaluation.entries import Entries, alignment_entries, diversity_entries
from clinalign.evaluation.feature_entries import feature_entries
from clinalign.evaluation.floor import group_halves
from clinalign.evaluation.intervals import mean_interval
from clinalign.evaluation.perceptual import lpips_entries
from clinalign.evaluation.radiomics import is_radiomics
from clinalign.evaluation.suite import case_groups
from clinalign.evaluation.vendi import vendi_entries
from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.lpips import Lpips
from clinalign.workflows.evaluation_cases import as_request
from clinalign.workflows.evaluation_details import detail_entries, detail_of

PROMPTS, MEMBERS = 64, 8  # prompts, and images of each, that diversity looks at
WIDEST = 256  # pixels at which pictures are held for MS-SSIM


@dataclass(frozen=True)
class Instruments:
    """What an evaluation measures with.

    Attributes:
        evaluator: Judges alignment.
        extractors: Name to feature extractor; the first is the headline.
        judged: Attributes that count.
        artifacts: Those of them that count for APR.
        resamples: Bootstrap resamples.
        seed: Of resamples, halves and pairs.
        scorers: Metric to an evaluator that scores one image against its case, as a reward does and trained as one, but
            on the judge split: posture, image-text score, region, ...
        lpips: Distance of two pictures, where its weights were given.
        spaces: Further extractors whose features are taken and not compared for fidelity.
    """

    evaluator: AttributeClassifier
    extractors: Mapping[str, Extractor]
    judged: tuple[str, ...]
    artifacts: tuple[str, ...]
    resamples: int
    seed: int
    scorers: Mapping[str, Reward] = field(default_factory=dict)
    lpips: Lpips | None = None
    spaces: Mapping[str, Extractor] = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """Name of the first extractor."""
        return next(iter(self.extractors))

    @property
    def columns(self) -> list[int]:
        """The evaluator's columns of the judged attributes."""
        return [self.evaluator.attribute_names.index(name) for name in self.judged]

    @property
    def thresholds(self) -> dict[str, float]:
        """Decision threshold of each judged attribute; 0.5 where the evaluator's card says nothing."""
        known = self.evaluator.card.get("thresholds") or {}
        return {name: float(known.get(name, 0.5)) for name in self.judged}


@dataclass(frozen=True)
class DiversitySet:
    """Images of which several share a prompt.

    Attributes:
        images: ``(R, 3, h, w)`` uint8.
        features: ``(R, D)`` of the headline extractor.
        prompt_ids: R ids.
    """

    images: torch.Tensor
    features: torch.Tensor
    prompt_ids: list[str]


@dataclass(frozen=True)
class Measured:
    """What N images gave.

    Attributes:
        cases: Their N cases, as requests.
        features: Extractor name to ``(N, D)``.
        probabilities: ``(N, K)`` of the judged attributes.
        diversity: The images of shared prompts among them.
        scores: Scorer's metric to ``(N,)`` scores, NaN where a case has none.
        details: Scorer's metric to what else it keeps of each image, ``(N, ...)``; see
            :func:`~clinalign.workflows.evaluation_details.detail_of`.
    """

    cases: list[Case]
    features: dict[str, torch.Tensor]
    probabilities: torch.Tensor
    diversity: DiversitySet
    scores: dict[str, torch.Tensor] = field(default_factory=dict)
    details: dict[str, torch.Tensor] = field(default_factory=dict)


def shared_prompt_rows(prompt_ids: Sequence[str]) -> list[int]:
    """Return the rows of the first ``PROMPTS`` prompts with two images or more, at most ``MEMBERS`` rows each."""
    members: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompt_ids):
        members.setdefault(prompt, []).append(row)
    shared = [rows[:MEMBERS] for rows in members.values() if len(rows) > 1]
    return sorted(row for rows in shared[:PROMPTS] for row in rows)


def real_prompt_ids(cases: Sequence[Case]) -> list[str]:
    """Return prompt ids under which two photographs of one patient or lesion never count as variety."""
    seen: set[tuple[str, str]] = set()
    ids = []
    for number, key in enumerate(zip(text_ids(cases), case_groups(cases), strict=True)):
        ids.append(f"{key[0]}:again:{number}" if key in seen else key[0])
        seen.add(key)
    return ids


def measure(
    batches: Iterable[torch.Tensor], cases: Sequence[Case], instruments: Instruments, prompt_ids: Sequence[str]
) -> Measured:
    """Look at images as they come.

    Args:
        batches: ``(B, 3, H, W)`` images in ``[0, 1]``, N in all.
        cases: Their N cases.
        instruments: What to measure with.
        prompt_ids: N ids; see :func:`shared_prompt_rows`.

    Raises:
        UserError: When images are not finite, which a broken generator draws.
    """
    rows = set(shared_prompt_rows(prompt_ids))
    requests = [as_request(case, instruments.judged) for case in cases]
    extractors = {**instruments.extractors, **instruments.spaces}
    features: dict[str, list[torch.Tensor]] = {name: [] for name in extractors}
    scores: dict[str, list[torch.Tensor]] = {name: [] for name in instruments.scorers}
    takers = {name: take for name, scorer in instruments.scorers.items() if (take := detail_of(scorer)) is not None}
    details: dict[str, list[torch.Tensor]] = {name: [] for name in takers}
    probabilities, held, start = [], [], 0
    for batch in batches:
        if not bool(torch.isfinite(batch).all()):
            raise UserError(f"images {start} to {start + len(batch) - 1} hold NaN or infinity: the model is broken")
        for name, extractor in extractors.items():
            features[name].append(extractor(batch))
        probabilities.append(instruments.evaluator.probabilities(batch)[:, instruments.columns])
        asked = requests[start : start + len(batch)]
        with torch.no_grad():
            for name, scorer in instruments.scorers.items():
                scores[name].append(score_images(scorer, batch, asked))
            for name, take in takers.items():
                details[name].append(take(batch, asked))
        wanted = [row - start for row in range(start, start + len(batch)) if row in rows]
        if wanted:
            held.append(to_uint8(resize(batch[wanted], min(WIDEST, batch.shape[-1]))))
        start += len(batch)
    joined = {name: torch.cat(parts) for name, parts in features.items()}
    diversity = DiversitySet(
        torch.cat(held) if held else torch.empty((0, 3, 0, 0), dtype=torch.uint8),
        joined[instruments.headline][sorted(rows)],
        [prompt_ids[row] for row in sorted(rows)],
    )
    scored = {name: torch.cat(parts) for name, parts in scores.items()}
    kept = {name: torch.cat(parts) for name, parts in details.items()}
    return Measured(requests, joined, torch.cat(probabilities), diversity, scored, kept)


def score_images(scorer: Reward, images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
    """Return ``(N,)`` float64 scores on the CPU, NaN where the scorer cannot tell."""
    with torch.no_grad():
        found = scorer(images, cases)
    return found.values.detach().cpu().double().masked_fill(~found.valid.cpu(), torch.nan)


def generated_entries(measured: Measured, real: Measured, instruments: Instruments) -> Entries:
    """Return all metrics of generated images against the real ones of the same cases."""
    entries: Entries = {}
    for name, extractor in instruments.extractors.items():
        family = feature_entries(
            real.features[name],
            measured.features[name],
            extractor.identity,
            groups_x=case_groups(real.cases),
            groups_y=case_groups(measured.cases),
            **_resampling(instruments),
        )
        entries |= _named(family, name, instruments)
    return entries | _judged(measured, instruments) | _lpips(measured, real, instruments)


def real_entries(real: Measured, instruments: Instruments) -> Entries:
    """Return the metrics of real images: the ceiling. Fidelity compares one half of the patients with the other."""
    entries: Entries = {}
    groups = case_groups(real.cases)
    x, y = group_halves(groups, instruments.seed)
    for name, extractor in instruments.extractors.items():
        family = feature_entries(
            real.features[name][x],
            real.features[name][y],
            extractor.identity,
            groups_x=[groups[row] for row in x.tolist()],
            groups_y=[groups[row] for row in y.tolist()],
            with_floor=False,
            **_resampling(instruments),
        )
        entries |= _named(family, name, instruments)
    return entries | _judged(real, instruments) | _lpips(real, None, instruments)


def right_decisions(measured: Measured, instruments: Instruments, cases: int) -> torch.Tensor:
    """Return how often each attribute of each case is right: ``(cases, K)`` in ``[0, 1]``, NaN where unknown.

    The images of one case follow each other; with several the value is their mean.
    """
    labels, known = case_labels(measured.cases, instruments.judged)
    thresholds = torch.tensor([instruments.thresholds[name] for name in instruments.judged])
    right = (decide(measured.probabilities, thresholds) == labels).double().masked_fill(~known, torch.nan)
    return right.reshape(cases, -1, len(instruments.judged)).nanmean(1)


def _resampling(instruments: Instruments) -> dict[str, Any]:
    """The bootstrap's arguments."""
    return {"replicates": instruments.resamples, "seed": instruments.seed}


def _named(family: Entries, name: str, instruments: Instruments) -> Entries:
    """Give the keys of every extractor but the first its name; FRD, which radiomics alone has, needs none."""
    if name == instruments.headline or is_radiomics(instruments.extractors[name].identity):
        return family
    return {f"{key}@{name}": entry for key, entry in family.items()}


def _judged(measured: Measured, instruments: Instruments) -> Entries:
    """What needs no second set of images."""
    return (
        alignment_of(measured, instruments)
        | score_entries(measured, instruments)
        | _diversity(measured.diversity, instruments)
        | _vendi(measured, instruments)
    )


def score_entries(measured: Measured, instruments: Instruments) -> Entries:
    """Return the mean of every scorer over the images that it can judge, and what its details tell."""
    entries: Entries = {}
    groups = case_groups(measured.cases)
    for name, kept in measured.details.items():
        scorer = instruments.scorers[name]
        entries |= detail_entries(scorer, kept, measured.cases, groups, **_resampling(instruments))
    for name, scorer in instruments.scorers.items():
        values = measured.scores[name]
        if values.isnan().all():
            continue
        estimate = mean_interval(values, groups=groups, **_resampling(instruments))
        entries[f"alignment/{name}"] = {**estimate.to_json(), "evaluator": scorer.identity}
    return entries


def alignment_of(measured: Measured, instruments: Instruments, each_attribute: bool = True) -> Entries:
    """Return what the evaluator says of images, as a whole and, where asked, of each attribute by itself."""
    return alignment_entries(
        measured.probabilities,
        measured.cases,
        instruments.judged,
        instruments.evaluator.identity,
        thresholds=instruments.thresholds,
        artifact_attributes=instruments.artifacts,
        groups=case_groups(measured.cases),
        each_attribute=each_attribute,
        **_resampling(instruments),
    )


def _diversity(found: DiversitySet, instruments: Instruments) -> Entries:
    if len(found.images) == 0:
        return {}
    return diversity_entries(
        found.images.float() / 255,
        found.prompt_ids,
        features=found.features,
        identity=instruments.extractors[instruments.headline].identity,
        **_resampling(instruments),
    )


def _vendi(measured: Measured, instruments: Instruments) -> Entries:
    return vendi_entries(
        measured.features[instruments.headline],
        instruments.extractors[instruments.headline].identity,
        groups=case_groups(measured.cases),
        prompt_features=measured.diversity.features,
        prompt_ids=measured.diversity.prompt_ids,
        **_resampling(instruments),
    )


def _lpips(measured: Measured, real: Measured | None, instruments: Instruments) -> Entries:
    """LPIPS among the images of a prompt and, where ``real`` is given, against its real images."""
    found = measured.diversity
    if instruments.lpips is None or len(found.images) == 0:
        return {}
    others = None if real is None or len(real.diversity.images) == 0 else real.diversity
    return lpips_entries(
        instruments.lpips,
        found.images,
        found.prompt_ids,
        None if others is None else others.images,
        () if others is None else others.prompt_ids,
        **_resampling(instruments),
    )
