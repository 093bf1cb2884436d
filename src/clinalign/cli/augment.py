"""``clinalign augment``: do generated images make a classifier better where real ones are few?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clinalign.cli.options import BatchSize, Device, Eta, Guidance
from clinalign.cli.output import AsJson, print_json

MARKS = {"good": "+", "bad": "!", "neutral": "-"}


def augment_command(
    model: Annotated[str, typer.Option("--model", metavar="DIR", help="Run folder, pipeline folder or hub id.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Prepared dataset.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Pictures, trainings, augment.json, report.")],
    evaluator: Annotated[
        Path | None,
        typer.Option("--evaluator", metavar="DIR", help="Judge trained on split `judge`; never a reward. Needed."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="DIR", help="Generator before tuning. [default: adapter off]")
    ] = None,
    class_names: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="Attribute that is a class; repeatable. [default: the diagnoses]"),
    ] = None,
    subgroup: Annotated[
        list[str] | None,
        typer.Option("--subgroup", metavar="NAME", help="Column or attribute that divides classes; repeatable."),
    ] = None,
    minimum: Annotated[
        int | None, typer.Option("--minimum", metavar="N", help="A cell with fewer real images is rare.")
    ] = None,
    share: Annotated[float, typer.Option("--share", help="Without --minimum: so much of the largest cell.")] = 0.25,
    ratio: Annotated[float, typer.Option("--ratio", help="Most generated images for each real one.")] = 5.0,
    cap: Annotated[int, typer.Option("--cap", metavar="N", help="Most generated images of a cell.")] = 1000,
    oversample: Annotated[float, typer.Option("--oversample", help="Pictures drawn for each one wanted.")] = 2.0,
    measurable: Annotated[
        int, typer.Option("--measurable", metavar="N", help="Fewest real images to measure fidelity against.")
    ] = 10,
    pass_rate: Annotated[
        float, typer.Option("--pass-rate", help="Share of real images that pass the judge's filter.")
    ] = 0.8,
    fill_unmeasured: Annotated[
        bool, typer.Option("--fill-unmeasured", help="Fill cells without a measured fidelity; the result says so.")
    ] = False,
    arm: Annotated[
        list[str] | None, typer.Option("--arm", metavar="NAME", help="See docs/augment.md; repeatable. [default: all]")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Trainings of each arm.")] = 5,
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Optimiser steps of each training.")] = 1000,
    train_batch: Annotated[int, typer.Option("--train-batch", metavar="N", help="Images in a step.")] = 32,
    backbone: Annotated[str, typer.Option("--backbone", metavar="NAME", help="timm name.")] = "test_resnet",
    synthetic_share: Annotated[
        float, typer.Option("--synthetic-share", help="Of a filled cell's images in balanced arms.")
    ] = 0.5,
    every_class: Annotated[
        int, typer.Option("--every-class", metavar="N", help="Pictures of each class for TSTR and TRTS; 0: neither.")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of prompts, noise and resamples.")] = 0,
    denoising_steps: Annotated[
        int | None, typer.Option("--denoising-steps", help="Of the generator. [default: the run's, else 20]")
    ] = None,
    guidance: Guidance = None,
    eta: Eta = None,
    reward: Annotated[
        list[Path] | None,
        typer.Option("--reward", metavar="DIR", help="Reward that the judge must not be; a run's are known."),
    ] = None,
    allow_reward_evaluator: Annotated[
        bool, typer.Option("--allow-reward-evaluator", help="Go on with a dependent judge; the result says so.")
    ] = False,
    real_images: Annotated[
        bool, typer.Option("--real-images/--no-real-images", help="Show real images beside generated ones.")
    ] = True,
    batch_size: BatchSize = None,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and its cost; draw nothing.")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Build the report page.")] = True,
    as_json: AsJson = False,
) -> None:
    """Fill rare cells with filtered pictures, train the same classifier on every arm, and compare. Resumable."""
    from clinalign.augmentation.learn import LearnSettings
    from clinalign.augmentation.plan import PlanRules
    from clinalign.workflows.augment import augment
    from clinalign.workflows.augment_settings import AugmentSettings

    settings = AugmentSettings(
        classes=tuple(class_names or ()),
        subgroups=tuple(subgroup or ()),
        rules=PlanRules(minimum, share, ratio, cap, oversample, measurable),
        learn=LearnSettings(steps, train_batch, backbone=backbone, synthetic_share=synthetic_share),
        arms=tuple(arm or ()),
        seeds=seeds,
        seed=seed,
        pass_rate=pass_rate,
        every_class=every_class,
        fill_unmeasured=fill_unmeasured,
        steps=denoising_steps,
        guidance=guidance,
        eta=eta,
        batch_size=batch_size,
        rewards=tuple(reward or ()),
        allow_reward_evaluator=allow_reward_evaluator,
        device=device,
        real_images=real_images,
        report=report,
    )
    result = augment(model, data, out, evaluator, base, settings, dry_run)
    if as_json:
        print_json(result)
    elif dry_run:
        print_plan(result)
    else:
        print_result(out)


def print_plan(card: dict[str, Any]) -> None:
    """Print the plan as a table of cells."""
    width = max(len(row["cell"]) for row in card["cells"])
    print(f"{'cell':{width}}  {'real':>6} {'groups':>6} {'test':>5} {'add':>5} {'draw':>5}")
    for row in card["cells"]:
        counts = f"{row['real']:6} {row['groups']:6} {row['test']:5} {row['wanted']:5} {row['candidates']:5}"
        reason = f"  not filled: {row['refused']}" if row["refused"] else ""
        print(f"{row['cell']:{width}}  {counts}{reason}")
    print(f"rare: fewer than {card['rare_below']} real training images")
    each, generators = card["pictures_of_each_generator"], " and ".join(card["generators"]) or "no generator"
    print(f"{each} pictures by {generators}: {card['network_evaluations']:,} network evaluations")
    for note in card["notes"]:
        print(f"note: {note}")


def print_result(out: Path) -> None:
    """Print what was found, in the words of the report."""
    import json

    details = json.loads((out / "details.json").read_text(encoding="utf-8"))
    for finding in details["findings"]:
        print(f"{MARKS[finding['kind']]} {finding['text']}")
    print(f"written to {out}")
