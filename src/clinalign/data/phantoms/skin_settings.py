"""How often each thing occurs on skin phantoms, and drawing one case's labels from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from clinalign.core.errors import UserError, nearest

ARTIFACTS = ("hair", "gel_bubble", "ruler", "ink", "dark_corner")
DIAGNOSES = ("MEL", "NV", "BKL")
SKIN_TONES = ("I-II", "III-IV", "V-VI")


def _check_shares(what: str, shares: Mapping[str, float], known: tuple[str, ...] | None = None) -> None:
    """Refuse unknown names, negative shares, and shares that are all zero."""
    for name, share in shares.items():
        if known is not None and name not in known:
            raise UserError(f"unknown name '{name}' in skin phantom {what}: {nearest(name, known)}")
        if not share >= 0:
            raise UserError(f"share of '{name}' in skin phantom {what} is {share}: give a number of 0 or more")
    if not sum(shares.values()) > 0:
        raise UserError(f"all shares in skin phantom {what} are zero: give at least one above 0")


@dataclass(frozen=True)
class SkinSettings:
    """Prevalences of a population of skin phantoms.

    Attributes:
        prevalence: Probability of each artifact; one left out never occurs.
        diagnoses: Relative share of each diagnosis, ``MEL``, ``NV`` and optionally ``BKL``. The diagnoses listed here
            are the ones that become attributes.
        correlations: ``(artifact, condition)`` to the artifact's probability where the condition holds. A condition is
            a diagnosis (``"MEL"``) or a subgroup (``"skin_tone=V-VI"``). Where several hold, the last one counts.
        skin_tones: Relative share of each Fitzpatrick-like tone.
        age_bands: Relative share of each age band.
        sexes: Relative share of each sex.
        sites: Relative share of each body site.

    Raises:
        UserError: On an unknown name, a negative share, or a probability outside ``[0, 1]``.
    """

    prevalence: Mapping[str, float] = field(
        default_factory=lambda: {"hair": 0.4, "gel_bubble": 0.2, "ruler": 0.2, "ink": 0.1, "dark_corner": 0.2}
    )
    diagnoses: Mapping[str, float] = field(default_factory=lambda: {"MEL": 0.3, "NV": 0.7})
    correlations: Mapping[tuple[str, str], float] = field(default_factory=dict)
    skin_tones: Mapping[str, float] = field(default_factory=lambda: {"I-II": 0.6, "III-IV": 0.28, "V-VI": 0.12})
    age_bands: Mapping[str, float] = field(default_factory=lambda: {"0-39": 0.35, "40-59": 0.4, "60+": 0.25})
    sexes: Mapping[str, float] = field(default_factory=lambda: {"female": 0.5, "male": 0.5})
    sites: Mapping[str, float] = field(
        default_factory=lambda: {"head/neck": 0.1, "trunk": 0.5, "upper extremity": 0.18, "lower extremity": 0.22}
    )

    def __post_init__(self) -> None:
        _check_shares("diagnoses", self.diagnoses, DIAGNOSES)
        _check_shares("skin_tones", self.skin_tones, SKIN_TONES)
        for column, shares in self.subgroups.items():
            _check_shares(column, shares)
        conditions = [*self.diagnoses, *(f"{c}={value}" for c, shares in self.subgroups.items() for value in shares)]
        for _, condition in self.correlations:
            if condition not in conditions:
                raise UserError(f"unknown condition '{condition}' in correlations: {nearest(condition, conditions)}")
        probabilities = [*self.prevalence.items(), *((key[0], p) for key, p in self.correlations.items())]
        for artifact, probability in probabilities:
            if artifact not in ARTIFACTS:
                raise UserError(f"unknown artifact '{artifact}': {nearest(artifact, ARTIFACTS)}")
            if not 0 <= probability <= 1:
                raise UserError(f"probability of artifact '{artifact}' is {probability}: give a number from 0 to 1")

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Artifacts, then the diagnoses of this population: the order of every phantom's attributes."""
        return (*ARTIFACTS, *(name for name in DIAGNOSES if name in self.diagnoses))

    @property
    def subgroups(self) -> dict[str, Mapping[str, float]]:
        """Subgroup column to the relative share of each of its values."""
        return {
            "skin_tone": self.skin_tones,
            "age_band": self.age_bands,
            "sex": self.sexes,
            "site": self.sites,
        }


DEFAULT_SETTINGS = SkinSettings()


def _pick(shares: Mapping[str, float], level: float) -> str:
    """Return the name at ``level`` in ``[0, 1)`` of the cumulated shares; a name with share 0 is never returned."""
    names = [name for name, share in shares.items() if share > 0]
    edges = np.cumsum([shares[name] for name in names])
    return names[min(int(np.searchsorted(edges / edges[-1], level, side="right")), len(names) - 1)]


def _diagnosis(given: Mapping[str, int], settings: SkinSettings, level: float) -> str:
    """Choose the one diagnosis that agrees with the values ``given``."""
    wanted = [name for name in settings.diagnoses if given.get(name) == 1]
    if len(wanted) > 1:
        raise UserError(f"a phantom has one diagnosis, but {' and '.join(wanted)} are both 1: set one of them")
    if wanted:
        return wanted[0]
    open_shares = {name: share for name, share in settings.diagnoses.items() if given.get(name) != 0}
    if not sum(open_shares.values()) > 0:
        names = ", ".join(settings.diagnoses)
        raise UserError(f"every diagnosis ({names}) is set to 0 or has no share: leave one open")
    return _pick(open_shares, level)


def draw_labels(
    rng: np.random.Generator,
    given: Mapping[str, int],
    settings: SkinSettings,
    given_subgroups: Mapping[str, str],
) -> tuple[dict[str, int], dict[str, str], str]:
    """Draw a case's attributes and subgroups; what is given is honoured and leaves the rest of the draw unchanged.

    Args:
        rng: Consumed in the same way whatever is given.
        given: Attribute name to 0 or 1.
        settings: The population.
        given_subgroups: Subgroup column to value.

    Returns:
        Attributes (0/1, in the order of ``settings.attribute_names``), subgroups, and the diagnosis.

    Raises:
        UserError: On an unknown attribute or subgroup, a value that is not 0 or 1, or contradictory diagnoses.
    """
    for name, value in given.items():
        if name not in settings.attribute_names:
            raise UserError(f"unknown skin attribute '{name}': {nearest(name, settings.attribute_names)}")
        if value not in (0, 1):
            raise UserError(f"skin attribute '{name}' is {value!r}: give 0 or 1")
    for column, word in given_subgroups.items():
        if column not in settings.subgroups:
            raise UserError(f"unknown skin subgroup '{column}': {nearest(column, settings.subgroups)}")
        if word not in settings.subgroups[column]:
            raise UserError(f"unknown {column} '{word}': {nearest(word, settings.subgroups[column])}")
    levels = rng.random(1 + len(ARTIFACTS) + len(settings.subgroups))
    diagnosis = _diagnosis(given, settings, float(levels[0]))
    subgroups = {
        column: given_subgroups.get(column) or _pick(shares, float(level))
        for (column, shares), level in zip(settings.subgroups.items(), levels[1 + len(ARTIFACTS) :], strict=True)
    }
    holds = {diagnosis, *(f"{column}={value}" for column, value in subgroups.items())}
    attributes: dict[str, int] = {}
    for artifact, level in zip(ARTIFACTS, levels[1:], strict=False):
        probability = settings.prevalence.get(artifact, 0.0)
        for (name, condition), conditional in settings.correlations.items():
            if name == artifact and condition in holds:
                probability = conditional
        attributes[artifact] = int(given.get(artifact, level < probability))
    for name in settings.attribute_names[len(ARTIFACTS) :]:
        attributes[name] = int(name == diagnosis)
    return attributes, subgroups, diagnosis
