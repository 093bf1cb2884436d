"""``clinalign evaluate``: how real, how true to the prompt, how varied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clinalign.cli.options import BatchSize, Device, Eta, Guidance, Lpips, Scorer, Steps
from clinalign.cli.output import AsJson, print_json

SHOWN = (
    "alignment/attribute_accuracy",
    "alignment/apr",
    "alignment/posture",
    "alignment/clip_score",
    "alignment/region",
    "alignment/region_agreement",
    "alignment/recall_at_1",
    "alignment/flipped_accuracy",
    "fidelity/fid",
    "fidelity/kid",
    "fidelity/frd",
    "fidelity/recall",
    "fidelity/lpips",
    "diversity/vendi",
    "diversity/feature_distance",
    "diversity/ms_ssim",
    "diversity/lpips",
    "privacy/nearest_train_share",
    "privacy/near_duplicates",
    "privacy/reidentified",
    "privacy/membership_auc",
    "privacy/membership_auc_loss",
)
SCORED = ("posture", "clip_score", "region", "region_agreement", "recall_at_1", "flipped_accuracy")
WORST = 4  # subgroups printed; all are in metrics.json


def evaluate_command(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Prepared dataset.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where metrics.json, images and report go.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="DIR", help="Run folder, pipeline folder or hub id to evaluate.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Folder of images with metadata.csv, instead of --model."),
    ] = None,
    evaluator: Annotated[
        Path | None,
        typer.Option("--evaluator", metavar="DIR", help="Classifier trained on split `judge`; never a reward. Needed."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="DIR", help="Compare with the generator before tuning; give --model again for its anchor."
        ),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Whose prompts, and whose real images as reference.")] = "test",
    cases: Annotated[int, typer.Option("--cases", metavar="N", help="Most cases; rare prompts come first.")] = 512,
    images_per_case: Annotated[int, typer.Option("--images-per-case", metavar="N", help="Images of each case.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of cases, noise and resamples.")] = 0,
    steps: Steps = None,
    guidance: Guidance = None,
    eta: Eta = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="NAME", help="Judge these only, not all that texts speak of; repeatable."),
    ] = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option("--extractor", metavar="NAME:PATH", help="Further features, e.g. inception:FILE; repeatable."),
    ] = None,
    scorer: Scorer = None,
    lpips: Lpips = None,
    subgroup_minimum: Annotated[
        int, typer.Option("--subgroup-minimum", metavar="N", help="Images that a subgroup needs on each side.")
    ] = 20,
    reward: Annotated[
        list[Path] | None,
        typer.Option("--reward", metavar="DIR", help="Reward that the evaluator must not be; a run's are known."),
    ] = None,
    allow_reward_evaluator: Annotated[
        bool, typer.Option("--allow-reward-evaluator", help="Go on with a dependent evaluator; the result says so.")
    ] = False,
    keep_all_images: Annotated[
        bool, typer.Option("--keep-all-images", help="Write every image, not the first 64.")
    ] = False,
    real_images: Annotated[
        bool, typer.Option("--real-images/--no-real-images", help="Show real images beside generated ones.")
    ] = True,
    privacy: Annotated[
        bool, typer.Option("--privacy", help="Look for memorised training images; needs a training split.")
    ] = False,
    train_split: Annotated[
        str, typer.Option("--train-split", help="What the generator was trained on, for --privacy.")
    ] = "train",
    identity: Annotated[
        Path | None,
        typer.Option("--identity", metavar="DIR", help="Encoder by `train identity`, for --privacy."),
    ] = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    report: Annotated[bool, typer.Option("--report/--no-report", help="Build the report page.")] = True,
    as_json: AsJson = False,
) -> None:
    """Measure fidelity, alignment and diversity of a generator, or of images in a folder, with intervals.

    The evaluator must not have rewarded: an evaluator that is the run's reward, or learned from the same split, is
    refused.
    """
    from clinalign.core.errors import UserError
    from clinalign.workflows.evaluate import evaluate, evaluate_pair
    from clinalign.workflows.evaluation_setup import EvaluateSettings

    settings = EvaluateSettings(
        split=split,
        cases=cases,
        images_per_case=images_per_case,
        seed=seed,
        steps=steps,
        guidance=guidance,
        eta=eta,
        attributes=tuple(attribute or ()),
        extractors=tuple(extractor or ()),
        scorers=tuple(scorer or ()),
        lpips=lpips,
        subgroup_minimum=subgroup_minimum,
        rewards=tuple(reward or ()),
        allow_reward_evaluator=allow_reward_evaluator,
        keep_images=None if keep_all_images else 64,
        real_images=real_images,
        batch_size=batch_size,
        device=device,
        report=report,
        privacy=privacy,
        train_split=train_split,
        identity=identity,
    )
    if base is None:
        entries = evaluate(data, out, evaluator, model=model, images=images, settings=settings)
    elif model is None or images is not None:
        raise UserError("--base compares two generators: give the tuned one with --model, and no --images")
    else:
        entries = evaluate_pair(base, model, data, evaluator, out, settings)
    if as_json:
        print_json(entries)
        return
    prefixes = ("base/", "tuned/", "real/") if base is not None else ("", "real/")
    for key in SHOWN:
        for prefix in prefixes:
            if prefix + key in entries:
                print(line(prefix + key, entries[prefix + key]))
    scored = [key for key in entries if key.startswith("change/alignment/") and key.rpartition("/")[2] in SCORED]
    scored += [key for key in entries if key.startswith("change/privacy/")]
    for key in (*scored, "gap/attribute_accuracy_closed", "change/diversity", "change/fid"):
        if key in entries:
            print(line(key, entries[key]))
    print_subgroups(entries)
    print_identities(entries)
    print(f"written to {out}")


def print_subgroups(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the subgroups in which the attribute accuracy changed worst or, without a change, is lowest."""
    name = "alignment/attribute_accuracy"
    changes = [key for key in entries if key.startswith("change/subgroup/") and key.endswith(name)]
    found = changes or [key for key in entries if key.startswith("subgroup/") and key.endswith(name)]
    if found:
        print(f"lowest of {len(found)} subgroups (all are in metrics.json):")
    for key in sorted(found, key=lambda key: float(entries[key]["value"]))[:WORST]:
        print(line(key, entries[key]))


def print_identities(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what measured: each evaluator and extractor once, with the families that it gave."""
    found: dict[str, dict[str, None]] = {}
    for key, entry in entries.items():
        measure = entry.get("extractor") or entry.get("evaluator")
        if measure:
            parts = key.split("/")
            names = [part for part in parts if part in ("alignment", "fidelity", "diversity")]
            found.setdefault(str(measure), {}).update(dict.fromkeys(names))
    for measure, families in found.items():
        print(f"measured with {measure} ({', '.join(families) or 'changes'})")


def line(key: str, entry: Mapping[str, Any]) -> str:
    """Write one entry of ``metrics.json`` as a line."""
    low, high = entry["ci95"]
    return f"{key:34} {entry['value']:8.3f}  [{low:.3f}, {high:.3f}]  n={entry['n']}"
