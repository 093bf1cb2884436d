"""``clinalign data``: prepare a dataset, check a prepared one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from clinalign.cli.output import AsJson, print_json
from clinalign.core.errors import UserError

app = typer.Typer(help="Prepare and check datasets.", rich_markup_mode=None, no_args_is_help=False)

SPLIT_ORDER = "train, validation, judge, test"


@app.callback(invoke_without_command=True)
def _top(context: typer.Context) -> None:
    """Prepare and check datasets."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("prepare")
def prepare_command(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="phantom-skin, phantom-cxr, ham10000, nih-cxr14, folder, or a plug-in."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write the prepared dataset.")],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Your own copy of the data; not needed for phantoms."),
    ] = None,
    image_size: Annotated[int, typer.Option("--image-size", metavar="N", help="Side in pixels, a multiple of 8.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Seed of splits and phantoms.")] = 0,
    cases: Annotated[
        int | None,
        typer.Option("--cases", metavar="N", help="Take about N cases (whole groups), or draw N phantoms."),
    ] = None,
    group_column: Annotated[
        str, typer.Option("--group-column", help="Patient or lesion column of the source `folder`.")
    ] = "group_id",
    fractions: Annotated[
        str | None, typer.Option("--fractions", metavar="A,B,C,D", help=f"Shares of {SPLIT_ORDER}; sum 1.")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out missing and unreadable images, and record them.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Setting of the source, e.g. prevalence.hair=0.05; repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prepare a dataset: square images of one size, texts, labels, and splits by patient or lesion."""
    from clinalign.data.sources.settings import parse_settings
    from clinalign.data.splits import DEFAULT_FRACTIONS
    from clinalign.workflows.prepare import prepare

    dataset = prepare(
        source,
        out,
        root=root,
        image_size=image_size,
        seed=seed,
        cases=cases,
        group_column=group_column,
        fractions=DEFAULT_FRACTIONS if fractions is None else _fractions(fractions, tuple(DEFAULT_FRACTIONS)),
        skip_unreadable=skip_unreadable,
        settings=parse_settings(settings or []),
    )
    if as_json:
        print_json({"path": str(dataset.path), "fingerprint": dataset.fingerprint, **dataset.info})
        return
    counts = dataset.info["counts"]
    print(f"prepared {sum(counts.values())} cases of {source} at {image_size} pixels in {dataset.path}")
    print("splits: " + ", ".join(f"{split} {counts.get(split, 0)}" for split in DEFAULT_FRACTIONS))


def _fractions(text: str, splits: tuple[str, ...]) -> dict[str, float]:
    """Read the shares of the splits."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(splits):
        raise UserError(f"--fractions {text}: write {len(splits)} numbers, the shares of {SPLIT_ORDER}")
    return dict(zip(splits, values, strict=True))


@app.command("check")
def check_command(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A prepared dataset.")],
    as_json: AsJson = False,
) -> None:
    """Validate a prepared dataset; status 2 and one line a problem where something is wrong."""
    from clinalign.workflows.prepare import check

    report = check(path)
    if as_json:
        found = {"errors": list(report.errors), "warnings": list(report.warnings)}
        print_json({"path": report.path, "cases": report.cases, "ok": report.ok, **found})
    else:
        for line in report.errors:
            print(f"clinalign: error: {line}", file=sys.stderr)
        for line in report.warnings:
            print(f"clinalign: warning: {line}", file=sys.stderr)
        if report.ok:
            print(f"{path}: {report.cases} cases, no error, {len(report.warnings)} warnings")
    if not report.ok:
        raise typer.Exit(2)
