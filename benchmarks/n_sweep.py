"""What every fidelity metric says of real pictures against real pictures, as their number grows.

python benchmarks/n_sweep.py --data demo/data --evaluator demo/evaluator --split train --out sweep [--json]

Two sets of n pictures with no patient or lesion in common are drawn again and again. Writes `n_sweep.md`, a table, and
`n_sweep.png`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from settings import machine, print_json

from evaluation import tiny_evaluator

SIZES = (25, 50, 100, 200, 400, 800)
SHOWN = ("fid", "extrapolated", "kid", "frd", "precision", "recall", "density", "coverage", "vendi")


def features_of(data: Path, split: str, evaluator: Path, most: int) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return headline and radiomics features of the split's pictures, and the group of each."""
    from clinalign.data.prepared import PreparedDataset
    from clinalign.evaluation.extractors import load_extractor
    from clinalign.evaluation.suite import case_groups

    dataset = PreparedDataset.open(data)
    cases = dataset.cases(split)[:most]
    extractors = {
        "domain": load_extractor(f"domain:{evaluator}"),
        "radiomics": load_extractor(f"radiomics:{dataset.image_size}"),
    }
    parts: dict[str, list[torch.Tensor]] = {name: [] for name in extractors}
    for start in range(0, len(cases), 64):
        images = dataset.images(cases[start : start + 64])
        for name, extractor in extractors.items():
            parts[name].append(extractor(images))
    return {name: torch.cat(each) for name, each in parts.items()}, case_groups(cases)


def measure(features: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Return each metric of the pictures ``y`` against ``x``, both row numbers."""
    from clinalign.evaluation.fidelity import fid, fid_extrapolated
    from clinalign.evaluation.floor import FIDELITY_METRICS, fidelity_values
    from clinalign.evaluation.radiomics import normalise
    from clinalign.evaluation.vendi import vendi

    domain, radiomics = features["domain"], features["radiomics"]
    found = dict(zip(FIDELITY_METRICS, fidelity_values(domain[x], domain[y]).tolist(), strict=True))
    found |= {"frd": fid(*normalise(radiomics[x], radiomics[y])), "vendi": float(vendi(domain[y]))}
    if len(x) > 2 * domain.shape[1]:
        found["extrapolated"] = fid_extrapolated(domain[x], domain[y])
    return found


def sweep(
    features: dict[str, torch.Tensor],
    groups: list[str],
    sizes: tuple[int, ...],
    draws: int,
    measure: Callable[..., dict[str, float]] = measure,
) -> dict[str, dict[str, list[float]]]:
    """Return n to metric to its values, one for each draw; sizes that two halves cannot fill are left out."""
    from clinalign.evaluation.floor import group_halves

    found: dict[str, dict[str, list[float]]] = {}
    for n in sizes:
        for draw in range(draws):
            x, y = group_halves(groups, draw)
            if min(len(x), len(y)) < n:
                continue
            for name, value in measure(features, x[:n], y[:n]).items():
                found.setdefault(str(n), {}).setdefault(name, []).append(value)
    return found


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Return mean and standard deviation."""
    table = torch.tensor(values, dtype=torch.float64)
    return float(table.mean()), float(table.std()) if len(values) > 1 else 0.0


def to_markdown(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the table: mean over draws, and the standard deviation of one draw."""
    lines = [f"| n | {' | '.join(SHOWN)} |", "|---|" + "---|" * len(SHOWN)]
    for n, row in found.items():
        cells = ["{:.3g} ± {:.1g}".format(*mean_and_spread(row[name])) if name in row else "" for name in SHOWN]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draw each metric against n, with a band of one standard deviation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 3, figsize=(10, 8), sharex=True)
    for axis, name in zip(axes.flat, SHOWN, strict=True):
        sizes = [int(n) for n in found if name in found[n]]
        rows = [mean_and_spread(found[str(n)][name]) for n in sizes]
        axis.plot(sizes, [mean for mean, _ in rows], marker="o")
        axis.fill_between(sizes, [m - s for m, s in rows], [m + s for m, s in rows], alpha=0.25)
        axis.set(title=name, xscale="log")
        axis.set_xticks([int(n) for n in found], list(found), fontsize=8)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.supxlabel("pictures on each side")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("demo/data"))
    parser.add_argument("--split", default="train", help="not the evaluator's own")
    parser.add_argument("--evaluator", type=Path, default=Path("demo/evaluator"))
    parser.add_argument("--pictures", type=int, default=2000, help="most pictures that are looked at")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("sweep"))
    parser.add_argument("--tiny", action="store_true", help="an untrained evaluator, two sizes, two draws")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    evaluator, sizes, draws = arguments.evaluator, SIZES, arguments.draws
    if arguments.tiny:
        evaluator, sizes, draws = tiny_evaluator(arguments.out / "evaluator"), (8, 12), 2
    features, groups = features_of(arguments.data, arguments.split, evaluator, arguments.pictures)
    found = sweep(features, groups, sizes, draws)
    (arguments.out / "n_sweep.md").write_text(to_markdown(found), encoding="utf-8")
    plot(found, arguments.out / "n_sweep.png")
    widths = {name: table.shape[1] for name, table in features.items()}
    result: dict[str, Any] = {"benchmark": "n_sweep", "features": widths, "n": found, "machine": machine()}
    if arguments.json:
        print_json(result)
    else:
        print(to_markdown(found))


if __name__ == "__main__":
    main()
