"""How an epoch is cut into batches and what it costs: network evaluations, memory, time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clinalign.core.config import TuneConfig
from clinalign.core.errors import UserError
from clinalign.core.objective_config import AwmConfig, DraftConfig, PreferenceConfig

ROWS_AT_ONCE_CPU = 64
ROWS_AT_ONCE_GPU = 16


@dataclass(frozen=True)
class Plan:
    """The batches of one epoch, derived from what the user asked for.

    Attributes:
        images: Images an epoch, over all processes.
        images_per_process: Images that each process draws.
        images_per_update: Images behind one optimiser step, over all processes.
        steps_trained: Steps trained of each image.
        rollout_batch: Rows sampled at once.
        micro_batch: Rows of forward and backward at once.
        branches: 2 with guidance, 1 without (c of methods 4).
        evaluations_sampling: Network evaluations of the rollout, c S an image; fewer where paths branch.
        evaluations_training: See :func:`training_evaluations`; a trained forward and backward counts as three.
        evaluations_anchor: Of the anchor's pictures, c S each; none where their scores are cached.
    """

    images: int
    images_per_process: int
    images_per_update: int
    steps_trained: int
    rollout_batch: int
    micro_batch: int
    branches: int
    evaluations_sampling: int
    evaluations_training: int
    evaluations_anchor: int = 0

    @property
    def evaluations(self) -> int:
        """Network evaluations of an epoch: images times c S + c T (3 + q), and the anchor's."""
        return self.evaluations_sampling + self.evaluations_training + self.evaluations_anchor

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {**asdict(self), "evaluations": self.evaluations}


def plan_epoch(config: TuneConfig, processes: int = 1, gpu: bool = False) -> Plan:
    """Derive the batches of an epoch.

    Args:
        config: What the user asked for.
        processes: Number of processes that share the work.
        gpu: Choose batch sizes for a GPU.

    Raises:
        UserError: When images, updates and processes do not divide, with the nearest legal numbers.
    """
    images, updates = config.images_per_epoch, config.train.updates_per_epoch
    _refuse_unequal_shares(config, processes)
    rows = ROWS_AT_ONCE_GPU if gpu else ROWS_AT_ONCE_CPU
    branches = 1 if config.rollout.guidance == 1.0 else 2
    mine = images // processes
    compared = config.feedback.name == "comparative" and any(reward.comparative for reward in config.rewards)
    one_a_prompt = config.feedback.against == "group"
    anchor = (config.rollout.prompts_per_epoch if one_a_prompt else images) if compared else 0
    return Plan(
        images=images,
        images_per_process=mine,
        images_per_update=images // updates,
        steps_trained=config.objective.trained_steps(config.rollout.steps),
        rollout_batch=min(mine, config.rollout.batch_size or rows),
        micro_batch=config.train.micro_batch or max(1, rows // branches // _steps_in_a_row(config)),
        branches=branches,
        evaluations_sampling=images * branches * config.rollout.steps,
        evaluations_training=training_evaluations(config),
        evaluations_anchor=anchor * branches * config.rollout.steps,
    )


def training_evaluations(config: TuneConfig) -> int:
    """Return the network evaluations of an epoch's updates: c T (3 + q) an image, or two images a pair."""
    objective, updates = config.objective, config.train.updates_per_epoch
    trained = objective.trained_steps(config.rollout.steps)
    guidance = getattr(objective, "guidance", config.rollout.guidance)
    images, extra = config.images_per_epoch, objective.extra_passes
    if isinstance(objective, PreferenceConfig):
        pairs = min(objective.pairs, config.rollout.images_per_prompt // 2)
        images = 2 * pairs * config.rollout.prompts_per_epoch
    if isinstance(objective, AwmConfig):
        extra += (updates - 1) / updates  # the weights of the epoch's beginning, but for the first update
    if isinstance(objective, DraftConfig):
        extra /= trained  # the anchor looks at the first of the K steps
    return round(images * (1 if guidance == 1.0 else 2) * trained * (3 + extra))


def _steps_in_a_row(config: TuneConfig) -> int:
    """Return how many forwards keep their graphs at once for one row."""
    objective = config.objective
    return {"draft": objective.trained_steps(config.rollout.steps), "preference": 2}.get(objective.name, 1)


def _refuse_unequal_shares(config: TuneConfig, processes: int) -> None:
    """Refuse an epoch that updates and processes cannot share equally, or whose pairs would be cut in two.

    Raises:
        UserError: With the nearest number of prompts that fits in every way.
    """
    per_prompt, wanted = config.rollout.images_per_prompt, config.rollout.prompts_per_epoch
    updates, paired = config.train.updates_per_epoch, config.objective.name == "preference"
    parts = updates * processes

    def shared(prompts: int) -> bool:
        return prompts * per_prompt % parts == 0

    def whole(prompts: int) -> bool:
        return not paired or prompts * per_prompt // processes % per_prompt == 0

    if shared(wanted) and whole(wanted):
        return
    legal = [n for n in range(1, 4 * wanted + parts * processes + 1) if shared(n) and whole(n)]
    near = min(legal, key=lambda n: (abs(n - wanted), -n))
    what = f"{wanted * per_prompt} images an epoch ({wanted} prompts x {per_prompt} images) cannot be shared by"
    if shared(wanted):
        what = f"objective preference keeps a prompt's pictures on one process: {wanted} prompts cannot be dealt to"
    raise UserError(
        f"{what} {updates} updates on {processes} process(es): nearest legal is rollout.prompts_per_epoch={near}"
    )
