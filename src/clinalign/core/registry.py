"""Plug-ins by name: one line registers one, a third party's package adds one through an entry point."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Generic, TypeVar

from clinalign.core.errors import UserError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of named things of one kind.

    Args:
        kind: The word for one of them in messages, for example ``reward``.
        group: Entry-point group that other packages use, for example ``clinalign.rewards``.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register ``entry`` under ``name`` and return it. A name is given once."""
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered twice")
        self._entries[name] = entry
        return entry

    def names(self) -> list[str]:
        """Return all names, our own and those of installed packages."""
        return sorted({*self._entries, *(point.name for point in entry_points(group=self.group))})

    def get(self, name: str) -> T:
        """Return the entry called ``name``.

        Raises:
            UserError: When there is none, naming the nearest.
        """
        if name in self._entries:
            return self._entries[name]
        for point in entry_points(group=self.group):
            if point.name == name:
                entry: T = point.load()
                return entry
        raise UserError(f"unknown {self.kind} '{name}': {nearest(name, self.names())}")
