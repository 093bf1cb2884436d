"""Progress on standard error, so that standard output stays free for results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Print one line for the user on standard error."""
    console.print(message, markup=False)


def track(items: Iterable[T], words: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` under a progress bar; silent where standard error is not a terminal.

    Args:
        items: What to go through.
        words: What is being done, in two or three words.
        total: Number of items, where ``items`` does not know its length.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=words)
