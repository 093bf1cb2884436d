"""The whole job on phantom data: data, base, reward, evaluator, tuning, evaluation, report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.core.config import parse_config
from clinalign.core.errors import UserError, nearest
from clinalign.core.files import hash_json, write_json
from clinalign.core.progress import say

STATE = "demo.json"


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo for one modality; measured on two cores without AVX-512: docs/results/phantoms.md.

    Attributes:
        source: Phantom that is drawn.
        drawing: Settings of the phantom.
        cases: Cases drawn.
        autoencoder_steps: Of the base model.
        base_steps: Of the base model's denoiser.
        width: First width of the denoiser.
        snr_gamma: Min-SNR weight of the denoiser's loss.
        reward_epochs: Passes over the data for the reward.
        evaluator_epochs: The same for the evaluator, a smaller network on less data.
        epochs: Of tuning.
        evaluated: Test cases on which base, tuned and real pictures are compared.
    """

    source: str
    drawing: Mapping[str, Any] = field(default_factory=dict)
    cases: int = 3000
    autoencoder_steps: int = 1000
    base_steps: int = 400
    width: int = 48
    snr_gamma: float = 5.0
    reward_epochs: int = 18
    evaluator_epochs: int = 60
    epochs: int = 28
    evaluated: int = 300


# Some minutes of training teach a base model what is large or frequent. What it never draws cannot be rewarded, so the
# small and the rare stay out of the demo's population; they are in the recipes for real data.
_SKIN = {
    "prevalence.hair": 0.5, "prevalence.dark_corner": 0.4, "prompt.dark_corner": True,
    "prevalence.gel_bubble": 0, "prevalence.ruler": 0, "prevalence.ink": 0,
}  # fmt: skip
_CHEST = {
    "prevalence.cardiomegaly": 0.5, "prevalence.device": 0.5, "prevalence.effusion": 0, "prevalence.consolidation": 0,
    "prevalence.pneumothorax": 0, "prevalence.nodule": 0, "prompt.report": False,
}  # fmt: skip
DEMOS = {
    "skin": DemoSettings("phantom-skin", _SKIN),
    "cxr": DemoSettings("phantom-cxr", _CHEST, base_steps=850, snr_gamma=1.0, epochs=14),
}


def demo_config(out: Path, settings: DemoSettings, seed: int) -> dict[str, Any]:
    """Return the tuning config of the demo, as plain values: the reward of RL4Med by the recommended update rule."""
    return {
        "seed": seed,
        "data": {"path": str(out / "data"), "split": "train", "prompts": "texts"},
        "generator": {"model": str(out / "base"), "adapter": {"kind": "lora", "rank": 8, "targets": "attention"}},
        "rollout": {"steps": 10, "eta": 1.0, "guidance": 1.0, "images_per_prompt": 8, "prompts_per_epoch": 12},
        "rewards": [
            {
                "name": "attributes",
                "path": str(out / "reward"),
                "weight": 1.0,
                "settings": {"score": "log_likelihood", "clip": 0.05},
            }
        ],
        "advantage": {"name": "per_prompt_running", "min_count": 8},
        "objective": {"name": "awm", "kl": 0.15},
        "train": {"epochs": settings.epochs, "updates_per_epoch": 2, "learning_rate": 8.0e-3, "decay": "cosine"},
        "evaluate": {"every": 5},
    }


def demo(out: Path | str = "demo", modality: str = "skin", seed: int = 0) -> dict[str, Any]:
    """Run the whole job, or go on with what an interrupted demo left.

    Args:
        out: Output folder: ``data``, ``base``, ``reward``, ``evaluator``, ``run``, ``evaluation``, ``report``,
            ``metrics.json``.
        modality: ``skin`` or ``cxr``.
        seed: Of everything.

    Returns:
        Path of the report, the metrics and the seconds of each stage.

    Raises:
        UserError: For an unknown modality, or a folder that holds something else.
    """
    import torch

    from clinalign.workflows.beside import Beside
    from clinalign.workflows.check_reward import check_reward
    from clinalign.workflows.evaluate import evaluate_pair
    from clinalign.workflows.evaluation_setup import EvaluateSettings
    from clinalign.workflows.model_card import may_write_card
    from clinalign.workflows.prepare import prepare
    from clinalign.workflows.report import export_report
    from clinalign.workflows.train_base import BaseSettings, train_base
    from clinalign.workflows.tune import tune

    if modality not in DEMOS:
        raise UserError(f"unknown modality '{modality}': {nearest(modality, DEMOS)}")
    out, settings = Path(out), DEMOS[modality]
    stages = _Stages(out, hash_json([__version__, modality, seed, vars(settings)]))
    data, base, reward, evaluator, run = (out / name for name in ("data", "base", "reward", "evaluator", "run"))
    training = BaseSettings(
        steps=settings.base_steps,
        autoencoder_steps=settings.autoencoder_steps,
        width=settings.width,
        snr_gamma=settings.snr_gamma,
        seed=seed,
    )
    comparison = EvaluateSettings(cases=settings.evaluated, seed=seed, report=False)
    config = parse_config(demo_config(out, settings, seed))
    drawing = settings.drawing
    stages.run(
        "data",
        lambda: prepare(settings.source, data, image_size=32, seed=seed, cases=settings.cases, settings=drawing),
    )
    threads = torch.get_num_threads()
    with Beside(threads // 2) as beside:
        for name, folder, split, epochs in (
            ("reward", reward, "train", settings.reward_epochs),
            ("evaluator", evaluator, "judge", settings.evaluator_epochs),
        ):
            if name not in stages.seconds:
                beside.start(
                    name,
                    ["train", "reward", "attributes", "--data", str(data), "--out", str(folder), "--split", split,
                     "--epochs", str(epochs), "--seed", str(seed)],
                )  # fmt: skip
        torch.set_num_threads(max(1, threads - threads // 2))
        try:
            stages.run("base", lambda: train_base(data, base, training))
        finally:
            torch.set_num_threads(threads)
        for name in ("reward", "evaluator"):
            stages.run(name, lambda name=name: beside.wait(name))  # type: ignore[misc]
    stages.run("reward check", lambda: check_reward(reward, data))
    stages.run("tuning", lambda: tune(config, run, resume=(run / "config.yaml").exists()))
    stages.run(
        "evaluation",
        lambda: evaluate_pair(base, run, data, evaluator, out / "evaluation", comparison),
    )
    shutil.copyfile(out / "evaluation" / "metrics.json", out / "metrics.json")
    report = export_report(out, card=may_write_card(run))["report"]
    say(f"report: {report}")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return {"report": str(report), "metrics": metrics, "seconds": stages.seconds}


class _Stages:
    """Runs stages once, remembering in ``demo.json`` which are done and how long they took.

    A stage that returns a number says itself how many seconds it took: it ran beside another.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.file = out / STATE
        self.key = key
        self.seconds: dict[str, float] = {}
        if out.is_file():
            raise UserError(f"{out} is a file: choose a folder with --out")
        if not out.is_dir() or not any(out.iterdir()):
            return
        if not self.file.exists():
            raise UserError(f"{out} is not empty and holds no demo: choose another --out")
        state = json.loads(self.file.read_text(encoding="utf-8"))
        if state["key"] != key:
            raise UserError(f"{out} holds a demo with other settings: choose another --out or delete it")
        self.seconds = state["seconds"]

    def run(self, name: str, stage: Callable[[], object]) -> None:
        if name in self.seconds:
            say(f"{name}: done before")
            return
        say(f"{name} ...")
        write_json(self.file, {"key": self.key, "seconds": self.seconds})
        start = time.perf_counter()
        told = stage()
        self.seconds[name] = told if isinstance(told, float) else time.perf_counter() - start
        write_json(self.file, {"key": self.key, "seconds": self.seconds})
        say(f"{name}: {self.seconds[name]:.0f} s")
