"""Text as the network sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class TextCondition:
    """Text embeddings of N prompts.

    Attributes:
        embeddings: ``(N, L, D)`` text-encoder output of the prompts.
        empty: ``(1, L, D)`` the same for the empty prompt, used by classifier-free guidance.
        truncated: N flags: the prompt was longer than the encoder's limit and lost its end.
    """

    embeddings: torch.Tensor
    empty: torch.Tensor
    truncated: tuple[bool, ...]

    def __getitem__(self, index: torch.Tensor | slice | Sequence[int]) -> TextCondition:
        """Return the condition of a part of the prompts."""
        if isinstance(index, slice):
            chosen = list(range(len(self.truncated)))[index]
        else:
            chosen = index.tolist() if isinstance(index, torch.Tensor) else list(index)
        return TextCondition(self.embeddings[chosen], self.empty, tuple(self.truncated[i] for i in chosen))
