from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from clinalign.core import registry
from clinalign.core.errors import UserError
from clinalign.core.registry import Registry


def test_what_is_added_is_found() -> None:
    table: Registry[type] = Registry("reward", "clinalign.nothing")
    assert table.add("whole", int) is int
    table.add("broken", float)
    assert table.get("whole") is int
    assert table.names() == ["broken", "whole"]


def test_a_name_is_given_once() -> None:
    table: Registry[int] = Registry("reward", "clinalign.nothing")
    table.add("one", 1)
    with pytest.raises(ValueError, match=r"reward 'one' is registered twice"):
        table.add("one", 2)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    table: Registry[int] = Registry("reward", "clinalign.nothing")
    table.add("attributes", 1)
    with pytest.raises(UserError, match=r"unknown reward 'atributes': did you mean 'attributes'?"):
        table.get("atributes")


def test_another_package_adds_one_through_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str) -> list[Any]:
        return [EntryPoint("theirs", "math:pi", group)] if group == "clinalign.rewards" else []

    monkeypatch.setattr(registry, "entry_points", points)
    table: Registry[float] = Registry("reward", "clinalign.rewards")
    table.add("ours", 1.0)
    assert table.names() == ["ours", "theirs"]
    assert 3.14 < table.get("theirs") < 3.15
