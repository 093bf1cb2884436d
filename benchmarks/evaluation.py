"""Seconds of processor time by part and peak memory of a whole evaluation, at several numbers of pictures.

python benchmarks/evaluation.py --evaluator demo/evaluator --images 1000 3000 10000 --work eval_bench [--json]

Phantom pictures of one seed, in a folder, are measured against those of another with every metric that needs no further
weights, each number in a process of its own. `--work` keeps the pictures for the next time.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from settings import machine, print_json

MIB = 1024 if sys.platform != "darwin" else 1024**2  # ru_maxrss is in KiB on Linux, in bytes on macOS
# Part to the functions, by module and name, that it consists of.
PARTS = {
    "real pictures: reading, networks, radiomics": [("evaluation_setup", "measure")],
    "pictures: reading, networks, radiomics": [("evaluate", "measure")],
    "fidelity": [("evaluation_measure", "feature_entries")],
    "alignment": [("evaluation_measure", "alignment_entries")],
    "diversity": [("evaluation_measure", "diversity_entries"), ("evaluation_measure", "vendi_entries")],
    "subgroups": [("evaluate", "subgroup_entries")],
}


def pictures(work: Path, count: int, size: int) -> tuple[Path, Path]:
    """Return a dataset of ``count`` phantoms, all of one split, and a folder of as many others; drawn where missing."""
    from clinalign.data.prepared import PreparedDataset
    from clinalign.workflows.prepare import prepare

    data, folder = work / f"real_{size}_{count}", work / f"pictures_{size}_{count}"
    for seed, place in ((0, data), (1, folder)):
        if not (place / "dataset.json").is_file():
            prepare("phantom-skin", place, image_size=size, seed=seed, cases=count, fractions={"train": 1.0})
    names = [case.image for case in PreparedDataset.open(folder).cases("train")]
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "case_id"])
        for case, image in zip(PreparedDataset.open(data).cases("train"), names, strict=True):
            assert image is not None
            table.writerow([image.relative_to(folder), case.case_id])
    return data, folder


def timed(
    seconds: dict[str, float], peaks: dict[str, float], part: str, function: Callable[..., Any]
) -> Callable[..., Any]:
    """Return ``function`` with the processor's time that it takes added to ``part``, and the peak when it ends."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] = seconds.get(part, 0.0) + time.process_time() - start
            peaks[part] = peak()

    return run


def measure(data: Path, folder: Path, evaluator: Path) -> dict[str, Any]:
    """Evaluate in this process."""
    import importlib

    from clinalign.workflows.evaluate import evaluate
    from clinalign.workflows.evaluation_setup import EvaluateSettings

    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}
    for part, functions in PARTS.items():
        for module, name in functions:
            place = importlib.import_module(f"clinalign.workflows.{module}")
            setattr(place, name, timed(seconds, peaks, part, getattr(place, name)))
    imports = peak()
    start, busy = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as out:
        settings = EvaluateSettings(split="train", report=False, device="cpu")
        entries = evaluate(data, Path(out) / "evaluation", evaluator, images=folder, settings=settings)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - busy, 1),
        "parts": {part: round(value, 1) for part, value in seconds.items()},
        "peak_over_imports_mib": {part: round(value - imports) for part, value in peaks.items()},
        "imports_mib": round(imports),
        "over_imports_mib": round(peak() - imports),
        "entries": len(entries),
    }


def peak() -> float:
    """Return this process's peak resident memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def tiny_evaluator(folder: Path) -> Path:
    """Write an evaluator that was never trained: the same code at toy size."""
    from clinalign.networks.classifier import AttributeClassifier

    card = {"split": "judge", "dataset": "none", "thresholds": {}}
    model = AttributeClassifier(("hair", "MEL"), image_size=32, backbone="test_byobnet")
    model.card = {**model.card, **card}
    model.save(folder)
    return folder


def main() -> None:
    """Draw the pictures, then start one process for each number of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluator", type=Path, default=Path("demo/evaluator"))
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 3000, 10000])
    parser.add_argument("--size", type=int, default=64, help="side in pixels")
    parser.add_argument("--work", type=Path, help="where pictures are kept; a temporary folder when left out")
    parser.add_argument("--tiny", action="store_true", help="an untrained evaluator, 24 pictures of 32 px")
    parser.add_argument("--here", nargs=2, type=Path, metavar=("DATA", "PICTURES"), help="measure in this process")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(*arguments.here, arguments.evaluator)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work, size, counts = arguments.work or Path(temporary), arguments.size, arguments.images
        evaluator = arguments.evaluator
        if arguments.tiny:
            evaluator, size, counts = tiny_evaluator(Path(temporary) / "evaluator"), 32, [24]
        found: dict[str, Any] = {}
        for count in counts:
            data, folder = pictures(work, count, size)
            command = [sys.executable, __file__, "--evaluator", str(evaluator), "--here", str(data), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
            found[str(count)] = json.loads(done.stdout.strip().splitlines()[-1])
    result = {"benchmark": "evaluation", "size": size, "images": found, "machine": machine()}
    if arguments.json:
        print_json(result)
        return
    for count, row in found.items():
        print(
            f"{count} pictures: {row['seconds']} s, of one core {row['processor_seconds']} s, "
            f"{row['over_imports_mib']} MiB over the imports"
        )
        for part, seconds in row["parts"].items():
            print(f"  {seconds:8.1f} s, {row['peak_over_imports_mib'][part]:5} MiB at its end: {part}")


if __name__ == "__main__":
    main()
