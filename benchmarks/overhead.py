"""Seconds of an epoch over (its number of network evaluations x the cost of one evaluation of the plain base network).

    python benchmarks/overhead.py --demo demo [--rule ddpo] [--images 96] [--threads 1] --json

The plain network, without an adapter and called as a user of diffusers would, is timed at several batch sizes in the
same process before and after each epoch; the best batch counts. A forward with backward is timed of the plain network
with the gradients of the adapter's layers, and counts as measured, not as three forwards. Sampling and training apart;
decoding is part of sampling.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from settings import RULES, Parts, add_parts, config_of, machine, print_json

from clinalign.generation.generator import Generator
from clinalign.workflows.tune import tune

BATCHES = (16, 32, 64)


def timed(action: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of an action."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def plain_costs(generator: Generator, tokens: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Return the seconds of one evaluation, forward and forward with backward, each at the batch that suits it best."""
    unet, device = generator.unet, generator.device
    attention = [weight for name, weight in unet.named_parameters() if ".attn" in name and name.endswith("weight")]
    forward, both = [], []
    for rows in BATCHES:
        x = torch.randn(rows, *generator.latent_shape, device=device)
        at, text = torch.full((rows,), 500, device=device), tokens.expand(rows, -1, -1)

        def run(x: torch.Tensor = x, at: torch.Tensor = at, text: torch.Tensor = text) -> torch.Tensor:
            sample: torch.Tensor = unet(x, at, text).sample
            return sample

        with torch.no_grad():
            forward.append(timed(run, repeats) / rows)
        for weight in attention:
            weight.requires_grad_(True)
        both.append(timed(lambda: torch.autograd.grad(run().square().mean(), attention), repeats) / rows)
        for weight in attention:
            weight.requires_grad_(False)
    return min(forward), min(both)


def main() -> None:
    """Time epochs between timings of the plain network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_parts(parser)
    parser.add_argument("--rule", default="ddpo", choices=list(RULES))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = Parts.from_arguments(arguments)
    config = config_of(arguments.rule, parts, 0, {"train": {"epochs": arguments.epochs}})
    plain = Generator.load(parts.base)
    tokens = plain.encode_text([""]).empty
    costs = [plain_costs(plain, tokens, arguments.repeats)]
    rows: list[dict[str, Any]] = []

    def on_epoch(tuner: Any, row: dict[str, Any]) -> None:
        costs.append(plain_costs(plain, tokens, arguments.repeats))
        plan = tuner.plan
        passes = plan.evaluations_training / (plan.images * plan.steps_trained * plan.branches)  # 3 + q a row
        rows.append({**row, "sampling": plan.evaluations_sampling, "passes": passes})

    with tempfile.TemporaryDirectory() as folder:
        tune(config, Path(folder) / "run", on_epoch=on_epoch)
    sampling, training = [], []
    for number, row in enumerate(rows):
        forward, both = ((costs[number][k] + costs[number + 1][k]) / 2 for k in (0, 1))
        trained = (row["network_evaluations_epoch"] - row["sampling"]) / row["passes"]  # rows with a backward
        measured = row["network_evaluations_kl"] * forward  # spent in the update, and no part of the rule
        sampling.append(row["seconds/rollout"] / (row["sampling"] * forward))
        wanted = trained * (both + (row["passes"] - 3) * forward)
        training.append((row["seconds/update"] - measured) / wanted)
    result = {
        "benchmark": "overhead",
        "rule": arguments.rule,
        "sampling_overhead": median(sampling),
        "training_overhead": median(training),
        "each": {"sampling": sampling, "training": training},
        "forward_backward_over_forward": median(both / forward for forward, both in costs),
        "parameters": sum(weight.numel() for weight in plain.unet.parameters()),
        "machine": machine(),
    }
    if arguments.json:
        print_json(result)
        return
    print(f"{arguments.rule}: sampling {result['sampling_overhead']:.2f}, training {result['training_overhead']:.2f}")


if __name__ == "__main__":
    main()
