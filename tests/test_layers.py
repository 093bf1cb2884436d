"""The shape of the house: every layer imports only from those below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = SOURCE / "clinalign"

# Highest first. Layers of one row do not import each other.
HOUSE = (
    {"cli"},
    {"workflows"},
    {"tuning"},
    {"rewards", "evaluation", "augmentation"},
    {"networks"},
    {"generation"},
    {"data"},
    {"core"},
)
FLOOR = {layer: number for number, row in enumerate(HOUSE) for layer in row}
# Stands beside the house: it may use everything, and nothing uses it.
OUTSIDE = {"experimental"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(module: Path) -> Iterator[str]:
    """Yield the dotted names of our own modules that a file imports, wherever in the file."""
    package = list(module.relative_to(SOURCE).with_suffix("").parts)[:-1]
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "clinalign")
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            path = ".".join([*above, *([node.module] if node.module else [])])
            if path == "clinalign":  # from clinalign import data
                yield from (f"clinalign.{name.name}" for name in node.names)
            elif path.startswith("clinalign."):
                yield path


def breaks_the_rule(layer: str, other: str) -> bool:
    return other in OUTSIDE or (layer != other and FLOOR[other] <= FLOOR[layer])


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_layers_below(module: Path) -> None:
    layer = module.relative_to(PACKAGE).parts[0]
    if layer in {"__init__.py", "__main__.py"} | OUTSIDE:
        return
    assert layer in FLOOR, f"{layer} is no layer of the house"
    others = {(name, name.split(".")[1]) for name in imported(module) if name.count(".")}
    wrong = sorted(name for name, other in others if other in FLOOR.keys() | OUTSIDE and breaks_the_rule(layer, other))
    assert not wrong, f"{module.relative_to(PACKAGE)} imports {', '.join(wrong)}"


def test_the_rule_can_fail() -> None:
    assert breaks_the_rule("core", "data")
    assert breaks_the_rule("rewards", "evaluation")
    assert breaks_the_rule("evaluation", "augmentation")
    assert breaks_the_rule("tuning", "experimental")
    assert not breaks_the_rule("tuning", "rewards")
    assert not breaks_the_rule("core", "core")
    # and imports are found, inside functions too
    assert "clinalign.workflows.train_base" in set(imported(PACKAGE / "cli" / "train.py"))
    assert "clinalign.core.errors" in set(imported(PACKAGE / "generation" / "generator.py"))


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    # help and errors appear at once: importing torch takes seconds
    code = (
        "import sys, clinalign.cli.app; "
        "heavy = {'torch', 'diffusers', 'transformers', 'peft', 'accelerate', 'timm', 'matplotlib', 'pandas'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
