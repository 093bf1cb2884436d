"""The program ``clinalign``: its commands, and the one place where a user's mistake becomes one line and status 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from clinalign import __version__
from clinalign.cli import data, reward, train
from clinalign.cli.ablate import ablate_command
from clinalign.cli.augment import augment_command
from clinalign.cli.demo import demo_command
from clinalign.cli.doctor import doctor_command
from clinalign.cli.evaluate import evaluate_command
from clinalign.cli.report import report_command
from clinalign.cli.sample import sample_command
from clinalign.cli.tune import tune_command
from clinalign.core.errors import UserError

MISTAKE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="clinalign",
    help="Align medical text-to-image diffusion models with their prompts.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.add_typer(reward.app, name="reward")
app.command("demo")(demo_command)
app.command("tune")(tune_command)
app.command("sample")(sample_command)
app.command("evaluate")(evaluate_command)
app.command("ablate")(ablate_command)
app.command("augment")(augment_command)
app.command("report")(report_command)
app.command("doctor")(doctor_command)


def _print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Align medical text-to-image diffusion models with their prompts."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and end the process.

    Status 0 on success, 2 after a user's mistake with one line on standard error, 130 after an interruption. Any other
    exception is a fault of the program and keeps its traceback.

    Args:
        arguments: Words after the program's name; ``None`` for those of the process.
    """
    command = typer.main.get_command(app)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # In this mode the parser raises its errors instead of printing them over several lines.
        status = command.main(args=words, prog_name="clinalign", standalone_mode=False)
    except UserError as error:
        fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        # Typer carries its own copy of click or uses click itself, by version: both call it so.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "clinalign"
        fail(f"{describe().rstrip('.')}; see `{where} --help`")
    if status == INTERRUPTED:
        print("clinalign: interrupted", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)


def fail(message: str) -> NoReturn:
    """Print ``message`` on standard error, one line for each problem that it names, and end with status 2."""
    for problem in filter(None, (" ".join(line.split()) for line in message.splitlines())):
        print(f"clinalign: error: {problem}", file=sys.stderr)
    sys.exit(MISTAKE)
