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
ImageSize = Annotated[
    int | None, typer.Option("--image-size", min=8, help="Side at which the network looks, in pixels.")
]
Weights = Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="Pretrained backbone (.safetensors).")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the data.")]
Seconds = Annotated[float | None, typer.Option("--seconds", help="Time budget; makes results depend on speed.")]
FitSeed = Annotated[int | None, typer.Option("--seed", help="Of weights, order and augmentation.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Further setting, e.g. learning_rate=3e-4; repeatable."),
]
