"""Stage 2: ``tune`` a generator from a config; resumable, with everything in one run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list

from clinalign import __version__
from clinalign.core.config import RewardConfig, TuneConfig, load_config
from clinalign.core.errors import UserError, nearest
from clinalign.core.files import write_json
from clinalign.core.precision import bf16_is_fast, pick_device
from clinalign.core.progress import say
from clinalign.core.runs import RunFolder
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case, Reward
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.independence import check_independence
from clinalign.generation.ace import ACE_FILE
from clinalign.generation.adapters import add_lora
from clinalign.generation.generator import Generator
from clinalign.generation.model_folder import LORA_FILE, find_model_folder
from clinalign.networks.classifier import AttributeClassifier
from clinalign.rewards import load_reward
from clinalign.rewards.compose import CombinedReward
from clinalign.rewards.ensemble import EnsembleReward
from clinalign.rewards.guarded import GuardedReward
from clinalign.tuning.loop import Epoch, Tuner
from clinalign.tuning.plan import Plan, plan_epoch
from clinalign.tuning.prompts import PromptSource
from clinalign.workflows.check_reward import require_check
from clinalign.workflows.export import export_model
from clinalign.workflows.model_licence import read_base
from clinalign.workflows.report_sources import DATASET_FACTS
from clinalign.workflows.watch import Watch

# A process may wait this long for another that scores slowly or looks on; the launcher ends the rest when one dies.
PATIENCE = timedelta(hours=2)


def tune(
    config: TuneConfig,
    out: Path | str,
    resume: bool = False,
    on_epoch: Callable[[Tuner, dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Tune a generator.

    Args:
        config: From :func:`clinalign.core.config.load_config`.
        out: Run folder.
        resume: Go on with the run that the folder holds.
        on_epoch: Called on the first process after each epoch with the tuner and the epoch's row; the averaged weights
            are in place meanwhile. Use it to measure more than the looks do.

    Returns:
        The last row of ``metrics.jsonl``.

    Raises:
        UserError: For everything wrong in the config, the data, the model, the rewards or the output folder.
    """
    device = pick_device(config.train.device)
    accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    if accelerator.num_processes > 1:
        device = accelerator.device
    run = RunFolder(Path(out))
    config = on_first(accelerator, lambda: resolve_precision(config, device, run if resume else None))
    plan = plan_epoch(config, accelerator.num_processes, device.type == "cuda")
    dataset = PreparedDataset.open(config.data.path)
    prompts = prompt_source(dataset, config)
    refuse_tuned(config.generator.model)
    reward = build_rewards(config.rewards, device)
    evaluator = build_evaluator(config, reward, device)
    generator = Generator.load(config.generator.model, device, adapter=False)
    adapter = config.generator.adapter
    if adapter.kind == "lora":
        add_lora(generator.unet, adapter.rank, adapter.targets, derive_seed(config.seed, "adapter"))
    ace = config.generator.ace
    generator.add_ace(ace.tokens, derive_seed(config.seed, "ace"), ace.unconditional)
    tuner = Tuner(config, generator, reward, prompts, plan, run, accelerator)
    made_of = manifest(config, plan, dataset, generator, reward, accelerator.num_processes)
    checkpoint = on_first(accelerator, lambda: _open(run, config, made_of, resume))
    if checkpoint is not None:
        tuner.load(checkpoint)
    watch = None
    if accelerator.is_main_process:
        if checkpoint is not None:
            say(f"going on after epoch {tuner.epoch}")
        say(describe(plan, config))
        for warning in warnings_about(config):
            say(f"warning: {warning}")
        _tell_truncated(generator, prompts)
        watch = Watch(config, prompts, generator, run, evaluator, tuner.epoch, dataset, reward.weights)
    return _loop(tuner, watch, accelerator, on_epoch)


def on_first(accelerator: Accelerator, action: Callable[[], Any]) -> Any:
    """Let the first process act, and give its result, or its :class:`UserError`, to every process."""
    told: list[Any] = [None, ""]
    if accelerator.is_main_process:
        try:
            told[0] = action()
        except UserError as error:
            told[1] = str(error)
    result, problem = broadcast_object_list(told)
    if problem:
        raise UserError(problem)
    return result


def _open(run: RunFolder, config: TuneConfig, made_of: dict[str, Any], resume: bool) -> Path | None:
    """Open the run folder and write the manifest; refuse to go on with another model, reward or dataset than before."""
    checkpoint = run.open(config, resume)
    if run.manifest.exists():
        before = read_manifest(run)
        pairs = {
            "the weights of generator.model": (before.get("generator"), made_of["generator"]),
            "the rewards": (before.get("reward"), made_of["reward"]),
            "the dataset": (before.get("dataset", {}).get("fingerprint"), made_of["dataset"]["fingerprint"]),
        }
        changed = [name for name, (old, new) in pairs.items() if old != new]
        if changed:
            raise UserError(
                f"{run.path} was made with other content: {', '.join(changed)} changed since; choose another --out"
            )
    write_json(run.manifest, made_of)
    return checkpoint


def _loop(
    tuner: Tuner,
    watch: Watch | None,
    accelerator: Accelerator,
    on_epoch: Callable[[Tuner, dict[str, Any]], object] | None,
) -> dict[str, Any]:
    """Epoch after epoch; looking on, checkpoints and the export are the first process's."""
    config, run = tuner.config, tuner.run
    row: dict[str, Any] = (run.read_metrics() or [{"epoch": 0}])[-1]
    if watch is not None and tuner.epoch == 0:
        run.append_metrics({"epoch": 0, **watch.look(tuner, 0)})
    stopped = _told_to_stop(tuner, watch, accelerator)
    while tuner.epoch < config.train.epochs and not stopped:
        epoch: Epoch = tuner.step()
        row = epoch.metrics
        due = tuner.epoch % config.evaluate.every == 0 or tuner.epoch == config.train.epochs
        if watch is not None:
            if due:
                row = {**row, **watch.look(tuner, tuner.epoch)}
            run.append_metrics(row)
            watch.tell(row, config.train.epochs)
        stopped = due and _told_to_stop(tuner, watch, accelerator)
        if watch is not None:
            if stopped or tuner.epoch % config.train.checkpoint_every == 0 or tuner.epoch == config.train.epochs:
                tuner.save()
            if on_epoch is not None:
                with tuner.average.applied_to(tuner.parameters):
                    on_epoch(tuner, row)
    if watch is not None:
        watch.close()
        with tuner.average.applied_to(tuner.parameters):
            export_model(tuner.generator, config.generator.model, run.model)
    accelerator.wait_for_everyone()
    return row


def _told_to_stop(tuner: Tuner, watch: Watch | None, accelerator: Accelerator) -> bool:
    """Ask the first process, which alone looks on, whether the guard ends the run; all must hear it, or they wait."""
    config = tuner.config
    if config.evaluate.guard != "stop":
        return False
    return bool(
        on_first(accelerator, lambda: watch is not None and watch.told_to_stop(tuner.epoch, config.train.epochs))
    )


def prompt_cases(dataset: PreparedDataset, config: TuneConfig) -> list[Case]:
    """Return the cases whose prompts are used: of the split, with the wanted attributes known.

    Raises:
        UserError: For an unknown attribute name.
    """
    for name in config.data.known:
        if name not in dataset.attribute_names:
            raise UserError(f"data.known: unknown attribute '{name}': {nearest(name, dataset.attribute_names)}")
    return [
        case
        for case in dataset.prompts(config.data.split)
        if all(case.attributes.get(name) is not None for name in config.data.known)
    ]


def prompt_source(dataset: PreparedDataset, config: TuneConfig) -> PromptSource:
    """Return where the run's prompts come from."""
    cases = prompt_cases(dataset, config)
    return PromptSource(cases, config.data.prompts, config.seed, config.rollout.seeds_per_prompt)


def warnings_about(config: TuneConfig) -> list[str]:
    """Return what is allowed in a config and hardly meant, one sentence each."""
    feedback, rollout = config.feedback, config.rollout
    if feedback.name != "comparative":
        return []
    found = []
    if feedback.form == "difference" and (
        rollout.images_per_prompt > 1 or config.advantage.name == "per_prompt_running"
    ):
        found.append(
            "feedback.form difference: the mean that advantages take off each prompt takes the anchor's score off too, "
            "so this is absolute feedback with the noise of the anchor added; win and logistic are not"
        )
    if feedback.share_noise == "all" and config.generator.ace.tokens == 0:
        found.append(
            "feedback.share_noise all: the policy starts as the anchor and draws the same pictures, so every "
            "comparison is a tie and nothing is learnt; initial shares the first noise alone"
        )
    return found


def build_rewards(configs: tuple[RewardConfig, ...], device: torch.device) -> CombinedReward:
    """Load the rewards, each guarded, as one weighted sum.

    Raises:
        UserError: For an unknown reward, a missing folder, or a reward that has not passed its check.
    """
    rewards: dict[str, Reward] = {}
    for config in configs:
        reward = load_configured(config, device)
        members = reward.members if isinstance(reward, EnsembleReward) else [reward]
        for member, folder in zip(members, config.folders or (None,), strict=True) if config.require_check else ():
            require_check(member, folder)
        name = config.name if config.name not in rewards else f"{config.name}{len(rewards)}"
        rewards[name] = GuardedReward(reward)
    return CombinedReward(rewards, dict(zip(rewards, (config.weight for config in configs))))


def load_configured(config: RewardConfig, device: torch.device) -> Reward:
    """Load one reward of a config; an ensemble gets its members.

    Raises:
        UserError: For an unknown reward or setting, or weights that cannot be read.
    """
    members = {"members": [str(folder) for folder in config.members]} if config.members else {}
    return load_reward(config.name, config.path, {**config.settings, **members}, device)


def build_evaluator(config: TuneConfig, reward: CombinedReward, device: torch.device) -> AttributeClassifier | None:
    """Load the classifier that looks on, if the config names one.

    Raises:
        UserError: When it cannot be opened, or is a reward of this run or learned from the same cases.
    """
    if config.evaluate.evaluator is None:
        return None
    evaluator = AttributeClassifier.load(config.evaluate.evaluator, device)
    guarded = [getattr(entry, "reward", entry) for entry in reward.rewards.values()]
    models = [model for entry in guarded for model in getattr(entry, "members", [entry])]
    check_independence(evaluator.card, [model.classifier.card for model in models if hasattr(model, "classifier")])
    return evaluator


def refuse_tuned(model: str) -> None:
    """Refuse a base that carries an adapter of its own: it would be left out without a word.

    Raises:
        UserError: When the folder holds LoRA weights or condition tokens.
    """
    if any((find_model_folder(Path(model)) / name).exists() for name in (LORA_FILE, ACE_FILE)):
        raise UserError(f"generator.model {model} is tuned already and carries an adapter: give the base it came from")


def resolve_precision(config: TuneConfig, device: torch.device, run: RunFolder | None = None) -> TuneConfig:
    """Replace ``auto`` by what this machine is fast at, so that the run records what it used.

    Args:
        config: The config.
        device: Where the run computes.
        run: The run that is taken up again; what it used is kept, because a timing may turn out otherwise.
    """
    if config.train.precision != "auto":
        return config
    chosen = "bf16" if run is None and bf16_is_fast(device.type) else "fp32"
    if run is not None and run.config.exists():
        chosen = load_config(run.config).train.precision
    return config.model_copy(update={"train": config.train.model_copy(update={"precision": chosen})})


def describe(plan: Plan, config: TuneConfig) -> str:
    """Return the plan as one line."""
    return (
        f"{plan.images} images an epoch ({config.rollout.prompts_per_epoch} prompts x "
        f"{config.rollout.images_per_prompt}), {config.train.updates_per_epoch} updates of {plan.images_per_update} "
        f"images x {plan.steps_trained} steps; {plan.rollout_batch} rows sampled and {plan.micro_batch} trained at "
        f"once; {plan.evaluations:,} network evaluations an epoch"
    )


def manifest(
    config: TuneConfig, plan: Plan, dataset: PreparedDataset, generator: Generator, reward: Reward, processes: int
) -> dict[str, Any]:
    """Return what the run was made of: versions, hashes, seeds, plan."""
    import diffusers
    import peft
    import transformers

    libraries = {"torch": torch, "diffusers": diffusers, "transformers": transformers, "peft": peft}
    return {
        "clinalign": __version__,
        "versions": {name: module.__version__ for name, module in libraries.items()},
        "seed": config.seed,
        "generator": generator.identity,
        "reward": reward.identity,
        "dataset": {
            "path": str(dataset.path),
            "fingerprint": dataset.fingerprint,
            **{key: dataset.info[key] for key in DATASET_FACTS if key in dataset.info},
        },
        "base": asdict(read_base(config.generator.model)),
        "plan": asdict(plan),
        "processes": processes,
    }


def read_manifest(run: RunFolder) -> dict[str, Any]:
    """Return the manifest of a run."""
    content: dict[str, Any] = json.loads(run.manifest.read_text(encoding="utf-8"))
    return content


def _tell_truncated(generator: Generator, prompts: PromptSource) -> None:
    cut = generator.encode_text([case.text for _, case in prompts.choices]).truncated
    ids = [case.case_id for (_, case), is_cut in zip(prompts.choices, cut) if is_cut]
    if ids:
        say(f"{len(ids)} prompts are longer than the text encoder's limit and lose their end, e.g. case {ids[0]}")
