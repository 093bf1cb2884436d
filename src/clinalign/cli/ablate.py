"""``clinalign ablate``: what each part of a method is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clinalign.cli.options import Scorer
from clinalign.cli.output import AsJson, print_json


def ablate_command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The full method; see recipes/cxrl_*.yaml.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Runs, evaluations, ablation.md, ablation.json.")],
    evaluator: Annotated[
        Path, typer.Option("--evaluator", metavar="DIR", help="Classifier trained on split `judge`; never a reward.")
    ],
    scorer: Scorer = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            "--arm",
            metavar="NAME",
            help="full, without_ace, without_rlcf, only_REWARD, ace_without_rl; repeatable. [default: all]",
        ),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option("--seed", help="Of tuning; repeatable. [default: 0, 1 and 2]")
    ] = None,
    cases: Annotated[int, typer.Option("--cases", metavar="N", help="Test cases of each evaluation.")] = 512,
    prompt_tuning_steps: Annotated[
        int, typer.Option("--prompt-tuning-steps", metavar="N", min=1, help="Steps of the arm ace_without_rl.")
    ] = 500,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tune a method whole and with each part taken away, with several seeds, and make the table. Resumable."""
    from clinalign.core.config import load_config
    from clinalign.workflows.ablate import TABLE, ablate
    from clinalign.workflows.evaluation_setup import EvaluateSettings

    resolved = load_config(config, settings or ())
    evaluation = EvaluateSettings(cases=cases, scorers=tuple(scorer or ()))
    result = ablate(resolved, out, evaluator, evaluation, seed or (0, 1, 2), arm or (), prompt_tuning_steps)
    if as_json:
        print_json({"path": str(out), **result})
        return
    print((out / TABLE).read_text(encoding="utf-8"))
    print(f"written to {out}")
