"""Rewards that misbehave: faults stop with one line, passing failures are retried, masked and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.rewards.guarded import GuardedReward, score_checked

IMAGES = torch.zeros(4, 3, 8, 8)
CASES = [Case(str(i), "") for i in range(4)]
FINE = RewardResult(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(4).bool())


class Scripted:
    """Returns, or raises, what it is told, call by call; the last one for ever."""

    name = identity = "mine"

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.calls = 0

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        answer = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]


def test_a_good_result_passes_unchanged() -> None:
    result = score_checked(Scripted(FINE), IMAGES, CASES)
    assert torch.equal(result.values, FINE.values)
    assert result.valid.all()


def everything(values: torch.Tensor, valid: torch.Tensor | None = None, **parts: torch.Tensor) -> RewardResult:
    return RewardResult(values, torch.ones(4).bool() if valid is None else valid, parts)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: everything(torch.tensor([1, 2, 2, 3])), "'mine' returned torch.int64 values: return float32"),
        (lambda: everything(torch.zeros(4, 1)), r"'mine' returned values of shape \(4, 1\) for 4 images"),
        (lambda: everything(torch.zeros(4), torch.ones(4)), "'mine' returned valid as torch.float32: return bool"),
        (lambda: everything(torch.zeros(4), hair=torch.zeros(3)), r"'mine' returned hair of shape \(3,\)"),
        (lambda: everything([0.0] * 4), "'mine' returned values as list"),  # type: ignore[arg-type]
        (lambda: torch.zeros(4), "'mine' returned Tensor: return a RewardResult"),
        (lambda: everything(torch.full((4,), torch.nan)), "'mine' returned NaN or infinity for all of 4 images"),
    ],
)
def test_a_fault_of_programming_stops_with_the_name_of_the_reward(answer: Callable[[], object], message: str) -> None:
    reward = Scripted(answer())
    with pytest.raises(UserError, match=message):
        score_checked(reward, IMAGES, CASES)
    assert reward.calls == 1  # trying again would not help


def test_single_nan_is_masked_counted_and_never_reaches_a_mean() -> None:
    guard = GuardedReward(Scripted(everything(torch.tensor([1.0, torch.nan, 3.0, torch.inf]))))
    result = guard(IMAGES, CASES)
    assert result.valid.tolist() == [True, False, True, False]
    assert torch.isfinite(result.values).all()
    assert (guard.failed, guard.scored) == (2, 4)


def test_a_case_that_cannot_be_scored_is_no_failure() -> None:
    nothing_known = everything(torch.full((4,), torch.nan), torch.zeros(4).bool())
    guard = GuardedReward(Scripted(nothing_known))
    for _ in range(5):
        assert not guard(IMAGES, CASES).valid.any()
    assert guard.failed == 0


def test_an_exception_is_tried_again() -> None:
    reward = Scripted(TimeoutError("slow"), ValueError("odd"), FINE)
    result = GuardedReward(reward, retries=2, wait=0.0)(IMAGES, CASES)
    assert result.valid.all()
    assert reward.calls == 3


def test_one_blip_is_masked_and_does_not_stop_the_run() -> None:
    guard = GuardedReward(Scripted(TimeoutError("slow"), FINE), retries=0, wait=0.0)
    assert guard(IMAGES, CASES).valid.tolist() == [False] * 4
    for _ in range(4):
        assert guard(IMAGES, CASES).valid.all()
    assert (guard.failed, guard.scored) == (4, 20)


def test_too_many_failures_stop_the_run() -> None:
    # a quarter of ten calls of four samples are ten samples: the third failing call is too many
    guard = GuardedReward(Scripted(TimeoutError("no answer")), retries=0, wait=0.0)
    guard(IMAGES, CASES)
    guard(IMAGES, CASES)
    with pytest.raises(UserError, match=r"'mine' failed on 12 of the last 12 samples .*TimeoutError: no answer"):
        guard(IMAGES, CASES)


def test_old_failures_are_forgotten() -> None:
    script = [TimeoutError("x"), *[FINE] * 6, TimeoutError("x"), FINE]
    guard = GuardedReward(Scripted(*script), retries=0, wait=0.0, window=4, max_failure_rate=0.3)
    for _ in range(len(script)):
        guard(IMAGES, CASES)
    assert guard.failed == 8


@pytest.mark.parametrize("error", [UserError("my mistake"), MemoryError(), KeyboardInterrupt()])
def test_what_no_retry_can_mend_goes_through(error: BaseException) -> None:
    reward = Scripted(error)
    with pytest.raises(type(error)):
        GuardedReward(reward, wait=0.0)(IMAGES, CASES)
    assert reward.calls == 1


def test_messages() -> None:
    with pytest.raises(UserError, match="guard of reward 'mine': retries -1"):
        GuardedReward(Scripted(FINE), retries=-1)
    with pytest.raises(UserError, match="was given 4 images and 3 cases"):
        score_checked(Scripted(FINE), IMAGES, CASES[:3])
