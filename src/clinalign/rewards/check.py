"""Is this a reward at all? Right labels must beat wrong ones, and real images must beat noise.

Pure noise scored 0.82 on a published alignment reward, integer rewards were cut to integer advantages, constant ones
moved nothing: each is found here in a minute instead of after a night of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case, Reward, RewardResult
from clinalign.networks.scores import auroc
from clinalign.rewards.guarded import checked_result
from clinalign.rewards.probes import flip, worthless_images

NEEDED_SEPARATION = 0.6  # AUC, against wrong labels, noise and blank images; 0.5 is chance
TOLERATED_SEPARATION = 0.5  # AUC, against inverted and scrambled images, which do show some of the labels
NEEDED_LOOK = 0.1  # share of images by which a wrong case must lose more often on its own image than on another's
BATCH_TOLERANCE = (
    1e-3  # of the spread: other batch sizes add up in another order, which is worth a few float32 roundings
)
FEW, HALF = 64, 128  # images for a question that needs no more
SATURATED, OFTEN_TIED = 0.95, 0.5  # shares of equal scores, for the verdict and for a warning


@dataclass
class CheckReport:
    """What was found out.

    Attributes:
        reward: Name of the reward.
        identity: Exactly which one.
        n: Images looked at.
        passed: The verdict.
        reasons: Why not, one sentence each; empty when passed.
        warnings: What is allowed but worth knowing.
        separation: Rival (``wrong_label``, ``noise``, ...) to the AUC of real images with right labels against it.
        attributes: Attribute to the share of images whose score falls when that label alone is made wrong (ties half).
        numbers: ``minimum``, ``maximum``, ``mean``, ``std``, ``distinct``, ``tied``, ``saturated``, ``invalid``, ...
    """

    reward: str
    identity: str
    n: int
    passed: bool = False
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    separation: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """What a reward is tried on.

    Attributes:
        reward: The reward.
        images: Real images ``(N, 3, H, W)``.
        cases: Their cases.
        wrong_cases: For each case one that its image must not fit.
        is_wrong: ``(N,)`` bool: the reward found something that could be wrong of the case.
        exclusive: Groups of attributes of which exactly one is present.
        random: Source of randomness.
        seed: Of the noise.
    """

    reward: Reward
    images: torch.Tensor
    cases: Sequence[Case]
    wrong_cases: Sequence[Case]
    is_wrong: torch.Tensor
    exclusive: Mapping[str, Sequence[str]]
    random: np.random.Generator
    seed: int

    @classmethod
    def of(
        cls,
        reward: Reward,
        images: torch.Tensor,
        cases: Sequence[Case],
        exclusive: Mapping[str, Sequence[str]],
        seed: int,
    ) -> Trial:
        """Make the wrong cases: by the reward's own method, where it does not read the attributes, or by flipping."""
        random = np.random.default_rng(derive_seed(seed, "wrong labels"))
        own = getattr(reward, "wrong_cases", None)
        if own is not None:
            found = own(cases, random)
            wrong = [case if other is None else other for case, other in zip(cases, found, strict=True)]
            is_wrong = torch.tensor([other is not None for other in found])
        else:
            names = sorted({name for case in cases for name, answer in case.attributes.items() if answer is not None})
            wrong = [flip(case, names, exclusive, random) for case in cases]
            is_wrong = torch.ones(len(cases), dtype=torch.bool)
        return cls(reward, images, cases, wrong, is_wrong, exclusive, random, seed)

    @property
    def looks_alone(self) -> bool:
        """The reward judges the image without its case, and says itself which images are worse."""
        return hasattr(self.reward, "worse_images")

    @cached_property
    def worse(self) -> dict[str, RewardResult]:
        """Scores of worse copies of the images, by kind; empty for a reward that judges cases."""
        if not self.looks_alone:
            return {}
        copies = self.reward.worse_images(self.images, self.random)  # type: ignore[attr-defined]
        return {name: self.score(images, self.cases) for name, images in copies.items()}

    def score(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score without gradients, checked for shape and type, on the CPU."""
        with torch.no_grad():
            result = checked_result(self.reward.name, self.reward(images, cases), len(images))
        return RewardResult(result.values.cpu(), result.valid.cpu())


def examine(
    reward: Reward,
    images: torch.Tensor,
    cases: Sequence[Case],
    exclusive: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> CheckReport:
    """Try ``reward`` on real images and on what it must not like.

    A wrong case is one whose attributes were flipped. A reward that reads something else says itself what is wrong, by
    one of two methods: ``wrong_cases(cases, random)`` returns a wrong case, or ``None``, for each case;
    ``worse_images(images, random)``, of a reward that looks at the image alone, returns a name for each kind of worse
    copies ``(N, 3, H, W)`` of the images, which take the place of the wrong labels.

    Args:
        reward: The reward; a fault of it becomes a reason, not an exception.
        images: Real images ``(N, 3, H, W)`` in ``[0, 1]``, N at least 8, that the reward was not trained on.
        cases: Their cases.
        exclusive: Groups of attributes of which exactly one is present.
        seed: Of the noise and the wrong labels.

    Returns:
        The report.

    Raises:
        UserError: With fewer than 8 images.
    """
    if len(images) < 8 or len(images) != len(cases):
        raise UserError(f"a reward check needs 8 images or more and their cases, got {len(images)} and {len(cases)}")
    report = CheckReport(str(getattr(reward, "name", "reward")), str(getattr(reward, "identity", "")), len(images))
    try:
        trial = Trial.of(reward, images, cases, exclusive or {}, seed)
        right, wrong = _behaviour(report, trial)
        if getattr(reward, "sanity", False):
            report.warnings.append(
                "a sanity reward: it does not look at the labels and says nothing about an image's worth"
            )
        else:
            _preferences(report, trial, right, wrong)
    except UserError as error:
        report.reasons.append(str(error))
    except Exception as error:  # a foreign reward may raise anything; here that is a finding
        report.reasons.append(f"it raised {type(error).__name__}: {error}")
    report.passed = not report.reasons
    return report


def _behaviour(report: CheckReport, trial: Trial) -> tuple[RewardResult, RewardResult]:
    """Look at range, ties, determinism and batch size; return the scores with right and with wrong labels."""
    images, cases = trial.images, trial.cases
    with torch.no_grad():
        raw = trial.reward(images, cases)
    right = checked_result(trial.reward.name, raw, len(images))
    not_finite = int((raw.valid & ~right.valid).sum())
    right = RewardResult(right.values.cpu(), right.valid.cpu())
    if not right.valid.any():
        raise UserError(
            f"reward '{report.reward}' finds no case that it can score: do its attributes occur in this data?"
        )
    wrong = trial.score(images, trial.wrong_cases)
    wrong = RewardResult(wrong.values, wrong.valid & trial.is_wrong)
    values = right.values[right.valid]
    # A good reward may well give every real image with its right label the highest score: whether it can say anything
    # else shows with wrong labels.
    lesser = trial.worse.values() if trial.looks_alone else [wrong]
    both = torch.cat([values, *(result.values[result.valid] for result in lesser)])
    _, counts = torch.unique(values, return_counts=True)
    pairs = len(values) * (len(values) - 1) / 2
    saturated = max(int((both == edge).sum()) for edge in (both.min(), both.max())) / len(both)
    report.numbers = {
        "minimum": values.min().item(),
        "maximum": values.max().item(),
        "mean": values.mean().item(),
        "std": values.std(correction=0).item(),
        "spread": both.std(correction=0).item(),
        "distinct": len(counts),
        "tied": float((counts * (counts - 1) / 2).sum()) / max(pairs, 1.0),
        "saturated": saturated,
        "invalid": 1.0 - right.valid.float().mean().item(),
        "not_finite": not_finite,
    }
    if not_finite:
        report.reasons.append(f"it returned NaN or infinity for {not_finite} of {len(images)} real images")
        return right, wrong
    if report.numbers["spread"] == 0:
        report.reasons.append(
            f"it is constant: all {len(values)} real images score {values[0].item():g}, with right and wrong labels"
        )
        return right, wrong
    first, second = (trial.score(images[:FEW], cases[:FEW]) for _ in range(2))
    if not torch.equal(first.values, second.values) or not torch.equal(first.valid, second.valid):
        report.reasons.append("it is not deterministic: the same images got other scores the second time")
    else:
        _look_at_batches(report, trial, right)
    if saturated > SATURATED:
        report.reasons.append(
            f"it is saturated: {saturated:.0%} of real images, with right and wrong labels, have the same extreme score"
        )
    elif report.numbers["tied"] > OFTEN_TIED:
        tied = report.numbers["tied"]
        report.warnings.append(f"{tied:.0%} of pairs tie: groups without a winner teach nothing; try a soft score")
    if report.numbers["invalid"] > 0:
        report.warnings.append(f"{report.numbers['invalid']:.0%} of the cases got no valid score and would be masked")
    return right, wrong


def _look_at_batches(report: CheckReport, trial: Trial, right: RewardResult) -> None:
    """Score eight images one by one and compare with the whole batch."""
    single = [trial.score(trial.images[i : i + 1], trial.cases[i : i + 1]) for i in range(8)]
    both = right.valid[:8] & torch.cat([result.valid for result in single])
    change = (torch.cat([result.values for result in single]) - right.values[:8])[both].abs()
    largest = change.max().item() if len(change) else 0.0
    report.numbers["batch_size_effect"] = largest
    if largest > BATCH_TOLERANCE * report.numbers["spread"]:
        report.reasons.append(
            f"it depends on the batch: an image alone scores up to {largest:g} differently "
            f"(spread {report.numbers['spread']:g})"
        )


def _preferences(report: CheckReport, trial: Trial, right: RewardResult, wrong: RewardResult) -> None:
    """Set real images with right labels against wrong labels, or worse copies, and against worthless images."""
    if report.numbers["spread"] == 0 or report.numbers["not_finite"]:
        return  # it prefers nothing, or cannot be asked; said already
    images, cases = trial.images, trial.cases
    reads_attributes = not trial.looks_alone and not hasattr(trial.reward, "wrong_cases")
    if trial.looks_alone:
        for name, result in trial.worse.items():
            report.separation[name] = _separation(right, result)
    else:
        comparable = RewardResult(right.values, right.valid & wrong.valid)  # the same cases on both sides
        report.separation["wrong_label"] = _separation(comparable, wrong)
        if not reads_attributes:
            _look_elsewhere(report, trial, right, wrong)
    shown = {name for case in cases for name, answer in case.attributes.items() if answer and reads_attributes}
    for name in sorted(shown):
        rows = [i for i, case in enumerate(cases) if case.attributes.get(name) is not None][:FEW]
        others = trial.score(images[rows], [flip(cases[i], [name], trial.exclusive, trial.random) for i in rows])
        report.attributes[name] = _wins(RewardResult(right.values[rows], right.valid[rows]), others)
    # A classifier answers something to noise as well, often the commonest labels. Half of the cases are therefore made
    # wrong, so that an answer that does not depend on the image earns no more than chance.
    mixed = [wrong if i % 2 else case for i, (case, wrong) in enumerate(zip(cases, trial.wrong_cases))]
    for rival, pictures in worthless_images(images[:HALF], derive_seed(trial.seed, "noise")).items():
        report.separation[rival] = _separation(right, trial.score(pictures, mixed[:HALF]))
    _judge(report)


def _look_elsewhere(report: CheckReport, trial: Trial, right: RewardResult, wrong: RewardResult) -> None:
    """Find out how often the wrong case loses on its own image, and on another's.

    What a wrong text loses on another's image it loses for being unusual, and not for what the image shows.
    """
    order = torch.from_numpy(trial.random.permutation(len(trial.images)))
    elsewhere = trial.images.clone()
    elsewhere[order] = trial.images[order.roll(1)]
    right_there, wrong_there = (trial.score(elsewhere, cases) for cases in (trial.cases, trial.wrong_cases))
    right_there = RewardResult(right_there.values, right_there.valid & wrong.valid)
    report.numbers["wrong_case_loses"] = _wins(right, wrong)
    report.numbers["wrong_case_loses_elsewhere"] = _wins(right_there, wrong_there)


def _judge(report: CheckReport) -> None:
    """Turn separations into reasons and warnings."""
    sees = report.separation.get("wrong_label", 1.0) >= NEEDED_SEPARATION
    loved = "it is fooled" if sees else "it loves what is worthless"
    for rival, value in report.separation.items():
        words = rival.replace("_", " ")
        needed = TOLERATED_SEPARATION if rival in ("inverted", "scrambled") else NEEDED_SEPARATION
        if math.isnan(value):
            report.reasons.append(f"no valid score against {words}")
        elif value >= needed:
            continue
        elif rival == "wrong_label":
            report.reasons.append(f"it does not tell right labels from wrong ones: AUC {value:.2f}, {needed} needed")
        else:
            report.reasons.append(
                f"{loved}: {words} images score as well as real ones or better: "
                f"AUC of real over them {value:.2f}, {needed} needed"
            )
    if "wrong_case_loses" in report.numbers:
        here, elsewhere = (report.numbers[f"wrong_case_loses{where}"] for where in ("", "_elsewhere"))
        if here < elsewhere + NEEDED_LOOK:
            report.reasons.append(
                f"it does not look: a wrong case loses on {here:.0%} of images, and on {elsewhere:.0%} when each is "
                f"shown another's image; {NEEDED_LOOK:.0%} more needed"
            )
    for name, value in report.attributes.items():
        if value < NEEDED_SEPARATION:
            report.warnings.append(
                f"it hardly sees {name}: a wrong label lowers the score of {value:.0%} of images only"
            )


def _separation(better: RewardResult, worse: RewardResult) -> float:
    """Return the chance that a random valid score of ``better`` is above one of ``worse``, NaN without any."""
    high, low = better.values[better.valid], worse.values[worse.valid]
    return auroc(torch.cat([high, low]), torch.cat([torch.ones_like(high), torch.zeros_like(low)]))


def _wins(better: RewardResult, worse: RewardResult) -> float:
    """Return the share of samples on which ``better`` is above ``worse`` (ties count half), image by image."""
    both = better.valid & worse.valid
    difference = (better.values - worse.values)[both]
    return ((difference > 0).float() + 0.5 * (difference == 0).float()).mean().item() if len(difference) else 0.5
