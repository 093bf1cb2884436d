"""How many network evaluations, and seconds, each update rule needs to reach a level of an independent evaluator.

    python benchmarks/efficiency.py --demo demo --out efficiency [--rule ddpo --rule awm] [--seed 0 --seed 1 --seed 2]

Every rule starts from the same base model. After every few epochs the averaged weights draw one picture for each of
``--cases`` test cases, and an evaluator that never rewarded measures them. The target is the mean level that ``ddpo``
has at its end, unless ``--target`` gives another. Interrupted, it goes on: a finished (rule, seed) is read from --out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from settings import RULES, Parts, add_parts, config_of, machine, print_json

from clinalign.core.files import write_json
from clinalign.workflows.evaluate import evaluate
from clinalign.workflows.evaluation_setup import EvaluateSettings
from clinalign.workflows.tune import tune

STEPS, GUIDANCE, ETA = 10, 1.0, 1.0  # of the measured pictures: the same for every rule, however it samples itself
MEASURED = {
    "accuracy": "alignment/attribute_accuracy",
    "fid": "fidelity/fid",
    "feature_distance": "diversity/feature_distance",
    "ms_ssim": "diversity/ms_ssim",
}


def follow(rule: str, parts: Parts, seed: int, every: int, cases: int, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Tune with one rule and seed, and return one row for each measurement, the base model's first."""
    config = config_of(rule, parts, seed, changes)
    settings = EvaluateSettings(
        cases=cases, steps=STEPS, guidance=GUIDANCE, eta=ETA, rewards=(parts.reward,),
        resamples=100, report=False, keep_images=1,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    with tempfile.TemporaryDirectory() as folder:

        def measure(generator: Any, epoch: int, evaluations: int) -> None:
            found = evaluate(parts.data, Path(folder) / "seen", parts.evaluator, model=generator, settings=settings)
            values = {name: found[key]["value"] for name, key in MEASURED.items() if key in found}
            rows.append({"epoch": epoch, "network_evaluations": evaluations, "seconds": round(seconds, 1), **values})

        def on_epoch(tuner: Any, row: dict[str, Any]) -> None:
            nonlocal seconds
            seconds += sum(value for name, value in row.items() if name.startswith("seconds/"))
            if row["epoch"] % every == 0 or row["epoch"] == config.train.epochs:
                measure(tuner.generator, row["epoch"], row["network_evaluations"])
                print(rule, seed, rows[-1], file=sys.stderr, flush=True)

        measure(str(parts.base), 0, 0)
        tune(config, Path(folder) / "run", on_epoch=on_epoch)
    return rows


def reached(rows: list[dict[str, Any]], target: float) -> dict[str, Any] | None:
    """Return the first row at or above the target."""
    return next((row for row in rows if row["accuracy"] >= target), None)


def summarise(curves: dict[str, dict[str, list[dict[str, Any]]]], target: float | None) -> dict[str, Any]:
    """Return, for each rule, what it took to reach the target, over its seeds."""
    if target is None:
        target = mean(rows[-1]["accuracy"] for rows in curves["ddpo"].values())
    summary: dict[str, Any] = {}
    for rule, seeds in curves.items():
        hits = {seed: reached(rows, target) for seed, rows in seeds.items()}
        known = [row for row in hits.values() if row is not None]
        summary[rule] = {
            "reached": f"{len(known)} of {len(seeds)}",
            "final_accuracy": [round(rows[-1]["accuracy"], 4) for rows in seeds.values()],
            "evaluations_in_all": [rows[-1]["network_evaluations"] for rows in seeds.values()],
        }
        for name in ("network_evaluations", "seconds", "fid", "feature_distance", "ms_ssim"):
            values = [row[name] for row in known if name in row]
            if values:
                summary[rule][name] = {"mean": mean(values), "each": values}
    return {"target": target, "rules": summary}


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_parts(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the curves")
    parser.add_argument("--rule", action="append", choices=list(RULES), help="repeatable; all when left out")
    parser.add_argument("--seed", action="append", type=int, help="repeatable; 0, 1 and 2 when left out")
    parser.add_argument("--every", type=int, default=2, help="epochs between measurements")
    parser.add_argument("--cases", type=int, default=256)
    parser.add_argument("--target", type=float, help="accuracy of the evaluator; that of ddpo's end when left out")
    parser.add_argument("--config", type=json.loads, default={}, help="JSON sections to lay over the config")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.rule and "ddpo" not in arguments.rule and arguments.target is None:
        parser.error("without ddpo among the rules give a --target")
    parts = Parts.from_arguments(arguments)
    curves: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for rule in arguments.rule or list(RULES):
        for seed in arguments.seed or [0, 1, 2]:
            file = arguments.out / f"{rule}_{seed}.json"
            if not file.exists():
                rows = follow(rule, parts, seed, arguments.every, arguments.cases, arguments.config)
                write_json(file, {"rows": rows, "config": arguments.config, "machine": machine()})
            curves.setdefault(rule, {})[str(seed)] = json.loads(file.read_text(encoding="utf-8"))["rows"]
    result = {"benchmark": "efficiency", **summarise(curves, arguments.target), "machine": machine()}
    write_json(arguments.out / "efficiency.json", {**result, "curves": curves})
    if arguments.json:
        print_json(result)
        return
    print(f"target accuracy {result['target']:.3f}")
    for rule, row in result["rules"].items():
        evaluations, seconds = row.get("network_evaluations"), row.get("seconds")
        spent = f"{evaluations['mean']:>9,.0f} evaluations {seconds['mean']:>6.0f} s" if evaluations else "not reached"
        print(f"{rule:12} {row['reached']:>7}  {spent}  ended at {row['final_accuracy']}")


if __name__ == "__main__":
    main()
