"""What tuning changed, measured on the same cases and seeds before and after: paired, so that hard cases cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from clinalign.evaluation.diversity import (
    feature_distances,
    ms_ssim,
    ms_ssim_identity,
    prompt_means,
    within_prompt_pairs,
)
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.fidelity import fid_influences, influence_interval, paired_influences
from clinalign.evaluation.intervals import bootstrap, mean_interval, weighted_mean
from clinalign.evaluation.manifold import manifold_scores
from clinalign.evaluation.radiomics import is_radiomics, normalise
from clinalign.evaluation.suite import case_groups
from clinalign.evaluation.vendi import chosen_rows, vendi_influences
from clinalign.workflows.evaluation_details import detail_changes
from clinalign.workflows.evaluation_measure import DiversitySet, Instruments, Measured, right_decisions

PAIRS = 12  # pairs of each prompt that MS-SSIM looks at, as in its own metric


def change_entries(
    base: Measured, tuned: Measured, real: Measured, instruments: Instruments
) -> tuple[Entries, list[str]]:
    """Compare base and tuned images of the same cases, in the same order, drawn with the same seeds.

    Args:
        base: From the generator before tuning.
        tuned: From the generator after it.
        real: The real images of the same cases.
        instruments: What measured all three.

    Returns:
        Entries and notes. ``change/KEY`` is tuned minus base of ``KEY`` (attribute accuracy, APR, accuracy of each
        attribute, each scorer and its details, FID, FRD, recall, coverage, Vendi score, feature distance, MS-SSIM);
        ``change/fid`` is ``change/fidelity/fid``; ``change/diversity`` is the relative change of the feature distance
        within a prompt; ``gap/attribute_accuracy_closed`` is ``(tuned - base) / (real - base)``. Intervals resample
        patients or lesions, those of diversity within prompts resample prompts.
    """
    alignment, notes = _alignment(base, tuned, real, instruments)
    fidelity = _fidelity(base, tuned, real, instruments) | _scores(base, tuned, real, instruments)
    diversity = _vendi(base, tuned, instruments) | _diversity(base.diversity, tuned.diversity, instruments)
    return alignment | fidelity | diversity, notes


def _alignment(base: Measured, tuned: Measured, real: Measured, instruments: Instruments) -> tuple[Entries, list[str]]:
    """Changes of what the evaluator sees, and the share of the gap to real images that was closed."""
    count, groups = len(real.cases), case_groups(real.cases)
    before, after, ceiling = (right_decisions(each, instruments, count) for each in (base, tuned, real))
    evaluator = instruments.evaluator.identity
    keyword: dict[str, Any] = {"groups": groups, "replicates": instruments.resamples, "seed": instruments.seed}
    difference = after - before
    columns = {f"accuracy/{name}": difference[:, k] for k, name in enumerate(instruments.judged)}
    columns["attribute_accuracy"] = difference.nanmean(1)
    if instruments.artifacts:
        columns["apr"] = _complete(tuned, instruments, count) - _complete(base, instruments, count)
    estimates = {
        f"change/alignment/{key}": mean_interval(values, **keyword)
        for key, values in columns.items()
        if not values.isnan().all()
    }
    notes = []
    b, t, r = (each.nanmean(1) for each in (before, after, ceiling))

    def gap(weights: torch.Tensor) -> torch.Tensor:
        return weighted_mean(r - b, weights)

    room = bootstrap(gap, count, **keyword)
    if room.value <= 0:
        notes.append("real images keep their prompts no better than the base model's: there is no gap to close")
    else:
        closed = bootstrap(lambda weights: _share(weighted_mean(t - b, weights), gap(weights)), count, **keyword)
        estimates["gap/attribute_accuracy_closed"] = closed
        if room.ci95[0] <= 0:
            notes.append("the gap between base model and real images is within chance, so the share closed is not sure")
    return {key: {**estimate.to_json(), "evaluator": evaluator} for key, estimate in estimates.items()}, notes


def _scores(base: Measured, tuned: Measured, real: Measured, instruments: Instruments) -> Entries:
    """Changes of the scorers' means, over the cases that they can judge before and after."""
    entries: Entries = {}
    keyword: dict[str, Any] = {"replicates": instruments.resamples, "seed": instruments.seed}
    for name, kept in tuned.details.items():
        groups = case_groups(tuned.cases)
        entries |= detail_changes(instruments.scorers[name], base.details[name], kept, tuned.cases, groups, **keyword)
    for name, scorer in instruments.scorers.items():
        difference = (tuned.scores[name] - base.scores[name]).reshape(len(real.cases), -1).nanmean(1)
        if difference.isnan().all():
            continue
        change = mean_interval(difference, groups=case_groups(real.cases), **keyword)
        entries[f"change/alignment/{name}"] = {**change.to_json(), "evaluator": scorer.identity}
    return entries


def _share(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return ``part / whole``, NaN (left out of the interval) where a resample has no gap at all."""
    return torch.where(whole == 0, torch.nan, part / whole)


def _complete(measured: Measured, instruments: Instruments, cases: int) -> torch.Tensor:
    """Return the ``(cases,)`` share of images whose artifacts are all right; NaN where none is known."""
    columns = [instruments.judged.index(name) for name in instruments.artifacts]
    images = right_decisions(measured, instruments, len(measured.cases))[:, columns]
    whole = ((images == 1) | images.isnan()).all(1).double().masked_fill(images.isnan().all(1), torch.nan)
    return whole.reshape(cases, -1).nanmean(1)


def _fidelity(base: Measured, tuned: Measured, real: Measured, instruments: Instruments) -> Entries:
    """Changes of FID, recall and coverage of the headline extractor, and of FRD."""
    name = instruments.headline
    x, before, after = (each.features[name] for each in (real, base, tuned))
    extractor = instruments.extractors[name].identity
    old, new = manifold_scores(x, before), manifold_scores(x, after)
    keyword: dict[str, Any] = {"replicates": instruments.resamples, "seed": instruments.seed}
    estimates = {
        f"fidelity/{key}": mean_interval(values, groups=case_groups(real.cases), **keyword)
        for key, values in {"recall": new.recall - old.recall, "coverage": new.coverage - old.coverage}.items()
    }
    sides = (case_groups(real.cases), case_groups(tuned.cases))
    change = paired_influences(fid_influences(x, before), fid_influences(x, after))
    estimates["fidelity/fid"] = influence_interval(change, *sides, **keyword)
    estimates["fid"] = estimates["fidelity/fid"]
    entries = {f"change/{key}": {**estimate.to_json(), "extractor": extractor} for key, estimate in estimates.items()}
    for other, found in instruments.extractors.items():
        if is_radiomics(found.identity):
            x, before = normalise(real.features[other], base.features[other])
            _, after = normalise(real.features[other], tuned.features[other])
            change = paired_influences(fid_influences(x, before), fid_influences(x, after))
            frd = influence_interval(change, *sides, **keyword)
            entries["change/fidelity/frd"] = {**frd.to_json(), "extractor": found.identity}
    return entries


def _vendi(base: Measured, tuned: Measured, instruments: Instruments) -> Entries:
    """Change of the Vendi score of the same cases."""
    name = instruments.headline
    rows = chosen_rows(len(tuned.cases), seed=instruments.seed)
    (before, old), (after, new) = (vendi_influences(each.features[name][rows]) for each in (base, tuned))
    change = mean_interval(
        after - before + new - old,
        groups=case_groups([tuned.cases[row] for row in rows.tolist()]),
        replicates=instruments.resamples,
        seed=instruments.seed,
    )
    return {
        "change/diversity/vendi": {**change.to_json(), "extractor": f"{instruments.extractors[name].identity}:cosine"}
    }


def _diversity(base: DiversitySet, tuned: DiversitySet, instruments: Instruments) -> Entries:
    """Changes of diversity within the same prompts; empty where fewer than two prompts have two images."""
    pairs = within_prompt_pairs(tuned.prompt_ids, seed=instruments.seed)
    if base.prompt_ids != tuned.prompt_ids or len(torch.unique(pairs.prompt)) < 2:
        return {}
    fewer = within_prompt_pairs(tuned.prompt_ids, most=PAIRS, seed=instruments.seed)
    identity = instruments.extractors[instruments.headline].identity
    measures: dict[str, tuple[str, Callable[[DiversitySet], torch.Tensor]]] = {
        "feature_distance": (identity, lambda each: prompt_means(feature_distances(each.features, pairs), pairs)),
        "ms_ssim": (
            ms_ssim_identity(tuned.images.shape[-1]),
            lambda each: prompt_means(ms_ssim(each.images.float() / 255, fewer), fewer),
        ),
    }
    keyword: dict[str, Any] = {"replicates": instruments.resamples, "seed": instruments.seed}
    entries: Entries = {}
    counts = {"n": pairs.images, "prompts": int(pairs.prompt.max()) + 1}
    for key, (extractor, take) in measures.items():
        before, after = take(base), take(tuned)
        difference = mean_interval(after - before, **keyword)
        entries[f"change/diversity/{key}"] = {**difference.to_json(), **counts, "extractor": extractor}
        if key == "feature_distance" and float(before.mean()) > 0:
            relative = bootstrap(_relative(before, after), len(before), **keyword)
            entries["change/diversity"] = {**relative.to_json(), **counts, "extractor": identity}
    return entries


def _relative(before: torch.Tensor, after: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The statistic ``mean(after) / mean(before) - 1``."""
    return lambda weights: weighted_mean(after, weights) / weighted_mean(before, weights) - 1
