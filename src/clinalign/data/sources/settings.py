"""Settings given as ``--set a.b=value``, laid over dataclasses with a check of every name and type."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import yaml

from clinalign.core.config import read_value
from clinalign.core.errors import UserError, nearest

T = TypeVar("T")


def parse_settings(words: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` words; values are YAML, such as ``0.05``, ``true`` or ``[MEL, NV]``.

    Raises:
        UserError: For a word without ``=``, or a value that is not YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        # The name of a correlation may itself hold a sign: correlations.ink.skin_tone=V-VI=0.5
        name, sign, value = word.rpartition("=") if word.startswith("correlations.") else word.partition("=")
        if not sign or not name.strip():
            raise UserError(f"--set {word}: write it as name=value, for example prompt.sex=true")
        try:
            settings[name.strip()] = read_value(value)
        except yaml.YAMLError:
            raise UserError(f"--set {word}: cannot read the value '{value}'") from None
    return settings


def split_settings(settings: Mapping[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the settings that begin with ``head.`` (returned without it) from the others."""
    inside = {name[len(head) + 1 :]: value for name, value in settings.items() if name.startswith(f"{head}.")}
    others = {name: value for name, value in settings.items() if not name.startswith(f"{head}.")}
    return inside, others


def refuse_settings(settings: Mapping[str, Any], source: str, known: Iterable[str]) -> None:
    """Raise :class:`UserError` when any setting is left over."""
    for name in settings:
        raise UserError(f"source '{source}' has no setting '{name}': {nearest(name, known)}")


def apply_settings(base: T, settings: Mapping[str, Any], source: str, head: str = "") -> T:
    """Return the dataclass ``base`` with ``settings`` laid over it.

    A dotted name goes into a field that is a mapping (``prevalence.hair``, ``subgroups.view.AP``); for a field called
    ``correlations``, whose keys are pairs, ``correlations.hair.MEL`` sets the pair ``("hair", "MEL")``. The keys of a
    mapping are checked by the dataclass itself.

    Args:
        base: A dataclass instance.
        settings: Name to value.
        source: Name of the source for messages.
        head: What stood before the names, for messages.

    Raises:
        UserError: For an unknown field, a value of another type than the default's, or one that ``base`` refuses.
    """
    if not dataclasses.is_dataclass(base) or isinstance(base, type):
        raise TypeError("settings are laid over a dataclass instance")
    values = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    changed: dict[str, Any] = {}
    for name, value in settings.items():
        outer, _, inner = name.partition(".")
        if outer not in values:
            refuse_settings({f"{head}{name}": value}, source, [f"{head}{word}" for word in values])
        current = changed.get(outer, values[outer])
        if isinstance(current, Mapping) != bool(inner):
            form = f"{head}{outer}.NAME=number" if isinstance(current, Mapping) else f"{head}{outer}=value"
            raise UserError(f"--set {head}{name}={value}: write it as {form}")
        if not inner:
            changed[outer] = _same_type(current, value, f"{head}{name}")
        elif not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UserError(f"--set {head}{name}={value}: needs a number")
        elif outer == "correlations":
            child, _, parent = inner.partition(".")
            changed[outer] = {**current, (child, parent): float(value)}
        else:
            changed[outer] = _merge(current, inner.split("."), float(value))
    # The dataclass checks its own values and raises UserError.
    return dataclasses.replace(base, **changed)


def _merge(tree: Mapping[str, Any], keys: list[str], value: float) -> dict[str, Any]:
    """Return ``tree`` with ``value`` at the end of the path ``keys``."""
    first, rest = keys[0], keys[1:]
    return {**tree, first: _merge(tree.get(first, {}), rest, value) if rest else value}


def _same_type(default: Any, value: Any, name: str) -> Any:
    """Return ``value`` when it has the type of ``default`` (an integer passes for a float, a list for a tuple)."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if type(value) is not type(default):
        raise UserError(f"--set {name}={value}: needs a value like {default!r}")
    return value
