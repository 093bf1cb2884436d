"""The ablation of a config: every arm tuned with every seed, all measured by the same independent evaluators."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.core.config import TuneConfig, dump_config
from clinalign.core.errors import UserError
from clinalign.core.files import hash_json, write_json, write_text
from clinalign.core.progress import say
from clinalign.evaluation.suite import compare_identity
from clinalign.workflows.ablation_arms import ANCHOR, PROMPTED, Arm, arms_of
from clinalign.workflows.ablation_table import build_rows, to_markdown
from clinalign.workflows.evaluate import METRICS, evaluate
from clinalign.workflows.evaluation_setup import EvaluateSettings
from clinalign.workflows.train_base import BaseSettings, train_base
from clinalign.workflows.tune import tune

PLAN, TABLE, RESULT = "plan.json", "ablation.md", "ablation.json"
PROMPT_TUNING_STEPS = 500


def ablate(
    config: TuneConfig,
    out: Path | str,
    evaluator: Path | str,
    settings: EvaluateSettings | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] = (),
    prompt_tuning_steps: int = PROMPT_TUNING_STEPS,
) -> dict[str, Any]:
    """Run an ablation, or go on with one that was interrupted.

    Args:
        config: The full method; its data and rewards serve every arm.
        out: Folder: ``ARM/seed_N/run`` and ``ARM/seed_N/evaluation``, ``ablation.json``, ``ablation.md``.
        evaluator: Folder of the independent classifier.
        settings: Of the evaluations: cases, further evaluators (``scorers``), ... Steps, guidance and eta are those of
            the config, for every arm.
        seeds: Of tuning.
        arms: Names of the arms besides the anchor; all when empty. See
            :func:`~clinalign.workflows.ablation_arms.arms_of`.
        prompt_tuning_steps: Of the arm that learns condition tokens by the loss of stage 1.

    Returns:
        What is also in ``ablation.json``: ``rows`` (arm, metric to mean over seeds, its interval and each seed's value)
        and what it was made of.

    Raises:
        UserError: For an unknown arm, an output folder that holds something else, and whatever tuning and evaluation
            refuse.
    """
    start = time.perf_counter()
    out, settings = Path(out), settings or EvaluateSettings()
    chosen = arms_of(config, arms)
    if not seeds:
        raise UserError("an ablation needs at least one seed: three are usual")
    rollout = config.rollout
    rewards = tuple(folder for reward in config.rewards for folder in reward.folders)
    settings = replace(
        settings, steps=rollout.steps, guidance=rollout.guidance, eta=rollout.eta, report=False, keep_images=64,
        rewards=rewards,
    )  # fmt: skip
    _take(out, config, evaluator, settings, prompt_tuning_steps)
    shared = config.feedback.model_copy(update={"cache": config.feedback.cache or out / "anchor_scores"})
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in chosen:
        for seed in seeds[:1] if arm.name == ANCHOR else seeds:
            place = out / arm.name / f"seed_{seed}"
            measured = place / "evaluation"
            if not (measured / METRICS).exists():
                say(f"{arm.label}, seed {seed}")
                model = _make(arm, config, shared, place, seed, prompt_tuning_steps)
                evaluate(config.data.path, measured, evaluator, model=model, settings=settings)
            found.setdefault(arm.name, []).append(json.loads((measured / METRICS).read_text(encoding="utf-8")))
    _check_measures(found)
    rows = build_rows({arm.name: arm.label for arm in chosen}, found)
    result = {
        "rows": rows,
        "seeds": list(seeds),
        "evaluator": str(evaluator),
        "scorers": [str(path) for path in settings.scorers],
        "cases": settings.cases,
        "seconds": round(time.perf_counter() - start, 1),
        "clinalign": __version__,
    }
    write_json(out / RESULT, result)
    write_text(out / TABLE, to_markdown(rows, len(seeds)))
    return result


def _check_measures(found: dict[str, list[dict[str, Any]]]) -> None:
    """Refuse a table of evaluations that were measured with different networks, as one resumed with others would be."""
    first, *others = (entries for runs in found.values() for entries in runs)
    for entries in others:
        compare_identity(first, entries)


def _make(arm: Arm, full: TuneConfig, shared: Any, place: Path, seed: int, prompt_tuning_steps: int) -> str:
    """Make the model of an arm, or go on making it, and return its folder."""
    if arm.name == ANCHOR:
        return full.generator.model
    if arm.name == PROMPTED:
        ace = full.generator.ace
        base = BaseSettings(
            from_model=full.generator.model, steps=prompt_tuning_steps, learning_rate=ace.learning_rate,
            ace_tokens=ace.tokens, split=full.data.split, seed=seed, device=full.train.device,
        )  # fmt: skip
        train_base(full.data.path, place / "model", base)
        return str(place / "model")
    assert arm.config is not None  # every other arm is tuned
    feedback = arm.config.feedback.model_copy(update={"cache": shared.cache})
    config = arm.config.model_copy(update={"seed": seed, "feedback": feedback})
    tune(config, place / "run", resume=(place / "run" / "config.yaml").exists())
    return str(place / "run")


def _take(out: Path, config: TuneConfig, evaluator: Path | str, settings: EvaluateSettings, steps: int) -> None:
    """Take the folder, or refuse one that holds something else; seeds and arms may be added to it."""
    if out.is_file():
        raise UserError(f"{out} is a file: choose a folder with --out")
    plan = hash_json([dump_config(config), str(evaluator), vars(settings), steps])
    if out.is_dir() and any(out.iterdir()):
        if not (out / PLAN).exists():
            raise UserError(f"{out} is not empty and holds no ablation: choose another --out")
        if json.loads((out / PLAN).read_text(encoding="utf-8"))["plan"] != plan:
            raise UserError(f"{out} holds an ablation with other settings: choose another --out")
    write_json(out / PLAN, {"plan": plan, "config": dump_config(config)})
