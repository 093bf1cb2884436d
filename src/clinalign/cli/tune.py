"""``clinalign tune``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from clinalign.cli.output import AsJson, print_json


def tune_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="See recipes/ for examples.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folder.")] = Path("run"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. train.epochs=3; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that DIR holds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all and predict the cost; run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tune a generator with the rewards of a config (stage 2)."""
    from clinalign.core.config import load_config

    resolved = load_config(config, settings or ())
    if dry_run:
        from clinalign.workflows.dry_run import dry_run as predict

        result = predict(resolved)
        if as_json:
            print_json(result)
            return
        plan, cost = result["plan"], result["cost"]
        print(
            f"{result['prompts']} distinct prompts; {plan['images']} images an epoch in "
            f"{plan['images'] // plan['images_per_update']} updates; {plan['rollout_batch']} rows sampled and "
            f"{plan['micro_batch']} trained at once\n"
            f"{plan['evaluations']:,} network evaluations an epoch ({plan['evaluations_sampling']:,} sampling, "
            f"{plan['evaluations_training']:,} training) of {cost['gflop']:.2f} GFLOP each\n"
            f"about {cost['memory_gb']:.2f} GiB over the imports, {cost['seconds_per_epoch']:.0f} s an epoch, "
            f"{cost['seconds'] / 60:.0f} min in all (estimates, good to a factor of two)"
        )
        return
    from accelerate import PartialState

    from clinalign.workflows.model_card import may_write_card
    from clinalign.workflows.report import export_report
    from clinalign.workflows.tune import tune
    from clinalign.workflows.watch import guard_state

    row = tune(resolved, out, resume)
    if not PartialState().is_main_process:  # the others leave the report to the first
        return
    page = export_report(out, card=may_write_card(out))["report"]
    if as_json:
        print_json({"run": str(out), "report": str(page), **guard_state(out), **row})
    else:
        print(page, file=sys.stdout)
