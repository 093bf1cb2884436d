"""The configuration of ``tune``: one typed tree, read from YAML, with dotted overrides, checked before anything heavy.

Unknown keys, wrong types and out-of-range values are reported together, each with the nearest legal word or range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from clinalign.core.errors import UserError, nearest
from clinalign.core.objective_config import SECTIONS, DdpoConfig, ObjectiveConfig, Section


class DataConfig(Section):
    """Where prompts come from."""

    path: Path = Field(description="prepared dataset")
    split: str = Field(default="train", description="split whose prompts are used")
    prompts: Literal["texts", "cases"] = Field(
        default="texts",
        description="texts: uniform over distinct prompts (RL4Med, P); cases: as frequent as in the data",
    )
    known: tuple[str, ...] = Field(default=(), description="use only cases for which these attributes are known")


class AdapterConfig(Section):
    """What is trained."""

    kind: Literal["lora", "full"] = Field(default="lora", description="LoRA by peft, or every weight of the denoiser")
    rank: int = Field(default=8, ge=1, le=512, description="LoRA rank (RL4Med: 4, P)")
    targets: Literal["attention", "all"] = Field(
        default="attention",
        description="attention: every attention block (RL4Med, P); all: convolutions and feed-forward too",
    )


class AceConfig(Section):
    """Adaptive condition embeddings (CXRL): learnable tokens behind the text's own."""

    tokens: int = Field(default=0, ge=0, le=16, description="learnable condition tokens; 0: none (CXRL: drawn as 2, P)")
    learning_rate: float = Field(default=1e-3, gt=0, description="of the tokens, which have no weight decay (R)")
    unconditional: bool = Field(default=True, description="append them to the empty branch of guidance too (R)")


class GeneratorConfig(Section):
    """The generator to tune."""

    model: str = Field(description="pipeline folder or hub id")
    adapter: AdapterConfig = AdapterConfig()
    ace: AceConfig = AceConfig()


class RolloutConfig(Section):
    """How images are drawn for training."""

    sampler: Literal["ddim"] = "ddim"
    steps: int = Field(default=20, ge=2, le=1000, description="denoising steps (RL4Med: 50, P)")
    eta: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="stochasticity of DDIM; ddpo needs noise, so above 0; with ddpo_window it is that of the window",
    )
    guidance: float = Field(
        default=5.0, ge=1.0, description="classifier-free guidance, inside the loss too (P); 1: none"
    )
    images_per_prompt: int = Field(default=8, ge=1)
    prompts_per_epoch: int = Field(default=8, ge=1)
    seeds_per_prompt: int = Field(
        default=0,
        ge=0,
        description="noises that a prompt is drawn from, again and again, so that the anchor's scores can be read from "
        "the cache; 0: fresh noise for every picture",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="rows sampled at once; derived when null, never a result"
    )


class RewardConfig(Section):
    """One reward of the sum."""

    name: str
    path: Path | None = Field(default=None, description="folder of `train reward`, where the reward has weights")
    weight: float = 1.0
    settings: dict[str, Any] = Field(default_factory=dict, description="the reward's own settings")
    require_check: bool = Field(
        default=True, description="refuse a reward with weights that has not passed `reward check`"
    )
    comparative: bool = Field(
        default=True, description="compare it with the anchor where feedback is comparative (CXRL: not posture, P)"
    )
    members: tuple[Path, ...] = Field(
        default=(), description="of reward 'ensemble': folders of two or more models of one kind, named by settings.of"
    )

    @model_validator(mode="after")
    def _members_belong_to_an_ensemble(self) -> RewardConfig:
        if self.name == "ensemble" and (self.path is not None or len(self.members) < 2):
            raise ValueError("reward 'ensemble' takes two folders or more as members, and no path")
        if self.name != "ensemble" and self.members:
            raise ValueError(f"reward '{self.name}' takes no members: name it ensemble, with settings.of {self.name}")
        return self

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders or files of every model in it."""
        return self.members or ((self.path,) if self.path is not None else ())


class FeedbackConfig(Section):
    """What turns scores into the learning signal."""

    name: Literal["absolute", "comparative"] = Field(
        default="absolute", description="comparative: score against the frozen anchor (RLCF of CXRL)"
    )
    form: Literal["difference", "win", "logistic"] = Field(default="logistic", description="of the comparison (R)")
    margin: float = Field(default=0.0, ge=0, description="win: smaller differences are ties (R)")
    tau: float | None = Field(
        default=None, gt=0, description="logistic: scale of the differences; null: their running spread (R)"
    )
    against: Literal["anchor", "group"] = Field(
        default="anchor", description="the anchor alone, or the prompt's other pictures with the anchor as one more"
    )
    share_noise: Literal["initial", "all", "none"] = Field(
        default="initial",
        description="noise that policy and anchor have in common; all: no signal while the two are equal (R)",
    )
    cache: Path | None = Field(
        default=None, description="folder of anchor scores that several runs share; null: the run's own"
    )


class AdvantageConfig(Section):
    """How scores become advantages."""

    name: Literal["per_prompt_running", "group"] = "per_prompt_running"
    buffer: int = Field(default=32, ge=1, description="rewards remembered for each prompt (P)")
    min_count: int = Field(default=16, ge=1, description="until a prompt has so many, batch statistics are used (P)")
    clip: float = Field(default=5.0, gt=0, description="largest absolute advantage (P)")
    aggregate: Literal["advantage_aggregate", "reward_aggregate"] = Field(
        default="advantage_aggregate",
        description="several rewards: add their advantages, whatever their scales (R), or the weighted rewards (P)",
    )
    global_std: bool = Field(default=True, description="group: divide by the spread of the whole batch (R)")


class TrainConfig(Section):
    """The optimiser."""

    epochs: int = Field(default=50, ge=1)
    updates_per_epoch: int = Field(
        default=2, ge=1, description="optimiser steps an epoch; each image is used in one (P)"
    )
    learning_rate: float = Field(default=3e-4, gt=0)
    decay: Literal["none", "cosine"] = Field(
        default="none", description="of the learning rate: none (P), or along a cosine to 0 at the end (R: short runs)"
    )
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=1e-4, ge=0)
    epsilon: float = Field(default=1e-8, gt=0)
    grad_clip: float = Field(default=1.0, gt=0)
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    ema_decay: float = Field(
        default=0.99, ge=0, lt=1, description="average of the adapter that is sampled and exported (R)"
    )
    micro_batch: int | None = Field(
        default=None, ge=1, description="rows of forward+backward at once; derived when null"
    )
    checkpoint_every: int = Field(default=5, ge=1, description="epochs between checkpoints")
    device: str = "auto"


class EvaluateConfig(Section):
    """What is looked at while training."""

    every: int = Field(default=10, ge=1, description="epochs between looks")
    prompts: int = Field(default=8, ge=1, le=64, description="fixed prompts drawn with fixed noise")
    images_per_prompt: int = Field(default=4, ge=1, le=16)
    evaluator: Path | None = Field(
        default=None, description="independent classifier; its accuracy goes into metrics.jsonl"
    )
    guard: Literal["off", "warn", "stop"] = Field(
        default="warn",
        description="when the reward rises and the pictures leave real ones: say so, or end the run; off: do not watch",
    )
    guard_tolerance: float = Field(
        default=1.0, ge=0, description="real ranges by which a watch metric may get worse (R); see tuning/guards.py"
    )
    guard_diversity: float = Field(
        default=0.1, gt=0, le=1, description="share of the diversity within a prompt that may be lost (R)"
    )
    guard_judge: float = Field(
        default=0.05, gt=0, le=1, description="share of attributes that the evaluator may find less often (R)"
    )
    guard_patience: int = Field(default=2, ge=1, description="looks in a row that must have parted before it stops (R)")
    front: int = Field(
        default=5, ge=0, le=50, description="most epochs whose adapters are kept: best by reward, evaluator, distance"
    )


class TuneConfig(Section):
    """Everything about one tuning run."""

    seed: int = Field(default=0, ge=0)
    data: DataConfig
    generator: GeneratorConfig
    rollout: RolloutConfig = RolloutConfig()
    rewards: tuple[RewardConfig, ...] = Field(min_length=1)
    feedback: FeedbackConfig = FeedbackConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    objective: ObjectiveConfig = DdpoConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _the_objective_fits(self) -> TuneConfig:
        self.objective.check(self.rollout.steps, self.rollout.eta)
        if self.objective.name == "draft" and self.feedback.name == "comparative":
            raise ValueError(
                "objective draft follows the reward's own gradient and cannot be compared with an anchor: "
                "set feedback.name to absolute"
            )
        if getattr(self.objective, "branch", False) and self.feedback.name == "comparative":
            raise ValueError(
                "objective.branch gives the pictures of a prompt one noise, which the anchor's pictures do not share: "
                "set it to false with comparative feedback"
            )
        return self

    @property
    def images_per_epoch(self) -> int:
        """Images drawn and trained on in one epoch, over all processes."""
        return self.rollout.prompts_per_epoch * self.rollout.images_per_prompt


def load_config(source: Path | str, overrides: Sequence[str] = ()) -> TuneConfig:
    """Read a YAML file and apply ``key.subkey=value`` overrides; values are YAML, list entries are numbers.

    Args:
        source: YAML file.
        overrides: For example ``("train.epochs=3", "rewards.0.weight=0.5")``.

    Raises:
        UserError: With all problems, one a line.
    """
    source = Path(source)
    if not source.is_file():
        raise UserError(f"config {source} does not exist: see recipes/ for examples")
    try:
        tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config {source} is not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"config {source} is not a table of keys: see recipes/ for examples")
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree, str(source))


def parse_config(tree: Mapping[str, Any], where: str = "config") -> TuneConfig:
    """Check a tree of plain values.

    Raises:
        UserError: With all problems, one a line.
    """
    try:
        return TuneConfig.model_validate(tree)
    except ValidationError as error:
        problems = [_explain(problem, tree) for problem in error.errors()]
        raise UserError(f"{where}: " + f"\n{where}: ".join(problems)) from error


def dump_config(config: TuneConfig) -> str:
    """Return the complete config as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def read_value(text: str) -> Any:
    """Return a YAML value; ``3e-4`` is a number too, which YAML 1.1 takes for a word.

    Raises:
        yaml.YAMLError: When it is not YAML.
    """
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _apply(tree: dict[str, Any], override: str) -> None:
    path, sign, text = override.partition("=")
    if not sign or not path:
        raise UserError(f"--set {override}: write key=value, for example --set train.epochs=3")
    node: Any = tree
    keys = path.split(".")
    try:
        for key in keys[:-1]:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        if isinstance(node, list):
            node[int(keys[-1])] = read_value(text)
        else:
            node[keys[-1]] = read_value(text)
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"--set {override}: there is no such place in the config") from error


def _explain(problem: Any, tree: Mapping[str, Any]) -> str:
    path = list(problem["loc"])
    place = ".".join(str(part) for part in path)
    given = problem.get("input")
    if problem["type"] == "extra_forbidden":
        rule = str(tree.get("objective", {}).get("name", "ddpo")) if path[0] == "objective" and len(path) > 1 else ""
        known = list(SECTIONS.get(rule).model_fields) if rule else _known_keys(path[:-1])
        of = f" of {rule}" if rule else ""
        return f"unknown key '{place}'{of}: {nearest(str(path[-1]), known)}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "missing":
        return f"key '{place}' is missing"
    return f"key '{place}': {problem['msg'].lower()}, got {given!r}"


def _known_keys(path: Sequence[Any]) -> list[str]:
    section: Any = TuneConfig
    for part in path:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        section = RewardConfig if part == "rewards" else annotation
    return list(section.model_fields)
