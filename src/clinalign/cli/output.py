"""How commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]


def print_json(content: Mapping[str, Any]) -> None:
    """Print ``content`` as one line of JSON on standard output. NaN is refused: it is not JSON."""
    print(json.dumps(content, allow_nan=False))
