"""``clinalign sample``: one image for each prompt of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clinalign.cli.options import BatchSize, Device, Eta, Guidance, Steps
from clinalign.cli.output import AsJson, print_json


def sample_command(
    model: Annotated[str, typer.Option("--model", metavar="DIR", help="Run folder, pipeline folder or hub id.")],
    prompts: Annotated[Path, typer.Option("--prompts", metavar="FILE.csv", help="Table with a column `text`.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where images and metadata.csv go.")],
    seed: Annotated[int, typer.Option("--seed", help="Of the noise.")] = 0,
    count: Annotated[int, typer.Option("--count", metavar="N", help="Images of each prompt.")] = 1,
    steps: Steps = None,
    guidance: Guidance = None,
    eta: Eta = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Draw an image for each prompt; every file says that it is synthetic, from which model and which seed."""
    from clinalign.workflows.sample import sample

    card = sample(model, prompts, out, seed, steps, guidance, eta, count, batch_size, device)
    if as_json:
        print_json({"path": str(out), **card})
        return
    print(f"{card['images']} synthetic images in {out} ({card['network_evaluations']:,} network evaluations)")
