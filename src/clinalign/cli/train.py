"""``clinalign train``: a base generator, rewards, evaluators."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from clinalign.cli.options import Device, Epochs, FitSeed, ImageSize, Seconds, Settings, Weights
from clinalign.cli.output import AsJson, print_json

app = typer.Typer(help="Train a base generator, a reward or an evaluator.", rich_markup_mode=None)


class PrecisionName(str, Enum):
    """Number formats."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


@app.callback(invoke_without_command=True)
def _top(context: typer.Context) -> None:
    """Train a base generator, a reward or an evaluator."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def _given(options: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """Put the options that were given together with those of ``--set``."""
    from clinalign.core.errors import UserError
    from clinalign.data.sources.settings import parse_settings

    further = parse_settings(settings or [])
    for name in further:
        if name in options:
            raise UserError(f"--set {name}: write it as --{name.replace('_', '-')}")
    return {name: value for name, value in options.items() if value is not None} | further


@app.command("base")
def base_command(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Prepared dataset.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the pipeline folder goes.")],
    from_model: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Pipeline folder or hub id to fine-tune; else a small one is built."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Denoiser steps. [default: 3000, fine-tuning 1000]")
    ] = None,
    autoencoder_steps: Annotated[
        int, typer.Option("--autoencoder-steps", min=1, help="Autoencoder steps, from scratch only.")
    ] = 1500,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures a step.")] = 32,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak. [default: 2e-3, fine-tuning 1e-5]")
    ] = None,
    caption_dropout: Annotated[
        float, typer.Option("--caption-dropout", min=0.0, max=1.0, help="Share of captions left out, for guidance.")
    ] = 0.1,
    balance: Annotated[
        float, typer.Option("--balance", min=1.0, help="Draw pictures of rare captions up to so many times as often.")
    ] = 1.0,
    noisy_steps: Annotated[
        bool, typer.Option("--noisy-steps", help="Full loss weight at high noise: texts sooner, textures later.")
    ] = False,
    snr_gamma: Annotated[
        float, typer.Option("--snr-gamma", min=0.0, help="Min-SNR weight of the loss; smaller: less fine grain.")
    ] = 5.0,
    ace_tokens: Annotated[
        int,
        typer.Option("--ace-tokens", min=0, max=16, help="Learn so many condition tokens for --from, nothing else."),
    ] = 0,
    width: Annotated[int, typer.Option("--width", min=16, help="First width of the denoiser, from scratch only.")] = 64,
    split: Annotated[str, typer.Option("--split", help="Split trained on.")] = "train",
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn.")] = 0,
    precision: Annotated[PrecisionName, typer.Option("--precision", help="Number format.")] = PrecisionName.auto,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Stage 1: train a generator from scratch, or fine-tune a diffusers pipeline; the same command resumes it."""
    from clinalign.workflows.train_base import BaseSettings, train_base

    settings = BaseSettings(
        from_model=from_model,
        steps=steps,
        autoencoder_steps=autoencoder_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        caption_dropout=caption_dropout,
        balance=balance,
        noisy_steps=noisy_steps,
        snr_gamma=snr_gamma,
        ace_tokens=ace_tokens,
        width=width,
        split=split,
        seed=seed,
        precision=precision.value,
        device=device,
    )
    card = train_base(data, out, settings)
    if as_json:
        print_json({"path": str(out), **card})
        return
    print(f"base generator in {out}: {card['cases']} cases, loss {card['loss']:.4f}, {card['seconds']['total']:.0f} s")


@app.command("reward")
def reward_command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="attributes, posture, consistency, region or realism.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Prepared dataset.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where weights, card and metrics go.")],
    split: Annotated[str, typer.Option("--split", help="train for a reward, judge for an evaluator.")] = "train",
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="timm name. [default: one for rewards, another for evaluators]")
    ] = None,
    image_size: ImageSize = None,
    weights: Weights = None,
    dropout: Annotated[
        float | None, typer.Option("--dropout", min=0.0, max=0.95, help="Before the last layer. [default: 0.3]")
    ] = None,
    epochs: Epochs = None,
    seconds: Seconds = None,
    seed: FitSeed = None,
    settings: Settings = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a reward, or with --split judge an evaluator; measured on the test split."""
    from clinalign.workflows.train_reward import train_reward

    options = {
        "backbone": backbone,
        "image_size": image_size,
        "weights": weights,
        "dropout": dropout,
        "device": device,
        "epochs": epochs,
        "seconds": seconds,
        "seed": seed,
    }
    given = _given(options, settings)
    metrics = train_reward(kind, data, out, split, **given)
    if as_json:
        print_json({"path": str(out), **metrics})
        return
    print(f"{kind} in {out}: {metrics['summary']}")
    for name, scores in metrics.get("attributes", {}).items():
        auroc = "  none" if scores["auroc"] is None else f"{scores['auroc']:6.3f}"
        print(f"  {name:20} AUROC {auroc}  n={scores['n']}")
    if split == "train":
        print(f"next: clinalign reward check {out} --data {data}")


@app.command("identity")
def identity_command(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Prepared dataset.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where weights, card and metrics go.")],
    split: Annotated[str, typer.Option("--split", help="judge: other patients than the generator's.")] = "judge",
    backbone: Annotated[str | None, typer.Option("--backbone", help="timm name. [default: that of evaluators]")] = None,
    image_size: ImageSize = None,
    weights: Weights = None,
    epochs: Epochs = None,
    seconds: Seconds = None,
    seed: FitSeed = None,
    settings: Settings = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train the encoder that recognises patients or lesions, with which `evaluate --privacy` looks for them."""
    from clinalign.workflows.train_identity import train_identity

    options = {
        "backbone": backbone,
        "image_size": image_size,
        "weights": weights,
        "device": device,
        "epochs": epochs,
        "seconds": seconds,
        "seed": seed,
    }
    given = _given(options, settings)
    metrics = train_identity(data, out, split, **given)
    if as_json:
        print_json({"path": str(out), **metrics})
        return
    print(f"identity encoder in {out}: {metrics['summary']}")
