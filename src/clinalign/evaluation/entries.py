"""Alignment and diversity as entries of ``metrics.json``, from what was computed once.

An entry is ``{"value", "ci95": [low, high], "n", ...}`` and says what it was measured with (``extractor`` or
``evaluator``). A metric that is undefined on the data is left out: JSON has no NaN, and 0 would be a lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from clinalign.core.errors import UserError, nearest
from clinalign.core.files import hash_json
from clinalign.core.types import Case
from clinalign.evaluation import alignment, diversity
from clinalign.evaluation.alignment import Confusion
from clinalign.evaluation.intervals import Estimate, mean_interval, resampled

Entries = dict[str, dict[str, Any]]
OVERALL = ("auroc",)  # the families that are measured also where attributes are not measured one by one


def alignment_entries(
    probabilities: torch.Tensor,
    cases: Sequence[Case],
    attribute_names: Sequence[str],
    identity: str,
    *,
    thresholds: Mapping[str, float] | None = None,
    artifact_attributes: Sequence[str] = (),
    groups: Sequence[str] | None = None,
    each_attribute: bool = True,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Compare the evaluator's ``probabilities`` ``(N, K)`` with what the cases say; unknown labels count nowhere.

    Args:
        probabilities: In ``[0, 1]``, columns in the order of ``attribute_names``.
        cases: The N cases.
        attribute_names: The evaluator's K attributes.
        identity: The evaluator's.
        thresholds: Decision threshold by attribute; 0.5 for those not named.
        artifact_attributes: Those that count for APR.
        groups: What the bootstrap draws.
        each_attribute: Measure each attribute by itself too, and the balanced scores; without, only attribute accuracy,
            AUROC and APR over all of them.
        replicates: Resamples.
        seed: Same seed, same entries.

    Returns:
        ``alignment/attribute_accuracy`` (mean over images of the share of known attributes that is right),
        ``balanced_accuracy``, ``auroc`` and ``f1`` (means over attributes), ``accuracy/NAME``,
        ``balanced_accuracy/NAME``, ``auroc/NAME`` and ``f1/NAME`` of each attribute, ``apr`` (share of images whose
        known artifacts are all right) and ``apr_single`` (the same, over images that ask for exactly one artifact).

    Raises:
        UserError: For an artifact or threshold the evaluator does not know, or when no case knows any of its
            attributes.
    """
    names = list(attribute_names)
    for name in (*artifact_attributes, *(thresholds or {})):
        if name not in names:
            raise UserError(f"the evaluator does not see attribute '{name}': {nearest(name, names)}")
    labels, known = alignment.case_labels(cases, names)
    if not known.any():
        raise UserError(f"no case knows any of the evaluator's attributes ({', '.join(names)}): use another")
    cut = torch.tensor([(thresholds or {}).get(name, 0.5) for name in names])
    decisions = alignment.decide(probabilities, cut)
    columns = [names.index(name) for name in artifact_attributes]
    complete = alignment.all_match(decisions[:, columns], labels[:, columns], known[:, columns])
    single = torch.where(labels[:, columns].sum(1) == 1, complete, torch.nan)
    means = {
        "attribute_accuracy": alignment.match_share(decisions, labels, known),
        "apr": complete,
        "apr_single": single,
    }
    estimates = {
        f"alignment/{key}": mean_interval(values, groups=groups, replicates=replicates, seed=seed)
        for key, values in means.items()
        if not values.isnan().all()
    }

    def counted(share: Callable[[Confusion], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda weights: share(alignment.confusion(decisions, labels, known, weights))

    def areas(weights: torch.Tensor) -> torch.Tensor:
        each = [alignment.auroc(probabilities[:, j], labels[:, j], known[:, j], weights) for j in range(len(names))]
        return torch.stack(each, dim=1)

    families = {
        "accuracy": counted(alignment.accuracy),
        "balanced_accuracy": counted(alignment.balanced_accuracy),
        "auroc": areas,
        "f1": counted(alignment.f1),
    }
    seen = [int(known[:, j].sum()) for j in range(len(names))]
    for key, score in families.items():
        if not each_attribute and key not in OVERALL:
            continue
        table = resampled(score, len(cases), groups=groups, replicates=replicates, seed=seed)
        if key != "accuracy":  # over all attributes that is attribute_accuracy
            estimates[f"alignment/{key}"] = table.mean_of(range(len(names)), int(known.any(1).sum()))
        for j, name in enumerate(names if each_attribute else ()):
            estimates[f"alignment/{key}/{name}"] = table.mean_of([j], seen[j])
    custom = {name: value for name, value in (thresholds or {}).items() if value != 0.5}
    evaluator = f"{identity}:thresholds={hash_json(custom)}" if custom else identity
    return {
        key: {**estimate.to_json(), "evaluator": evaluator} for key, estimate in estimates.items() if _defined(estimate)
    }


def diversity_entries(
    images: torch.Tensor,
    prompt_ids: Sequence[str],
    *,
    features: torch.Tensor | None = None,
    identity: str = "",
    ms_ssim_pairs: int = 12,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Measure how different the images of one prompt are; intervals resample prompts.

    Args:
        images: ``(N, 3, H, W)`` in ``[0, 1]``.
        prompt_ids: Prompt of each image.
        features: ``(N, D)`` features for ``feature_distance``.
        identity: Their extractor's.
        ms_ssim_pairs: Pairs of each prompt that MS-SSIM looks at, drawn at random: it costs milliseconds a pair, and
            prompts differ more than the pairs of one prompt do.
        replicates: Resamples.
        seed: Same seed, same entries.

    Returns:
        ``diversity/ms_ssim`` (mean over pairs, then prompts; lower is more diverse) and ``diversity/feature_distance``
        (higher is more diverse), with ``n`` images in ``prompts`` prompts. Empty where fewer than two prompts have two
        images.

    Raises:
        UserError: For images below 11 pixels.
    """
    pairs = diversity.within_prompt_pairs(prompt_ids, seed=seed)
    if len(torch.unique(pairs.prompt)) < 2:
        return {}
    fewer = diversity.within_prompt_pairs(prompt_ids, most=ms_ssim_pairs, seed=seed)
    similar = diversity.prompt_means(diversity.ms_ssim(images, fewer), fewer)
    measured = {"ms_ssim": (similar, diversity.ms_ssim_identity(min(images.shape[-2:])))}
    if features is not None:
        apart = diversity.prompt_means(diversity.feature_distances(features, pairs), pairs)
        measured["feature_distance"] = (apart, identity)
    entries = {}
    for key, (means, measure) in measured.items():
        estimate = mean_interval(means, replicates=replicates, seed=seed)
        entries[f"diversity/{key}"] = {
            **estimate.to_json(),
            "n": pairs.images,
            "prompts": len(means),
            "extractor": measure,
        }
    return entries


def _defined(estimate: Estimate) -> bool:
    """Say whether value and interval are numbers."""
    return not any(math.isnan(number) for number in (estimate.value, *estimate.ci95))
