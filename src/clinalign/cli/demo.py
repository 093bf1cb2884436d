"""``clinalign demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clinalign.cli.output import AsJson, print_json


def demo_command(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path("demo"),
    modality: Annotated[str, typer.Option("--modality", metavar="NAME", help="skin or cxr.")] = "skin",
    seed: Annotated[int, typer.Option("--seed", help="Of everything.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Do the whole job on built-in phantom data: train, tune, evaluate, report. About six minutes on two cores."""
    from clinalign.workflows.demo import demo

    result = demo(out, modality, seed)
    if as_json:
        print_json(result)
    else:
        print(result["report"])
