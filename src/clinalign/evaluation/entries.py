"""The three metric families as entries of ``metrics.json``, from what was computed once.

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
from clinalign.evaluation.fidelity import fid_extrapolated, fid_interval, kid_interval
from clinalign.evaluation.floor import FIDELITY_METRICS, floor_values
from clinalign.evaluation.intervals import Estimate, bootstrap, mean_interval
from clinalign.evaluation.manifold import manifold_scores

Entries = dict[str, dict[str, Any]]


def fidelity_entries(
    x: torch.Tensor,
    y: torch.Tensor,
    identity: str,
    *,
    groups_x: Sequence[str],
    groups_y: Sequence[str],
    k: int = 5,
    with_floor: bool = True,
    replicates: int = 1000,
    replicates_fid: int = 100,
    seed: int = 0,
) -> Entries:
    """Compare features of generated images ``y`` ``(N, D)`` with real ones ``x`` ``(M, D)``.

    FID and KID resample both sets. Precision and density resample the generated images, recall and coverage the real
    ones, given the other set: images drawn twice would be each other's nearest neighbour and spoil the balls.

    Args:
        x: Reference features.
        y: Features to judge.
        identity: The extractor's.
        groups_x: Patient, lesion or case of each real image.
        groups_y: The same of each generated image.
        k: Neighbours of precision, recall, density and coverage.
        with_floor: False when ``y`` is real too; its values are then their own floor.
        replicates: Resamples.
        replicates_fid: Resamples of FID.
        seed: Same seed, same entries.

    Returns:
        ``fidelity/`` fid, kid, precision, recall, density, coverage. Each has ``n`` and ``n_reference`` (images),
        ``extractor``, ``floor`` (real against real with ``floor_n`` images a side) and ``at_floor_n`` (generated
        against real with as many: what the floor is to be compared with). FID also has ``extrapolated``, to infinitely
        many images, where both sets have more than twice as many images as features.

    Raises:
        UserError: With too few images or groups.
    """
    scores = manifold_scores(x, y, k)
    sides = (groups_y, groups_x, groups_y, groups_x)
    estimates = [
        fid_interval(x, y, groups_x, groups_y, replicates_fid, seed),
        kid_interval(x, y, groups_x, groups_y, replicates, seed),
        *(
            mean_interval(score, groups=groups, replicates=replicates, seed=seed)
            for score, groups in zip(scores, sides, strict=True)
        ),
    ]
    floor = generated = torch.tensor([estimate.value for estimate in estimates], dtype=torch.float64)
    floor_n = min(len(x), len(y))
    if with_floor:
        floor, generated, floor_n = floor_values(x, y, groups_x, k, seed=seed)
    entries = {
        f"fidelity/{name}": {
            **estimate.to_json(),
            "n": len(y),
            "n_reference": len(x),
            "extractor": identity,
            "floor": float(floor[index]),
            "floor_n": floor_n,
            "at_floor_n": float(generated[index]),
        }
        for index, (name, estimate) in enumerate(zip(FIDELITY_METRICS, estimates, strict=True))
    }
    if min(len(x), len(y)) > 2 * x.shape[1]:  # from fewer images FID is not yet a line in 1/n
        entries["fidelity/fid"]["extrapolated"] = fid_extrapolated(x, y, seed=seed)
    return entries


def alignment_entries(
    probabilities: torch.Tensor,
    cases: Sequence[Case],
    attribute_names: Sequence[str],
    identity: str,
    *,
    thresholds: Mapping[str, float] | None = None,
    artifact_attributes: Sequence[str] = (),
    groups: Sequence[str] | None = None,
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

    def add(key: str, attributes: Sequence[int], score: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Estimate the mean over ``attributes`` of what ``score`` maps weights ``(B, N)`` to ``(B, K)``."""
        estimates[f"alignment/{key}"] = bootstrap(
            lambda weights: score(weights)[:, attributes].nanmean(1),
            len(cases),
            groups=groups,
            replicates=replicates,
            seed=seed,
            counted=int(known[:, attributes].any(1).sum()),
        )

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
    for key, score in families.items():
        if key != "accuracy":  # over all attributes that is attribute_accuracy
            add(key, range(len(names)), score)
        for j, name in enumerate(names):
            add(f"{key}/{name}", [j], score)
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
