"""``clinalign reward``: is this a reward at all?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from clinalign.cli.options import Device
from clinalign.cli.output import AsJson, print_json

app = typer.Typer(help="Look at rewards.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def _top(context: typer.Context) -> None:
    """Look at rewards."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("check")
def check_command(
    reward: Annotated[
        str, typer.Argument(metavar="NAME_OR_DIR", help="Folder of a reward, or a name without weights.")
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Prepared dataset.")],
    split: Annotated[str, typer.Option("--split", help="One that the reward was not trained on.")] = "test",
    count: Annotated[int, typer.Option("--count", metavar="N", min=8, help="Most images to look at.")] = 256,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Setting of the reward, e.g. score=probability; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw, the noise and the wrong labels.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find out whether a reward prefers the right label, real images, and not noise; status 2 where it does not."""
    from clinalign.core.precision import pick_device
    from clinalign.data.sources.settings import parse_settings
    from clinalign.workflows.check_reward import check_reward

    report = check_reward(reward, data, split, count, parse_settings(settings or []), str(pick_device(device)), seed)
    if as_json:
        print_json(report)
    else:
        for rival, value in report["separation"].items():
            print(f"{'right against ' + rival.replace('_', ' '):34} AUC {value:.3f}")
        for name, value in report["attributes"].items():
            print(f"{'wrong ' + name + ' lowers the score of':34} {value:.0%} of images")
        for text in report["warnings"]:
            print(f"clinalign: warning: {text}", file=sys.stderr)
        for text in report["reasons"]:
            print(f"clinalign: error: {text}", file=sys.stderr)
        print(f"{report['reward']}: {'passed' if report['passed'] else 'did not pass'} on {report['n']} images")
    if not report["passed"]:
        raise typer.Exit(2)
