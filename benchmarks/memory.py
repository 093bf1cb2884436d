"""Peak memory of each update rule over the imports, each measured in a process of its own.

python benchmarks/memory.py --demo demo [--rule awm] --json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from settings import RULES, Parts, add_parts, config_of, machine, print_json

MIB = 1024 if sys.platform != "darwin" else 1024**2  # ru_maxrss is in KiB on Linux, in bytes on macOS


def peak() -> float:
    """Return this process's peak resident memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def measure(rule: str, parts: Parts) -> dict[str, float]:
    """Tune for two epochs in this process."""
    import torch

    from clinalign.workflows.tune import tune

    imports = peak()
    config = config_of(rule, parts, 0, {"train": {"epochs": 2}})
    with tempfile.TemporaryDirectory() as folder:
        tune(config, Path(folder) / "run")
    found = {"imports_mib": imports, "over_imports_mib": peak() - imports}
    if torch.cuda.is_available():
        found["gpu_mib"] = torch.cuda.max_memory_allocated() / 1024**2
    return found


def main() -> None:
    """Start one process a rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_parts(parser)
    parser.add_argument("--rule", action="append", choices=list(RULES), help="repeatable; all when left out")
    parser.add_argument("--here", action="store_true", help="measure the one rule in this process")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    parts, rules = Parts.from_arguments(arguments), arguments.rule or list(RULES)
    if arguments.here:
        print(json.dumps(measure(rules[0], parts)))
        return
    found: dict[str, Any] = {}
    for rule in rules:
        named = [f"--{name}={getattr(parts, name)}" for name in Parts.__dataclass_fields__]
        done = subprocess.run(
            [sys.executable, __file__, "--here", "--rule", rule, *named], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr.strip().splitlines()[-1])
        found[rule] = json.loads(done.stdout.strip().splitlines()[-1])
    result = {"benchmark": "memory", "rules": found, "machine": machine()}
    if arguments.json:
        print_json(result)
        return
    for rule, row in found.items():
        print(f"{rule:12} {row['over_imports_mib']:6.0f} MiB over the imports ({row['imports_mib']:.0f} MiB)")


if __name__ == "__main__":
    main()
