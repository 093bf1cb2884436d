"""Errors that a user can act on.

Every mistake a user can make is raised as :class:`UserError`. The command line prints it as one line and exits with
status 2; a notebook sees an ordinary :class:`ValueError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the input: says what was given, where, and what to do instead."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the known word nearest to ``name``, or the list of known words.

    Args:
        name: The unknown word that was given.
        known: The words that are legal in its place.

    Returns:
        A clause such as ``did you mean 'epochs'?`` ready to be appended to an error message.
    """
    words = sorted(known)
    match = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    return f"did you mean '{match[0]}'?" if match else f"known: {', '.join(words)}"
