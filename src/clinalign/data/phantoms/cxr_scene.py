"""Everything random about a chest phantom, drawn before a single pixel is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clinalign.core.errors import UserError, nearest
from clinalign.data.phantoms.cxr_anatomy import Anatomy
from clinalign.data.phantoms.cxr_placing import Parameters, place_findings
from clinalign.data.phantoms.cxr_settings import CXR_ATTRIBUTES, CXR_SUBGROUPS, CxrSettings


@dataclass(frozen=True)
class Scene:
    """A chest phantom before rendering; the same at every size.

    Attributes:
        anatomy: The patient and the film.
        attributes: Attribute name to 0 or 1.
        subgroups: ``sex``, ``age_band`` and ``view``.
        parameters: Posture, cardiothoracic ratio, and the numbers of each finding that is present.
    """

    anatomy: Anatomy
    attributes: dict[str, int]
    subgroups: dict[str, str]
    parameters: Parameters


def _attributes(rng: np.random.Generator, given: Mapping[str, int], settings: CxrSettings) -> dict[str, int]:
    for name, value in given.items():
        if name not in CXR_ATTRIBUTES:
            raise UserError(f"unknown chest attribute '{name}': {nearest(name, CXR_ATTRIBUTES)}")
        if value not in (0, 1):
            raise UserError(f"attribute '{name}' is {value!r}: give 0 or 1")
    states, probability = settings.joint
    for index, name in enumerate(CXR_ATTRIBUTES):
        if name in given:
            probability = np.where(states[:, index] == given[name], probability, 0.0)
    # One uniform number selects the state, so that fixing an attribute does not shift the draws that follow.
    row = int(np.searchsorted(np.cumsum(probability / probability.sum()), rng.uniform(), side="right"))
    state = states[min(row, int(np.flatnonzero(probability)[-1]))]
    return {name: int(state[index]) for index, name in enumerate(CXR_ATTRIBUTES)}


def _subgroups(rng: np.random.Generator, settings: CxrSettings) -> dict[str, str]:
    chosen = {}
    for column, values in CXR_SUBGROUPS.items():
        weights = np.array(settings.subgroup_weights(column))
        chosen[column] = str(values[int(rng.choice(len(values), p=weights / weights.sum()))])
    return chosen


def _truncated(rng: np.random.Generator) -> float:
    """Draw a standard normal number within two standard deviations."""
    while abs(draw := float(rng.normal())) > 2.0:
        pass
    return draw


def _anatomy(rng: np.random.Generator, enlarged: bool, groups: Mapping[str, str]) -> Anatomy:
    female, portable, old = groups["sex"] == "female", groups["view"] == "AP", groups["age_band"] == "65+"
    young = groups["age_band"] == "18-39"

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    chest = between(0.335, 0.385) - (0.015 if female else 0.0)
    apex = between(-0.42, -0.37)
    base = between(0.30, 0.37) - (0.035 if portable else 0.0)
    dome = base - between(0.075, 0.115)
    # Both ranges come from one number: with the same seed, cardiomegaly enlarges the same heart.
    size = between(0.0, 1.0)
    ratio = 0.565 + 0.095 * size if enlarged else 0.395 + 0.075 * size + (0.012 if portable else 0.0)
    return Anatomy(
        sex=groups["sex"],
        age_band=groups["age_band"],
        view=groups["view"],
        chest=chest,
        apex=apex,
        apex_u=between(0.11, 0.14),
        base=base,
        dome_right=dome - between(0.005, 0.03),
        dome_left=dome,
        ratio=ratio,
        heart_offset=between(0.10, 0.16),
        heart_tilt=between(0.45, 0.8),
        heart_aspect=between(0.72, 0.85),
        pedicle=between(0.055, 0.075) + (0.012 if portable else 0.0) + (0.006 if enlarged else 0.0),
        wall=between(0.045, 0.085),
        shoulder=between(-0.42, -0.35),
        slope=between(0.15, 0.4),
        arm_gap=between(0.01, 0.16),
        ribs=(between(0.062, 0.074), between(0.0, 1.0), between(0.055, 0.10) * (0.7 if old else 1.0)),
        clavicle=(between(-0.31, -0.27) - 0.03 * portable, between(0.16, 0.32) * (0.5 if portable else 1.0)),
        hila=(between(0.06, 0.13), between(0.0, 6.28)),
        breast=(between(0.05, 0.10) if female else 0.0, between(0.12, 0.2)),
        aorta=between(0.0, 0.012) + (0.0 if young else 0.01) + (0.014 if old else 0.0),
        bubble=between(0.1, 0.3) if rng.uniform() < 0.45 else 0.0,
        exposure=(
            between(0.02, 0.09) + (0.05 if portable else 0.0),
            between(0.90, 0.99),
            between(0.85, 1.3),
            between(0.32, 0.47) - (0.06 if portable else 0.0) - (0.02 if old else 0.0),
        ),
        noise=between(0.006, 0.014) + (0.006 if portable else 0.0),
        marker=bool(rng.uniform() < 0.5),
    )


def draw_scene(seed: int, given: Mapping[str, int], settings: CxrSettings) -> Scene:
    """Draw the scene of ``seed``.

    Patient, posture and findings each have their own stream of random numbers, so that with the same seed switching a
    finding on or off leaves patient and posture as they are.

    Args:
        seed: Any integer of at least 0.
        given: Attributes to honour exactly.
        settings: Distribution of everything else.

    Returns:
        The complete truth.

    Raises:
        UserError: For an unknown attribute or a value other than 0 and 1.
    """
    patient, findings, posture, choice = (np.random.default_rng([seed, stream]) for stream in range(4))
    attributes = _attributes(choice, given, settings)
    groups = _subgroups(patient, settings)
    anatomy = _anatomy(patient, bool(attributes["cardiomegaly"]), groups)
    parameters: Parameters = {
        "rotation": settings.rotation_spread * _truncated(posture),
        "zoom": 1.0 + settings.zoom_spread * _truncated(posture),
        "shift_x": settings.shift_spread * _truncated(posture),
        "shift_y": settings.shift_spread * _truncated(posture),
        "cardiothoracic_ratio": anatomy.ratio,
        **place_findings(int(findings.integers(2**62)), anatomy, attributes),
    }
    return Scene(anatomy, attributes, groups, parameters)
