"""Options that several commands share, so that they are called and explained the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Denoising steps. [default: the run's, else 20]")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="Guidance scale; 1 is none. [default: the run's, else 5]")
]
Eta = Annotated[
    float | None, typer.Option("--eta", help="0 deterministic to 1 ancestral. [default: the run's, else 1]")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", help="Images drawn at once; changes no result.")
]
Lpips = Annotated[
    Path | None,
    typer.Option("--lpips", metavar="FILE", help="AlexNet's ImageNet weights: measure LPIPS too; nothing is fetched."),
]
Scorer = Annotated[
    list[Path] | None,
    typer.Option(
        "--scorer", metavar="DIR", help="Further evaluator (posture, consistency, region) of split judge; repeatable."
    ),
]
