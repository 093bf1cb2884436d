"""``clinalign report``: (re)build the page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clinalign.cli.output import AsJson, print_json


def report_command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Output folder of `clinalign tune`, `evaluate` or `demo`.")
    ],
    real_images: Annotated[
        bool,
        typer.Option(
            "--real-images/--no-real-images",
            help="Show real examples beside generated ones; leave them out where the licence forbids to pass them on.",
        ),
    ] = True,
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", metavar="RUN", help="A run of the same config with another seed; may be given again."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--evaluation", metavar="DIR", help="Evaluation of the run, where it is not RUN/evaluation."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write all numbers as a table too, for a spreadsheet or pandas."),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write RUN/model/README.md too: the model card in Hugging Face format.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write RUN/report/index.html: one page that needs nothing else, for reading, printing and sending on."""
    from clinalign.workflows.report import export_report

    written = export_report(run, real_images, also or (), evaluation, csv, card)
    if as_json:
        print_json({name: str(path) for name, path in written.items()})
    else:
        for path in written.values():
            print(path)
