"""Commands beside: they run, they fail in one line, and they end with the block."""

from __future__ import annotations

import time

import pytest

from clinalign.core.errors import UserError
from clinalign.workflows.beside import Beside


def test_commands_run_one_after_the_other_while_this_goes_on() -> None:
    with Beside(1) as beside:
        start = time.perf_counter()
        beside.start("first", ["--version"])
        beside.start("second", ["--version"])
        assert time.perf_counter() - start < 0.5  # started, not waited for
        assert "first" in beside
        assert "third" not in beside
        assert beside.wait("first") > 0
        assert beside.wait("second") > 0


def test_a_failure_is_told_in_the_commands_own_words() -> None:
    with Beside(1) as beside:
        beside.start("bad", ["data", "check", "/nowhere/at/all"])
        with pytest.raises(UserError, match="clinalign data check /nowhere/at/all: /nowhere/at/all: no such folder"):
            beside.wait("bad")


def interrupted() -> None:
    """Start three commands and fail beside them."""
    with Beside(1) as beside:
        for name in ("one", "two", "three"):
            beside.start(name, ["doctor"])
        raise ZeroDivisionError


def test_leaving_the_block_ends_what_runs() -> None:
    start = time.perf_counter()
    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert time.perf_counter() - start < 5  # three of them take longer
