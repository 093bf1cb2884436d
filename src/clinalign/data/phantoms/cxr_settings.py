"""What chest phantoms show, and how often: names, prevalences, correlations, subgroups and posture spreads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from clinalign.core.errors import UserError, nearest

CXR_ATTRIBUTES = ("cardiomegaly", "effusion", "consolidation", "pneumothorax", "nodule", "device")
CXR_SUBGROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"sex": ("female", "male"), "age_band": ("18-39", "40-64", "65+"), "view": ("PA", "AP")}
)
_LIMITS = {"rotation_spread": 10.0, "zoom_spread": 0.10, "shift_spread": 0.06}
_TINY = 1e-9  # keeps every combination possible, so that attributes a caller fixes can always be honoured


def _default_prevalence() -> dict[str, float]:
    return {
        "cardiomegaly": 0.35,
        "effusion": 0.35,
        "consolidation": 0.30,
        "pneumothorax": 0.25,
        "nodule": 0.30,
        "device": 0.30,
    }


def _default_subgroups() -> dict[str, dict[str, float]]:
    return {
        "sex": {"female": 0.5, "male": 0.5},
        "age_band": {"18-39": 0.3, "40-64": 0.4, "65+": 0.3},
        "view": {"PA": 0.65, "AP": 0.35},
    }


def _check_share(value: float, where: str) -> None:
    if not 0.0 <= value <= 1.0:
        raise UserError(f"{where} is {value}: give a probability from 0 to 1")


def _check_name(name: str, known: tuple[str, ...], where: str) -> None:
    if name not in known:
        raise UserError(f"{where} names '{name}': {nearest(name, known)}")


@dataclass(frozen=True)
class CxrSettings:
    """How chest phantoms are distributed.

    Attributes:
        prevalence: Attribute name to its share among all phantoms; names left out keep their default. Rare findings are
            made by a small number here.
        correlations: ``(child, parent)`` to P(child present | parent present). The child keeps its overall prevalence:
            P(child | parent absent) follows from it. A child has one parent, and parents form no circle.
        subgroups: Subgroup column to the weights of its values; columns and values left out keep their default weight.
        rotation_spread: Standard deviation of the rotation in degrees, at most 10; draws beyond two are redrawn.
        zoom_spread: Standard deviation of the zoom around 1, at most 0.1.
        shift_spread: Standard deviation of both shifts as a fraction of the picture's width, at most 0.06. Within these
            limits no finding leaves the picture entirely.
        report_negatives: Whether reports also name what is absent.

    Raises:
        UserError: For an unknown name, a number out of range, or a correlation that the prevalences do not allow.
    """

    prevalence: Mapping[str, float] = field(default_factory=dict)
    correlations: Mapping[tuple[str, str], float] = field(default_factory=dict)
    subgroups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rotation_spread: float = 3.5
    zoom_spread: float = 0.05
    shift_spread: float = 0.02
    report_negatives: bool = False

    def __post_init__(self) -> None:
        for name, share in self.prevalence.items():
            _check_name(name, CXR_ATTRIBUTES, "prevalence")
            _check_share(share, f"prevalence of '{name}'")
        for column, weights in self.subgroups.items():
            _check_name(column, tuple(CXR_SUBGROUPS), "subgroups")
            for value, weight in weights.items():
                _check_name(value, CXR_SUBGROUPS[column], f"subgroup '{column}'")
                if not 0.0 <= weight < math.inf:
                    raise UserError(f"weight of {column} '{value}' is {weight}: give a number of at least 0")
            if sum(self.subgroup_weights(column)) <= 0:
                raise UserError(f"all weights of subgroup '{column}' are 0: give at least one a positive weight")
        for name, limit in _LIMITS.items():
            if not 0.0 <= getattr(self, name) <= limit:
                raise UserError(f"{name} is {getattr(self, name)}: give a number from 0 to {limit}")
        self._check_correlations()

    def _check_correlations(self) -> None:
        parents: dict[str, str] = {}
        for pair, share in self.correlations.items():
            if not (isinstance(pair, tuple) and len(pair) == 2):
                raise UserError(f"correlations names {pair!r}: give a pair (child, parent) of attribute names")
            child, parent = pair
            _check_name(child, CXR_ATTRIBUTES, "correlations")
            _check_name(parent, CXR_ATTRIBUTES, "correlations")
            _check_share(share, f"correlation of {child} with {parent}")
            if child in parents:
                raise UserError(f"correlations give '{child}' two parents, {parents[child]} and {parent}: keep one")
            parents[child] = parent
            p, q = self.share(child), self.share(parent)
            low, high = (max(0.0, (p + q - 1) / q), min(1.0, p / q)) if q > 0 else (0.0, 1.0)
            if not low - _TINY <= share <= high + _TINY:
                raise UserError(
                    f"P({child} | {parent}) = {share} cannot hold with prevalences {p} and {q}: "
                    f"give {low:.2f} to {high:.2f}, or change the prevalence of '{child}'"
                )
        for child in parents:
            seen, name = {child}, parents[child]
            while name in parents and name not in seen:
                seen.add(name)
                name = parents[name]
            if name in seen:
                raise UserError(f"correlations go round in a circle through '{child}': remove one of them")

    def share(self, name: str) -> float:
        """Return the prevalence of attribute ``name``."""
        return self.prevalence.get(name, _default_prevalence()[name])

    def subgroup_weights(self, column: str) -> list[float]:
        """Return the weights of subgroup ``column`` in the order of ``CXR_SUBGROUPS``, not normalised."""
        given, default = self.subgroups.get(column, {}), _default_subgroups()[column]
        return [float(given.get(value, default[value])) for value in CXR_SUBGROUPS[column]]

    @cached_property
    def joint(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All combinations of the attributes ``(64, 6)`` and the probability of each ``(64,)``.

        The table is small enough to be exact: conditioning on whatever a caller fixes is then a matter of selecting
        rows, also from child to parent.
        """
        states = np.array(list(itertools.product((0, 1), repeat=len(CXR_ATTRIBUTES))))
        column = {name: index for index, name in enumerate(CXR_ATTRIBUTES)}
        parents = {child: (parent, share) for (child, parent), share in self.correlations.items()}
        probability = np.ones(len(states))
        for name in CXR_ATTRIBUTES:
            present = np.full(len(states), self.share(name))
            if name in parents:
                parent, given = parents[name]
                q = self.share(parent)
                otherwise = (self.share(name) - given * q) / (1 - q) if q < 1 else given
                present = np.where(states[:, column[parent]] == 1, given, otherwise)
            present = present.clip(_TINY, 1 - _TINY)
            probability *= np.where(states[:, column[name]] == 1, present, 1 - present)
        return states, probability / probability.sum()
