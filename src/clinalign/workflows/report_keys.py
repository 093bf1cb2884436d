"""The parts of a key of ``metrics.json``: which images, which subgroup, which metric."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PREFIXES = ("base", "tuned", "real", "change", "gap", "images")
# A subgroup's value may hold a slash (`site=head/neck`), so what ends it is the name of a family.
_SUBGROUP = re.compile(
    r"subgroup/(?P<column>[^=]+)=(?P<value>.+?)/(?P<metric>(?:alignment|fidelity|diversity|privacy)/.+)"
)


@dataclass(frozen=True)
class Key:
    """A key taken apart; parts that it lacks are empty.

    Attributes:
        prefix: One of :data:`PREFIXES`.
        subgroup: ``column=value``, for example ``sex=female`` or ``attribute:MEL=1``.
        family: For example ``fidelity``.
        name: For example ``fid`` or ``accuracy/hair``.
    """

    prefix: str
    subgroup: str
    family: str
    name: str

    @property
    def metric(self) -> str:
        """``family/name``."""
        return "/".join(part for part in (self.family, self.name) if part)

    def __str__(self) -> str:
        """The key itself."""
        subgroup = f"subgroup/{self.subgroup}" if self.subgroup else ""
        return "/".join(part for part in (self.prefix, subgroup, self.family, self.name) if part)


def split_key(key: str) -> Key:
    """Take a key apart; ``str`` of the result is the key again."""
    first, _, rest = key.partition("/")
    prefix, rest = (first, rest) if first in PREFIXES and rest else ("", key)
    subgroup = ""
    found = _SUBGROUP.fullmatch(rest)
    if found:
        subgroup, rest = f"{found['column']}={found['value']}", found["metric"]
    family, slash, name = rest.partition("/")
    return Key(prefix, subgroup, family, name) if slash else Key(prefix, subgroup, "", family)


def subgroups(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return the values of each subgroup column that something was measured in, in their order."""
    found: dict[str, dict[str, None]] = {}
    for key in keys:
        column, _, value = split_key(key).subgroup.partition("=")
        if column:
            found.setdefault(column, {})[value] = None
    return {column: list(values) for column, values in found.items()}
