"""From scores to advantages: how much better a picture is than what its prompt usually gets."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Advantages:
    """Advantages of a batch.

    Attributes:
        values: ``(N,)`` float32, clipped; 0 where there is no signal.
        active: ``(N,)`` bool: the sample takes part in the loss (valid, and its group has a spread).
        dropped: Share of the samples without a signal.
    """

    values: torch.Tensor
    active: torch.Tensor
    dropped: float


class PerPromptRunning:
    """Per-prompt running statistics of DDPO and RL4Med (methods 1.2, 1): A = (r - mean) / (std + 1e-6).

    Each prompt keeps its last ``buffer`` rewards, the current ones included; until it has ``min_count`` of them, the
    mean and spread of the whole batch serve instead.

    Args:
        buffer: Rewards remembered for each prompt.
        min_count: Smallest number that makes a prompt's own statistics.
        clip: Largest absolute advantage.
    """

    def __init__(self, buffer: int = 32, min_count: int = 16, clip: float = 5.0) -> None:
        self.buffer, self.min_count, self.clip = buffer, min_count, clip
        self._rewards: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=buffer))

    def __call__(self, prompt_ids: Sequence[str], rewards: torch.Tensor, valid: torch.Tensor) -> Advantages:
        """Return the advantages of N rewards ``(N,)``; those that are not ``valid`` leave statistics and loss."""
        values = torch.zeros(len(prompt_ids), dtype=torch.float64)
        rewards = rewards.double()  # float32 scores add up exactly in float64: equal ones have a mean that is theirs
        known = rewards[valid]
        for prompt, reward, ok in zip(prompt_ids, rewards.tolist(), valid.tolist()):
            if ok:
                self._rewards[prompt].append(reward)
        for index, prompt in enumerate(prompt_ids):
            if not valid[index]:
                continue
            own = self._rewards[prompt]
            reference = torch.tensor(list(own), dtype=torch.float64) if len(own) >= self.min_count else known
            spread = reference.std(unbiased=False)
            values[index] = (rewards[index] - reference.mean()) / (spread + 1e-6)
        values = values.clamp(-self.clip, self.clip).float()
        active = valid & (values != 0)
        return Advantages(values, active, 1.0 - float(active.float().mean()) if len(active) else 0.0)

    def state(self) -> dict[str, Any]:
        """Return the remembered rewards, for the checkpoint."""
        return {prompt: list(rewards) for prompt, rewards in self._rewards.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self._rewards.clear()
        for prompt, rewards in state.items():
            self._rewards[prompt].extend(rewards)


class Group:
    """Group-relative advantages of the GRPO family (methods 1.2, 2): A = (r - mean_group) / (std + 1e-4).

    Args:
        clip: Largest absolute advantage.
        global_std: Divide by the spread of all valid rewards of the batch instead of each group's own; safer where
            rewards are discrete (R).
    """

    def __init__(self, clip: float = 5.0, global_std: bool = True) -> None:
        self.clip, self.global_std = clip, global_std

    def __call__(self, prompt_ids: Sequence[str], rewards: torch.Tensor, valid: torch.Tensor) -> Advantages:
        """Return the advantages of N rewards ``(N,)``; a group of one or without spread carries no signal."""
        centred = torch.zeros_like(rewards)
        spread = torch.zeros_like(rewards)
        active = torch.zeros_like(valid)
        for prompt in dict.fromkeys(prompt_ids):
            members = torch.tensor([name == prompt for name in prompt_ids]) & valid
            group = rewards[members]
            if len(group) < 2 or float(group.max() - group.min()) == 0.0:
                continue
            centred[members] = group - group.mean()
            spread[members] = group.std(unbiased=False)
            active |= members
        if self.global_std and active.any():
            spread[:] = rewards[valid].std(unbiased=False)
        values = (centred / (spread + 1e-4)).clamp(-self.clip, self.clip) * active
        return Advantages(values, active, 1.0 - float(active.float().mean()) if len(active) else 0.0)

    def state(self) -> dict[str, Any]:
        """Return nothing: groups have no memory."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Do nothing: groups have no memory."""
