"""The whole job on phantom data: data, base, reward, evaluator, tuning, evaluation, report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
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
    """Sizes of the demo for one modality; measured to fit in six minutes on two cores.

    Attributes:
        source: Phantom that is drawn.
        cases: Cases drawn.
        autoencoder_steps: Of the base model.
        base_steps: Of the base model's denoiser.
        width: First width of the denoiser.
        classifier_seconds: Time for the reward, and again for the evaluator.
        epochs: Of tuning.
        prompts: ``texts`` or ``cases``; see the config of ``tune``.
        advantage: Estimator of advantages.
        evaluated: Test cases on which base, tuned and real pictures are compared.
    """

    source: str
    cases: int = 3000
    autoencoder_steps: int = 1000
    base_steps: int = 400
    width: int = 48
    classifier_seconds: float = 25.0
    epochs: int = 36
    prompts: str = "texts"
    advantage: str = "per_prompt_running"
    evaluated: int = 300


DEMOS = {
    "skin": DemoSettings("phantom-skin"),
    "cxr": DemoSettings("phantom-cxr", prompts="cases", advantage="group"),
}


def demo_config(out: Path, settings: DemoSettings, seed: int) -> dict[str, Any]:
    """Return the tuning config of the demo, as plain values: RL4Med-DDPO at the size of a laptop."""
    return {
        "seed": seed,
        "data": {"path": str(out / "data"), "split": "train", "prompts": settings.prompts},
        "generator": {"model": str(out / "base"), "adapter": {"kind": "lora", "rank": 8, "targets": "all"}},
        "rollout": {"steps": 10, "eta": 1.0, "guidance": 1.0, "images_per_prompt": 8, "prompts_per_epoch": 8},
        "rewards": [
            {
                "name": "attributes",
                "path": str(out / "reward"),
                "weight": 1.0,
                "settings": {"score": "log_likelihood", "clip": 0.02},
            }
        ],
        "advantage": {"name": settings.advantage},
        "objective": {"name": "ddpo", "clip_range": 1.0e-3},
        "train": {"epochs": settings.epochs, "updates_per_epoch": 2, "learning_rate": 1.0e-3},
        "evaluate": {"every": 6},
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
    from clinalign.workflows.check_reward import check_reward
    from clinalign.workflows.evaluate import evaluate_pair
    from clinalign.workflows.evaluation_setup import EvaluateSettings
    from clinalign.workflows.prepare import prepare
    from clinalign.workflows.report import report_demo
    from clinalign.workflows.train_base import BaseSettings, train_base
    from clinalign.workflows.train_reward import train_reward
    from clinalign.workflows.tune import tune

    if modality not in DEMOS:
        raise UserError(f"unknown modality '{modality}': {nearest(modality, DEMOS)}")
    out, settings = Path(out), DEMOS[modality]
    stages = _Stages(out, hash_json([__version__, modality, seed, vars(settings)]))
    data, base, reward, evaluator, run = (out / name for name in ("data", "base", "reward", "evaluator", "run"))
    training = BaseSettings(
        steps=settings.base_steps, autoencoder_steps=settings.autoencoder_steps, width=settings.width, seed=seed
    )
    comparison = EvaluateSettings(cases=settings.evaluated, seed=seed, resamples_fid=50, report=False)
    config = parse_config(demo_config(out, settings, seed))
    seconds = settings.classifier_seconds
    stages.run("data", lambda: prepare(settings.source, data, image_size=32, seed=seed, cases=settings.cases))
    stages.run("base", lambda: train_base(data, base, training))
    stages.run("reward", lambda: train_reward("attributes", data, reward, "train", seconds=seconds, seed=seed))
    stages.run("reward check", lambda: check_reward(reward, data))
    stages.run("evaluator", lambda: train_reward("attributes", data, evaluator, "judge", seconds=seconds, seed=seed))
    stages.run("tuning", lambda: tune(config, run, resume=(run / "config.yaml").exists()))
    stages.run(
        "evaluation",
        lambda: evaluate_pair(base, run, data, evaluator, out / "evaluation", comparison),
    )
    shutil.copyfile(out / "evaluation" / "metrics.json", out / "metrics.json")
    report = report_demo(out)
    say(f"report: {report}")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return {"report": str(report), "metrics": metrics, "seconds": stages.seconds}


class _Stages:
    """Runs stages once, remembering in ``demo.json`` which are done and how long they took."""

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
        stage()
        self.seconds[name] = time.perf_counter() - start
        write_json(self.file, {"key": self.key, "seconds": self.seconds})
        say(f"{name}: {self.seconds[name]:.0f} s")
