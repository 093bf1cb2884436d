"""What an update rule is: it says what a rollout keeps, cuts an optimiser step into rows, and gives each row a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch

from clinalign.core.config import TuneConfig
from clinalign.core.objective_config import ObjectiveSection
from clinalign.core.seeds import derive_seed
from clinalign.core.types import WeightedRewards
from clinalign.generation.ddim import DdimSchedule
from clinalign.generation.generator import Generator
from clinalign.tuning.advantage import Advantages
from clinalign.tuning.divergence import KlWeight
from clinalign.tuning.rollout import Rollout, Sampler

Context = Callable[[], AbstractContextManager[None]]
Section = TypeVar("Section", bound=ObjectiveSection)


@dataclass(frozen=True)
class Policy:
    """What is trained, and what it is compared with.

    Attributes:
        generator: The policy.
        parameters: What is trained, by name.
        anchor: Context in which the generator is the one from before tuning.
        reward: Scores pictures; with a graph for the rules that follow its gradient.
    """

    generator: Generator
    parameters: Mapping[str, torch.nn.Parameter]
    anchor: Context
    reward: WeightedRewards


@dataclass(frozen=True)
class Turn:
    """One optimiser step of an epoch, seen from one process.

    Attributes:
        epoch: From 1.
        update: Number of the step within the epoch, from 0.
        updates: Steps an epoch.
        advantages: Of all pictures of the epoch, on the CPU.
        valid: ``(N,)`` bool: of all pictures of the epoch, those with a score.
        group: Pictures in a group; those of a group lie next to each other.
        first: Number of this process's first picture.
        mine: Number of its pictures.
    """

    epoch: int
    update: int
    updates: int
    advantages: Advantages
    valid: torch.Tensor
    group: int
    first: int
    mine: int

    def pictures(self) -> list[int]:
        """Return the pictures of this step that carry a signal, over all processes: each is used in one step (P)."""
        chosen = range(self.update, len(self.valid), self.updates)
        return [picture for picture in chosen if bool(self.advantages.active[picture])]

    def is_mine(self, picture: int) -> bool:
        """Tell whether this process drew the picture."""
        return self.first <= picture < self.first + self.mine


@dataclass(frozen=True)
class Rows:
    """R rows of forward and backward.

    Attributes:
        pictures: ``(R,)`` int64 number of each row's picture within the epoch; ``(R, 2)`` for rows on pairs.
        samples: The same within this process's rollout.
        steps: ``(R,)`` int64 step of the sampler.
        advantages: ``(R,)`` float32.
        count: Rows of this optimiser step over all processes, at least 1.
        turn: The step that they belong to.
    """

    pictures: torch.Tensor
    samples: torch.Tensor
    steps: torch.Tensor
    advantages: torch.Tensor
    count: int
    turn: Turn

    def __len__(self) -> int:
        """Return R."""
        return len(self.steps)

    def split(self, size: int) -> Iterator[Rows]:
        """Yield the rows, ``size`` at once."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield replace(
                self, pictures=self.pictures[part], samples=self.samples[part], steps=self.steps[part],
                advantages=self.advantages[part],
            )  # fmt: skip


@dataclass(frozen=True)
class Terms:
    """Loss of R rows and what is logged of them.

    Attributes:
        loss: ``(R,)`` with its graph.
        evaluations: Network evaluations spent; a forward with its backward counts three.
        log: Name to ``(R,)`` detached values, averaged over rows; of a name that ends in ``/worst`` the largest is
            taken.
    """

    loss: torch.Tensor
    evaluations: int
    log: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Objective(ABC, Generic[Section]):
    """An update rule.

    Args:
        config: The run's config.
        section: Its ``objective`` section.
        policy: What is trained.

    Attributes:
        logged: Names of what :class:`Terms` logs.
        kl: Weight of the KL term.
    """

    logged: tuple[str, ...] = ()

    def __init__(self, config: TuneConfig, section: Section, policy: Policy) -> None:
        self.config, self.section, self.policy = config, section, policy
        self.kl = KlWeight(section.kl, section.kl_target)
        rollout = config.rollout
        self.schedule: DdimSchedule = policy.generator.schedule(rollout.steps, rollout.eta)

    @property
    def branches(self) -> int:
        """Network evaluations a row and pass in the loss: 2 with guidance."""
        return 1 if self.config.rollout.guidance == 1.0 else 2

    def sampler(self, epoch: int) -> Sampler:
        """Return how the pictures of an epoch are drawn, and what of their paths is kept."""
        return Sampler(self.schedule, self.config.rollout.guidance, self.config.train.precision)

    def behaviour(self) -> AbstractContextManager[None]:
        """Return the context in which pictures are drawn; the current policy by default."""
        return nullcontext()

    def begin_epoch(self) -> None:
        """Do what is to be done before the first step of an epoch."""

    def end_epoch(self) -> None:
        """Do what is to be done after the last step of an epoch."""

    def rows(self, turn: Turn, rollout: Rollout) -> Rows:
        """Return this process's rows of an optimiser step: a few noise levels of each of its pictures."""
        pictures = turn.pictures()
        own = [picture for picture in pictures if turn.is_mine(picture)]
        steps = self.choose_steps(turn.epoch, own)
        numbers = torch.tensor(own, dtype=torch.long).repeat_interleave(steps.shape[1])
        return Rows(
            pictures=numbers,
            samples=numbers - turn.first,
            steps=steps.flatten(),
            advantages=turn.advantages.values[numbers].to(self.policy.generator.device),
            count=max(1, len(pictures) * steps.shape[1]),
            turn=turn,
        )

    def choose_steps(self, epoch: int, pictures: Sequence[int]) -> torch.Tensor:
        """Return the steps trained of each picture, ``(N, T)``."""
        steps = self.config.rollout.steps
        return choose_steps(self.config.seed, epoch, pictures, range(steps), self.section.trained_steps(steps))

    @abstractmethod
    def terms(self, rollout: Rollout, rows: Rows) -> Terms:
        """Return the loss of rows."""

    def check_first_update(self, epoch: int, log: Mapping[str, float], rollout: Rollout) -> None:
        """Look at what an epoch's first step logged; weights have not moved since the rollout.

        Raises:
            UserError: When sampling and training run different networks.
        """

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the weights that the rule keeps, for the checkpoint."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what else it keeps, for the checkpoint."""
        return {"kl": self.kl.weight}

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Put back what :meth:`tensors` and :meth:`state` returned."""
        self.kl.weight = state["kl"]


def choose_steps(seed: int, epoch: int, pictures: Sequence[int], allowed: range, count: int) -> torch.Tensor:
    """Return the steps trained of each picture, ``(N, T)``, in a random order of its own (methods 3.4).

    Args:
        seed: The run's seed.
        epoch: Current epoch.
        pictures: Numbers of the pictures within the epoch, so that the choice does not depend on the process.
        allowed: Steps to choose from.
        count: T.
    """
    orders = [
        torch.randperm(len(allowed), generator=torch.Generator().manual_seed(derive_seed(seed, "steps", epoch, number)))
        for number in pictures
    ]
    return allowed.start + torch.stack(orders)[:, :count] if orders else torch.empty((0, count), dtype=torch.long)
