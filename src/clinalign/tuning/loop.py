"""The tuning loop: rollout, score, advantage, update, log, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from clinalign.core.average import WeightAverage
from clinalign.core.checkpoint import (
    load_state,
    optimizer_tensors,
    prune_states,
    restore_optimizer,
    save_state,
    with_prefix,
    without_prefix,
)
from clinalign.core.config import TuneConfig
from clinalign.core.errors import UserError
from clinalign.core.runs import RunFolder
from clinalign.core.seeds import derive_seed
from clinalign.core.types import RewardResult, WeightedRewards
from clinalign.generation.generator import Generator
from clinalign.tuning.aggregate import Aggregator
from clinalign.tuning.anchor_scores import AnchorScorer
from clinalign.tuning.divergence import choose_kl_rows, sum_kl
from clinalign.tuning.feedback import ComparativeFeedback, Signal, win_rate
from clinalign.tuning.objectives import build_objective
from clinalign.tuning.objectives.base import Policy, Turn
from clinalign.tuning.plan import Plan
from clinalign.tuning.prompts import PromptSource, Request
from clinalign.tuning.rollout import Rollout, Sampler, roll_out
from clinalign.tuning.trained import anchor_of, build_optimizer, decay_at, trainable_parameters
from clinalign.tuning.update import WORST, UpdateLog, accumulate

T = TypeVar("T")
KL_ROWS = 64  # (sample, step) pairs an epoch on which the KL to the anchor is measured


@dataclass(frozen=True)
class Epoch:
    """What one epoch left behind.

    Attributes:
        metrics: The row of ``metrics.jsonl``.
        images: This process's pictures, for whoever looks on.
        rewards: Their scores.
    """

    metrics: dict[str, Any]
    images: torch.Tensor
    rewards: RewardResult


class Tuner:
    """Tunes a generator by policy gradient.

    Args:
        config: The run's config.
        generator: The policy; its trainable parameters are those that require gradients.
        reward: Scores pictures, one or several rewards in the order of the config; ``parts`` go into the log under
            ``reward/<name>``.
        prompts: Where requests come from.
        plan: Batches of an epoch.
        run: The run folder.
        accelerator: Tells the processes.
    """

    def __init__(
        self,
        config: TuneConfig,
        generator: Generator,
        reward: WeightedRewards,
        prompts: PromptSource,
        plan: Plan,
        run: RunFolder,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.generator, self.reward, self.prompts = config, generator, reward, prompts
        self.plan, self.run, self.accelerator = plan, run, accelerator
        self.parameters = trainable_parameters(generator)
        train = config.train
        self.optimizer = build_optimizer(config, self.parameters)
        self.average = WeightAverage(self.parameters, train.ema_decay)
        self.anchor = anchor_of(generator, self.parameters)
        self.aggregate = Aggregator(config.advantage, reward.weights)
        levels = int(generator.scheduler.config.num_train_timesteps)
        if config.rollout.steps >= levels:
            raise UserError(f"rollout.steps {config.rollout.steps}: the model knows {levels} noise levels; take fewer")
        self.objective = build_objective(config, Policy(generator, self.parameters, self.anchor, reward))
        self.noisy = generator.schedule(config.rollout.steps, 1.0)  # for measuring the KL
        feedback = config.feedback
        compared = {
            name: reward.rewards[name]
            for name, entry in zip(reward.weights, config.rewards, strict=True)
            if feedback.name == "comparative" and entry.comparative
        }
        self.feedback = {
            name: ComparativeFeedback(feedback.form, feedback.margin, feedback.tau, feedback.against)
            for name in compared
        }
        self.anchor_scorer = (
            AnchorScorer(
                generator, self.anchor, compared, feedback.share_noise,
                feedback.cache or run.path / "anchor_scores", accelerator.process_index,
            )
            if compared
            else None
        )  # fmt: skip
        self.epoch = 0
        self.evaluations = 0

    def step(self) -> Epoch:
        """Run one epoch: draw pictures, score them, turn scores into advantages, update."""
        start = time.perf_counter()
        number = self.epoch + 1
        requests = self.requests(number)
        mine, ids = self.my_share(requests), [request.prompt_id for request in requests]
        sampler = self.objective.sampler(number)
        self.objective.begin_epoch()
        with self.objective.behaviour():
            rollout = roll_out(self.generator, mine, sampler, self.plan.rollout_batch)
        drawn = time.perf_counter()
        scores, everything = self.score(rollout.images, mine)
        scored = time.perf_counter()
        rewards = summarise_rewards(everything, list(self.reward.weights))
        anchor, comparison = self.score_anchor(ids, mine, sampler)
        compared = time.perf_counter()
        own = {name: signal_of(everything, name) for name in self.reward.weights}
        advantages = self.aggregate(ids, self.signals(ids, own, anchor))
        kl, kl_evaluations, sampling = self.measure(number, rollout, sampler)
        weight = self.objective.kl.weight
        updates = self.config.train.updates_per_epoch
        logs = [
            self.update(
                Turn(
                    number, update, updates, advantages, everything.valid, self.config.rollout.images_per_prompt,
                    self.accelerator.process_index * self.plan.images_per_process, self.plan.images_per_process,
                ),
                rollout,
            )
            for update in range(updates)
        ]  # fmt: skip
        self.objective.end_epoch()
        self.objective.kl.update(kl)
        drawing = round(comparison.get("network_evaluations_anchor", 0))
        spent = sampling + drawing + round(sum(log["evaluations"] for log in logs))
        self.epoch, self.evaluations = number, self.evaluations + spent
        metrics = {
            "epoch": number,
            **rewards,
            **{f"anchor/{name}": float(signal.values[signal.valid].mean()) for name, signal in anchor.items()},
            **{f"win_rate/{name}": win_rate(own[name], signal) for name, signal in anchor.items()},
            **comparison,
            "advantage/without_signal": advantages.dropped,
            "kl": kl,
            **({"kl_weight": weight} if weight else {}),
            "network_evaluations": self.evaluations,
            "network_evaluations_epoch": spent,
            "network_evaluations_kl": kl_evaluations,
            **{key: sum(log[key] for log in logs) / len(logs) for key in logs[0] if key != "evaluations"},
            **{key: max(log[key] for log in logs) for key in logs[0] if key.endswith(WORST)},
            **({"ratio/first_update_error": logs[0]["ratio/worst"]} if "ratio/worst" in logs[0] else {}),
            "seconds/rollout": drawn - start,
            "seconds/reward": scored - drawn,
            **({"seconds/anchor": compared - scored} if anchor else {}),
            "seconds/update": time.perf_counter() - compared,
        }
        return Epoch(metrics, rollout.images, scores)

    def requests(self, epoch: int) -> list[Request]:
        """Return the requests of the whole epoch; every process computes the same."""
        rollout = self.config.rollout
        return self.prompts.epoch(epoch, rollout.prompts_per_epoch, rollout.images_per_prompt)

    def my_share(self, requests: list[Request]) -> list[Request]:
        """Return this process's share of an epoch's requests: a contiguous slice."""
        mine = self.plan.images_per_process
        first = self.accelerator.process_index * mine
        return requests[first : first + mine]

    def score(self, images: torch.Tensor, requests: list[Request]) -> tuple[RewardResult, RewardResult]:
        """Return this process's scores, and those of all processes in the order of the epoch's requests, on the CPU.

        Raises:
            UserError: On every process, when the reward of one of them gives up.
        """
        return self._on_all(lambda: self.reward(images, [request.case for request in requests]))

    def score_anchor(
        self, ids: list[str], mine: list[Request], sampler: Sampler
    ) -> tuple[dict[str, Signal], dict[str, float]]:
        """Return the anchor's scores of the whole epoch by reward, on the CPU, and what is logged of them.

        Args:
            ids: Prompt of each picture of the whole epoch.
            mine: This process's share of the requests.
            sampler: That of the rollout.

        Raises:
            UserError: On every process, when the reward of one of them gives up.
        """
        scorer = self.anchor_scorer
        if scorer is None:
            return {}, {}
        group = self.config.feedback.against == "group"  # one picture of the anchor joins each group
        leaders = {name: row for row, name in reversed(list(enumerate(ids)))}
        wanted = [not group or leaders[name] == row for row, name in enumerate(ids)]
        first = self.accelerator.process_index * self.plan.images_per_process
        spent = torch.zeros(2, dtype=torch.float64)

        def score() -> RewardResult:
            scores = scorer(mine, wanted[first : first + len(mine)], sampler, self.plan.rollout_batch)
            spent[:] = torch.tensor([scores.evaluations, scores.found / self.accelerator.num_processes])
            return scores.result

        _, everything = self._on_all(score)
        total, found = self.accelerator.reduce(spent.to(self.generator.device), "sum").tolist()
        signals = {name: signal_of(everything, name) for name in self.feedback}
        return signals, {"network_evaluations_anchor": total, "anchor/cached": found}

    def signals(self, ids: list[str], own: Mapping[str, Signal], anchor: Mapping[str, Signal]) -> dict[str, Signal]:
        """Return the learning signal of each reward: its score, or its score compared with the anchor's."""
        return {
            name: self.feedback[name](ids, signal, anchor[name]) if name in anchor else signal
            for name, signal in own.items()
        }

    def _together(self, action: Callable[[], T]) -> T:
        """Act on every process; where one fails, all do: it would leave the others waiting for it."""
        result, problem = None, ""
        try:
            result = action()
        except UserError as error:
            problem = str(error)
        problems = [told for told in gather_object([problem]) if told]
        if problems:
            raise UserError(problems[0])
        assert result is not None  # no process had a problem
        return result

    def _on_all(self, score: Callable[[], RewardResult]) -> tuple[RewardResult, RewardResult]:
        scores = self._together(score)
        # A process whose reward failed has no parts: without the others' names the gather would have another shape.
        names = {name for mine in gather_object([sorted(scores.parts)]) for name in mine}
        return scores, self.gather(scores, sorted(names))

    def gather(self, scores: RewardResult, names: list[str]) -> RewardResult:
        """Return the scores of all processes; a part that a process lacks is NaN there."""
        unknown = torch.full_like(scores.values, torch.nan)
        columns = [scores.values, scores.valid, *(scores.parts.get(name, unknown) for name in names)]
        table = torch.stack([column.to(self.generator.device, torch.float32) for column in columns], dim=1)
        gathered = self.accelerator.gather(table).cpu()
        parts = {name: gathered[:, column + 2] for column, name in enumerate(names)}
        return RewardResult(gathered[:, 0], gathered[:, 1] > 0.5, parts)

    def measure(self, epoch: int, rollout: Rollout, sampler: Sampler) -> tuple[float, int, int]:
        """Return the mean KL to the anchor, what it cost, and what the rollout cost, over all processes."""
        mine = self.plan.images_per_process
        first = self.accelerator.process_index * mine
        with_noise = int((self.noisy.sigma > 0).sum())  # some schedules end with a step that has none
        samples, steps = choose_kl_rows(self.config.seed, epoch, self.plan.images, with_noise, KL_ROWS)
        own = (samples >= first) & (samples < first + mine)
        seeds = [derive_seed(self.config.seed, "kl noise", epoch, row) for row in torch.nonzero(own).flatten().tolist()]
        total, spent = sum_kl(
            self.generator, rollout, samples[own] - first, steps[own], seeds, sampler, self.noisy,
            self.plan.micro_batch, self.anchor,
        )  # fmt: skip
        sums = torch.tensor([total, spent, rollout.evaluations], dtype=torch.float64, device=self.generator.device)
        total, spent, sampling = self.accelerator.reduce(sums, "sum").tolist()
        return total / len(samples), round(spent), round(sampling)

    def update(self, turn: Turn, rollout: Rollout) -> dict[str, float]:
        """Make one optimiser step on every ``updates_per_epoch``-th image of the epoch.

        Raises:
            UserError: When the first update's log-probabilities differ from the sampled ones, or a gradient is not
                finite.
        """
        objective = self.objective
        rows = objective.rows(turn, rollout)
        self.optimizer.zero_grad(set_to_none=True)
        log = self._together(lambda: accumulate(objective, rollout, rows, self.plan.micro_batch))
        device = self.generator.device
        sums = self.accelerator.reduce(log.sums().to(device), "sum").cpu()
        worst = self.accelerator.gather(log.worst().to(device).unsqueeze(0)).amax(dim=0).cpu()
        found = UpdateLog.together(objective.logged, sums, worst)
        if turn.update == 0:
            objective.check_first_update(turn.epoch, found, rollout)
        decay = decay_at(self.config.train, turn.epoch - 1 + turn.update / turn.updates)
        return {**found, "grad_norm": self._apply_gradients(decay) if sums[0] else 0.0}

    def _apply_gradients(self, decay: float) -> float:
        """Sum the gradients over processes, clip, step, average. Returns the norm before clipping."""
        parameters = list(self.parameters.values())
        for parameter in parameters:  # a process without rows has no gradient, yet takes part in the sum
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.accelerator.num_processes > 1:
            flat = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
            flat = self.accelerator.reduce(flat, "sum")
            for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters])):
                parameter.grad = gradient.view_as(parameter)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.train.grad_clip))
        if not norm < float("inf"):
            raise UserError(
                f"the gradient is not finite in epoch {self.epoch + 1}: "
                "lower train.learning_rate, or use train.precision fp32"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = decay * group["peak"]
        self.optimizer.step()
        self.average.update(self.parameters)
        return norm

    def save(self) -> None:
        """Write a checkpoint: weights, average, optimiser, statistics and counters."""
        tensors = {
            **with_prefix("weights", self.parameters),
            **with_prefix("average", self.average.shadow),
            **with_prefix("optimizer", optimizer_tensors(self.optimizer)),
            **with_prefix("objective", self.objective.tensors()),
        }
        info = {
            "epoch": self.epoch,
            "evaluations": self.evaluations,
            "average_steps": self.average.steps,
            "advantage": self.aggregate.state(),
            "objective": self.objective.state(),
            "feedback": {name: feedback.state() for name, feedback in self.feedback.items()},
        }
        save_state(self.run.checkpoints / f"epoch_{self.epoch:05d}", tensors, info)
        prune_states(self.run.checkpoints, keep=2)

    def load(self, checkpoint: Path) -> None:
        """Take up a checkpoint, asserting that it fits.

        Raises:
            UserError: When its tensors are not this run's.
        """
        tensors, info = load_state(checkpoint)
        weights = without_prefix("weights", tensors)
        if set(weights) != set(self.parameters):
            raise UserError(f"checkpoint {checkpoint} does not fit this run's adapter: use the config that made it")
        with torch.no_grad():
            for name, value in weights.items():
                self.parameters[name].copy_(value)
        device = self.generator.device
        self.average.shadow = {name: value.to(device) for name, value in without_prefix("average", tensors).items()}
        self.average.steps = info["average_steps"]
        restore_optimizer(self.optimizer, without_prefix("optimizer", tensors))
        self.aggregate.restore(info["advantage"])
        self.objective.restore(without_prefix("objective", tensors), info["objective"])
        for name, feedback in self.feedback.items():
            feedback.restore(info["feedback"][name])
        self.epoch, self.evaluations = info["epoch"], info["evaluations"]


def signal_of(scores: RewardResult, name: str) -> Signal:
    """Return what one reward says, from the parts of the sum."""
    values = scores.parts[name]
    return Signal(torch.where(values.isnan(), 0.0, values), ~values.isnan())


def summarise_rewards(scores: RewardResult, names: Sequence[str]) -> dict[str, float]:
    """Return mean and spread of the valid scores and the mean of each part, for the log.

    Args:
        scores: Of the whole epoch.
        names: Of the run's rewards, for the message.

    Raises:
        UserError: When no score is valid.
    """
    known = scores.values[scores.valid]
    if not len(known):
        raise UserError(
            f"no picture of the epoch got a valid score from reward {' + '.join(names)}: "
            "look at what it printed above, and at the cases' known labels"
        )
    parts: Mapping[str, torch.Tensor] = scores.parts
    return {
        "reward/mean": float(known.mean()),
        "reward/std": float(known.std(unbiased=False)),
        "reward/valid": len(known) / len(scores.values),
        **{f"reward/{name}": float(v[~v.isnan()].mean()) for name, v in parts.items() if (~v.isnan()).any()},
    }
