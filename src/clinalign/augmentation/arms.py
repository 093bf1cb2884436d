"""The arms of the experiment: what each classifier is trained on, and which two are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clinalign.core.errors import UserError, nearest

Side = Literal["base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")


@dataclass(frozen=True)
class Arm:
    """One way to train the classifier.

    Attributes:
        name: Part of the keys of the result.
        label: For a reader.
        augmented: Real and generated images are flipped, turned, brightened, ...
        balanced: Classes are drawn as often as one another, not as often as they are in the data.
        side: Generator whose filtered images are added; ``None`` for none.
        first: Generated images come first, real ones after them.
        only: Generated images of every class, as they were drawn, and no real ones.
    """

    name: str
    label: str
    augmented: bool = True
    balanced: bool = False
    side: Side | None = None
    first: bool = False
    only: bool = False


_ALL = (
    Arm("real", "real images", augmented=False),
    Arm("classical", "real, classical augmentation"),
    Arm("balanced", "classical, classes balanced", balanced=True),
    Arm("base", "classical + base images", side="base"),
    Arm("tuned", "classical + tuned images", side="tuned"),
    Arm("base_balanced", "balanced + base images", balanced=True, side="base"),
    Arm("tuned_balanced", "balanced + tuned images", balanced=True, side="tuned"),
    Arm("tuned_first", "tuned images first, then classical", side="tuned", first=True),
    Arm("tuned_first_balanced", "tuned images first, then balanced", balanced=True, side="tuned", first=True),
    Arm("tstr_base", "base images only (TSTR)", side="base", only=True),
    Arm("tstr_tuned", "tuned images only (TSTR)", side="tuned", only=True),
)
ARMS: Mapping[str, Arm] = {arm.name: arm for arm in _ALL}

# The first arm minus the second. Where the sampling differs too, the class frequencies changed with the images.
COMPARISONS: tuple[tuple[str, str], ...] = (
    ("tuned", "classical"),
    ("tuned", "balanced"),
    ("tuned", "base"),
    ("tuned_balanced", "balanced"),
    ("tuned_balanced", "base_balanced"),
    ("tuned_balanced", "classical"),
    ("tuned_first", "classical"),
    ("tuned_first_balanced", "balanced"),
    ("base", "classical"),
    ("base_balanced", "balanced"),
    ("balanced", "classical"),
    ("tstr_tuned", "tstr_base"),
)


def choose_arms(names: Sequence[str]) -> list[Arm]:
    """Return the arms of these names, in the order of :data:`ARMS`; all when empty.

    Raises:
        UserError: For an unknown name.
    """
    for name in names:
        if name not in ARMS:
            raise UserError(f"--arm {name}: there is no such arm, {nearest(name, ARMS)}")
    return [arm for arm in ARMS.values() if not names or arm.name in names]
