"""What the numbers of ``metrics.json`` are called in a report, which way is better, and whether two of them differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Metrics = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Meaning:
    """How a metric is presented.

    Attributes:
        label: Its name in the table.
        explanation: One clause for a reader who does not know it.
        better: Which way is better.
        unit: ``percent`` for shares in ``[0, 1]``, else ``number``.
    """

    label: str
    explanation: str
    better: Literal["higher", "lower"]
    unit: Literal["percent", "number"] = "number"


FAMILIES: dict[str, tuple[str, dict[str, Meaning]]] = {
    "alignment": (
        "Does a picture keep its prompt?",
        {
            "attribute_accuracy": Meaning(
                "Attributes kept",
                "share of a prompt's attributes that the evaluator sees as asked",
                "higher",
                "percent",
            ),
            "balanced_accuracy": Meaning(
                "Attributes kept, balanced", "the same, present and absent counting alike", "higher", "percent"
            ),
            "apr": Meaning(
                "All artifacts right (APR)",
                "share of pictures with every artifact as asked; the real images' is its ceiling",
                "higher",
                "percent",
            ),
            "apr_single": Meaning(
                "All artifacts right, one asked", "the same, for prompts that ask for exactly one", "higher", "percent"
            ),
            "auroc": Meaning(
                "AUROC", "chance that a picture with the attribute scores above one without", "higher", "number"
            ),
            "f1": Meaning("F1", "balance of attributes found and attributes missed", "higher", "number"),
            "clip_score": Meaning("Image-text score", "how near picture and prompt lie in a shared space", "higher"),
            "posture": Meaning("Posture", "how far a film is turned, zoomed or shifted; 0 is upright", "higher"),
            "recall_at_1": Meaning(
                "Own text first (R@1)",
                "share of pictures whose own text is the nearest of all texts",
                "higher",
                "percent",
            ),
            "recall_at_5": Meaning("Own text in 5 (R@5)", "the same, among the nearest five", "higher", "percent"),
            "recall_at_10": Meaning("Own text in 10 (R@10)", "the same, among the nearest ten", "higher", "percent"),
            "flipped_accuracy": Meaning(
                "Flipped texts told apart", "the true text scores above one with a finding changed", "higher", "percent"
            ),
            "region_agreement": Meaning(
                "Places kept", "share of stated sides, zones and sizes that are found as stated", "higher", "percent"
            ),
            "region": Meaning("Place", "whether findings lie where the text says, from 0 to 1", "higher"),
        },
    ),
    "fidelity": (
        "Does it look real?",
        {
            "fid": Meaning("FID", "distance between the two sets of pictures; falls with their number", "lower"),
            "kid": Meaning("KID", "the same idea without that dependence; 0 for equal sets", "lower"),
            "frd": Meaning(
                "FRD", "distance of intensity, texture and wavelet statistics; falls with their number", "lower"
            ),
            "lpips": Meaning("LPIPS to real", "how far a picture looks from a real one of its prompt", "lower"),
            "precision": Meaning(
                "Precision", "share of generated pictures that lie among real ones", "higher", "percent"
            ),
            "recall": Meaning("Recall", "share of real pictures that lie among generated ones", "higher", "percent"),
            "density": Meaning(
                "Density", "how deep generated pictures lie among real ones; about 1 for real", "higher"
            ),
            "coverage": Meaning("Coverage", "share of real pictures with a generated one nearby", "higher", "percent"),
        },
    ),
    "diversity": (
        "Do pictures of one prompt differ?",
        {
            "ms_ssim": Meaning("MS-SSIM", "likeness of two pictures of one prompt; 1 is the same picture", "lower"),
            "feature_distance": Meaning("Feature distance", "how far apart two pictures of one prompt lie", "higher"),
            "vendi": Meaning("Vendi score", "how many different pictures the set is worth", "higher"),
            "vendi_within_prompt": Meaning(
                "Vendi score of a prompt", "how many different pictures those of one prompt are worth", "higher"
            ),
            "lpips": Meaning("LPIPS", "how different two pictures of one prompt look", "higher"),
        },
    ),
    "privacy": (
        "Does it give training cases away?",
        {
            "nearest_train_share": Meaning(
                "Nearer to training",
                "share of pictures nearer to a training case than to a held-out one; 50 % without memorisation",
                "lower",
                "percent",
            ),
            "distance_ratio": Meaning(
                "Ratio of distances", "to the nearest training case over the nearest held-out one; 1 without", "higher"
            ),
            "near_duplicates": Meaning(
                "Near duplicates", "share nearer to a training image than 99 % of strangers", "lower", "percent"
            ),
            "reidentified": Meaning(
                "Re-identified", "share matched to a training patient, as 1 % of strangers are", "lower", "percent"
            ),
            "membership_auc": Meaning(
                "Membership, by pictures", "AUC of telling training images from unseen ones; 0.5 is guessing", "lower"
            ),
            "membership_auc_loss": Meaning("Membership, by the model", "the same, from its denoising error", "lower"),
        },
    ),
}
# Prefix and heading of each column: a comparison, or one set of images beside real ones.
COMPARED = (("base/", "Before"), ("tuned/", "After"), ("real/", "Real images"))
SINGLE = (("images/", "These images"), ("real/", "Real images"))
PER_ATTRIBUTE = ("accuracy", "balanced_accuracy", "auroc", "f1")


def meaning(key: str) -> Meaning | None:
    """Return how ``family/name`` is presented, ``None`` for a metric that this page does not know."""
    family, _, name = key.partition("/")
    name, _, extractor = name.partition("@")
    found = FAMILIES.get(family, ("", {}))[1].get(name)
    if found is None or not extractor:
        return found
    return Meaning(f"{found.label} ({extractor})", found.explanation, found.better, found.unit)


@dataclass(frozen=True)
class Move:
    """A metric before and after tuning.

    Attributes:
        before: Value of the anchor.
        after: Value of the tuned generator.
        low: Lower end of the 95 % interval of ``after - before``, where the evaluation paired the pictures.
        high: Its upper end.
        sure: Whether chance is excluded at 95 %.
    """

    before: float
    after: float
    low: float | None
    high: float | None
    sure: bool

    @property
    def difference(self) -> float:
        """``after - before``."""
        return self.after - self.before

    @property
    def rose(self) -> bool:
        """It went up, beyond chance."""
        return self.sure and self.difference > 0

    @property
    def fell(self) -> bool:
        """It went down, beyond chance."""
        return self.sure and self.difference < 0


def move(metrics: Metrics, key: str) -> Move | None:
    """Compare ``base/KEY`` with ``tuned/KEY``.

    Sure is a change whose paired interval (``change/KEY``) excludes 0. Without one, each value must lie outside the
    other's interval. Without intervals nothing is sure.

    Args:
        metrics: Entries with prefixes ``base/``, ``tuned/`` and ``change/``.
        key: For example ``fidelity/fid``.

    Returns:
        ``None`` when one of the two was not measured.
    """
    before, after = value(metrics, f"base/{key}"), value(metrics, f"tuned/{key}")
    if before is None or after is None:
        return None
    paired = interval(metrics, f"change/{key}")
    if paired is not None:
        return Move(before, after, *paired, sure=not paired[0] <= 0 <= paired[1])
    around_before, around_after = interval(metrics, f"base/{key}"), interval(metrics, f"tuned/{key}")
    sure = (
        around_before is not None
        and around_after is not None
        and not around_before[0] <= after <= around_before[1]
        and not around_after[0] <= before <= around_after[1]
    )
    return Move(before, after, None, None, sure)


def value(metrics: Metrics, key: str) -> float | None:
    """Return the value of an entry, ``None`` where it is missing or no number."""
    number = metrics.get(key, {}).get("value")
    return float(number) if isinstance(number, int | float) and math.isfinite(number) else None


def interval(metrics: Metrics, key: str) -> tuple[float, float] | None:
    """Return the 95 % interval of an entry, ``None`` where it has none."""
    ends = metrics.get(key, {}).get("ci95")
    if not isinstance(ends, Sequence) or len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
        return None
    return float(ends[0]), float(ends[1])


def instrument(entry: Mapping[str, Any]) -> str:
    """Return the identity of the network that an entry was measured with, empty where none is stated."""
    return str(entry.get("evaluator") or entry.get("extractor") or "")


def attributes(metrics: Metrics) -> list[str]:
    """Return the attributes that were measured one by one, in their order."""
    found: dict[str, None] = {}
    for key in metrics:
        _, mark, name = key.partition("alignment/accuracy/")
        if mark:
            found[name] = None
    return list(found)


def percents(*shares: float) -> list[str]:
    """Write shares as percents, with a decimal where whole percents would make different values look the same."""
    whole = [f"{100 * share:.0f}" for share in shares]
    coarse = len(set(whole)) < len(set(shares))
    return [f"{100 * share:.1f}" if coarse else text for share, text in zip(shares, whole, strict=True)]


def number(amount: float) -> str:
    """Write a number with about three digits that mean something."""
    size = abs(amount)
    if 0 < size < 0.001:
        return f"{amount:.5f}" if size >= 0.00001 else f"{amount:.1e}"
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 or size == 0 else 4
    return f"{amount:.{digits}f}"


def written(amount: float, unit: str, ends: tuple[float, float] | None = None) -> tuple[str, str]:
    """Write a value in its unit, and its interval with as many decimals; the latter is empty where there is none."""
    if unit == "percent":
        return f"{100 * amount:.1f} %", f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else ""
    return number(amount), bracket(ends).strip()


def bracket(ends: tuple[float, float] | None, unit: str = "number") -> str:
    """Write an interval as `` [low, high]``, with a space before it, or nothing where there is none."""
    if ends is None:
        return ""
    low, high = percents(*ends) if unit == "percent" else map(number, ends)
    return f" [{low}, {high}]"


def words(name: str) -> str:
    """Write an attribute's or key's name for a reader."""
    return name.replace("_", " ")
