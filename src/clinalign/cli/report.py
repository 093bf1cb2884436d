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
    as_json: AsJson = False,
) -> None:
    """Write RUN/report/index.html: one page that needs nothing else, for reading, printing and sending on."""
    from clinalign.workflows.report import report

    page = report(run, real_images)
    if as_json:
        print_json({"report": str(page)})
    else:
        print(page)
