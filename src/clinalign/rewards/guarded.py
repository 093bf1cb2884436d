"""Calling a reward that may fail.

A reward is somebody's code or somebody's server: it raises, times out, returns integers, NaN or the wrong shape. A
fault of programming stops the run with one line that names the reward; a passing failure is retried, then masked and
counted, and stops the run only when too many fail. A failed score is never zero.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import torch

from clinalign.core.errors import UserError
from clinalign.core.progress import say
from clinalign.core.types import Case, Reward, RewardResult


def checked_result(name: str, result: object, count: int) -> RewardResult:
    """Return ``result`` with what is not finite masked.

    Args:
        name: The reward's name, for messages.
        result: What the reward returned.
        count: Number of images, N.

    Returns:
        Float32 values, 0 where not valid; valid; parts.

    Raises:
        UserError: When ``result`` is no :class:`RewardResult`, its values are integers or not ``(N,)``, or no value
            that is said to be valid is finite.
    """
    if not isinstance(result, RewardResult):
        raise UserError(
            f"reward '{name}' returned {type(result).__name__}: return a RewardResult(values, valid, parts)"
        )
    for what, tensor in (("values", result.values), ("valid", result.valid), *result.parts.items()):
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f"reward '{name}' returned {what} as {type(tensor).__name__}: return a tensor")
        if tensor.shape != (count,):
            raise UserError(
                f"reward '{name}' returned {what} of shape {tuple(tensor.shape)} for {count} images: return ({count},)"
            )
    if not result.values.is_floating_point():
        raise UserError(
            f"reward '{name}' returned {result.values.dtype} values: return float32 (integers truncate the advantages)"
        )
    if result.valid.dtype != torch.bool:
        raise UserError(f"reward '{name}' returned valid as {result.valid.dtype}: return bool")
    finite = torch.isfinite(result.values)
    if count and result.valid.any() and not (finite & result.valid).any():
        raise UserError(
            f"reward '{name}' returned NaN or infinity for all of {count} images: look at what it divides by"
        )
    valid = result.valid & finite
    return RewardResult(torch.where(valid, result.values.float(), 0.0), valid, result.parts)


class GuardedReward:
    """A reward whose failures are retried, masked and counted.

    Args:
        reward: What to call.
        retries: Further tries after an exception.
        wait: Seconds before the first retry; doubled for each further one.
        max_failure_rate: Share of the samples of the last ``window`` calls that may fail before the run stops.
        window: Number of calls that are looked back at. Before there are so many, those to come are taken to succeed:
            one blip at the start does not end a run.

    Attributes:
        scored: Samples asked for so far.
        failed: Samples that failed so far: exceptions and values that were not finite, not those without a known label.
    """

    def __init__(
        self,
        reward: Reward,
        retries: int = 2,
        wait: float = 0.5,
        max_failure_rate: float = 0.25,
        window: int = 10,
    ) -> None:
        if retries < 0 or wait < 0 or not 0 <= max_failure_rate <= 1 or window < 1:
            raise UserError(
                f"guard of reward '{reward.name}': retries {retries} and wait {wait} must be 0 or more, "
                f"max_failure_rate {max_failure_rate} in [0, 1], window {window} 1 or more"
            )
        self.reward = reward
        self.name = reward.name
        self.identity = reward.identity
        self.retries = retries
        self.wait = wait
        self.max_failure_rate = max_failure_rate
        self.scored = self.failed = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=window)

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` against ``cases``.

        Raises:
            UserError: For a fault of programming (see :func:`checked_result`), or when too many samples failed.
        """
        if len(images) != len(cases):
            raise UserError(f"reward '{self.name}' was given {len(images)} images and {len(cases)} cases")
        raw, error = self._try(images, cases)
        if raw is None:
            nothing = torch.zeros(len(images), device=images.device)
            result, failed = RewardResult(nothing, nothing.bool()), len(images)
        else:
            result = checked_result(self.name, raw, len(images))
            failed = int((raw.valid & ~result.valid).sum())
        self._count(len(images), failed, error)
        return result

    def _try(self, images: torch.Tensor, cases: Sequence[Case]) -> tuple[RewardResult | None, Exception | None]:
        """Call the reward, again after an exception; memory errors and the user's own mistakes go through at once."""
        problem: Exception | None = None
        for attempt in range(self.retries + 1):
            try:
                return self.reward(images, cases), None
            except (UserError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a foreign reward may raise: it is counted, and the ceiling stops it
                problem = error
                if attempt < self.retries:
                    time.sleep(self.wait * 2**attempt)
        say(f"reward '{self.name}' failed on {len(images)} images, now masked: {type(problem).__name__}: {problem}")
        return None, problem

    def _count(self, asked: int, failed: int, error: Exception | None) -> None:
        """Keep count, and stop where the recent failure rate is above the ceiling."""
        self.scored += asked
        self.failed += failed
        self._recent.append((asked, failed))
        recent_asked, recent_failed = (sum(column) for column in zip(*self._recent))
        in_window = recent_asked * (self._recent.maxlen or 1) / len(self._recent)
        if recent_failed > self.max_failure_rate * in_window:
            last = f"; the last error was {type(error).__name__}: {error}" if error else ""
            raise UserError(
                f"reward '{self.name}' failed on {recent_failed} of the last {recent_asked} samples "
                f"(ceiling {self.max_failure_rate:.0%} of {self._recent.maxlen} calls){last}: "
                "mend the reward and resume the run"
            ) from error


def score_checked(reward: Reward, images: torch.Tensor, cases: Sequence[Case], retries: int = 2) -> RewardResult:
    """Score once through a :class:`GuardedReward`; a run keeps one guard instead, so that failures add up."""
    return GuardedReward(reward, retries=retries)(images, cases)
