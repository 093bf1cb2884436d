"""Does the image fit its text? The multimodal consistency reward of CXRL (Han et al., MICCAI 2024).

- ``cosine``: score(I, y) = <F_visual(I), F_text(y)> of unit vectors, in ``[-1, 1]``, the published form (P);
- ``contrast``: our calibrated form (R), the log-probability of the true text among itself and its flips,
  log softmax_k(s <F_visual(I), F_text(y_k)>) at the true one, with s the model's learnt scale; at most 0. A cosine also
  rises with what makes a picture typical; what the flips share with the text cancels here, and the facts remain.

The model is our own image-text pair, or a CLIP-type model of transformers or open_clip (``backend``). The metric
should come from another one (R): see ``clinalign train reward consistency --split judge``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinalign.core.errors import UserError, nearest
from clinalign.core.files import hash_json
from clinalign.core.progress import say
from clinalign.core.types import Case, RewardResult
from clinalign.data.text_flips import Flipper, balanced_flips, text_flips
from clinalign.networks.clip_open_clip import load_open_clip
from clinalign.networks.clip_transformers import load_transformers_clip
from clinalign.networks.image_text import ImageTextModel, ImageTextPair
from clinalign.networks.pair_texts import case_flips
from clinalign.rewards.settings import check_settings, need_path

SCORES = ("cosine", "contrast")
BACKENDS: Mapping[str, Callable[[Path, torch.device], ImageTextModel]] = {
    "own": ImageTextPair.load,
    "transformers": load_transformers_clip,
    "open_clip": load_open_clip,
}


class ConsistencyReward:
    """Agreement of a picture with its text in the space of an image-text model; differentiable in the images.

    A case with an empty text is invalid, and with ``contrast`` one whose text cannot be flipped. A text beyond the
    model's limit is scored by its beginning, counted in :attr:`truncated` and marked in the part ``truncated``.

    Args:
        model: The image-text model; put into evaluation mode and frozen where it is a torch module.
        score: ``cosine`` or ``contrast``.
        batch_size: Images at once; does not change the result.
        flipper: Makes wrong texts, for ``contrast`` and for the reward check.

    Attributes:
        truncated: Number of texts so far that were longer than the model's limit.

    Raises:
        UserError: For an unknown score or a batch size below 1.
    """

    name = "consistency"

    def __init__(
        self, model: ImageTextModel, score: str = "cosine", batch_size: int = 64, flipper: Flipper = text_flips
    ) -> None:
        if score not in SCORES:
            raise UserError(f"unknown score '{score}' of reward 'consistency': {nearest(score, SCORES)}")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UserError(f"batch_size of reward 'consistency' must be a whole number of 1 or more, got {batch_size}")
        if isinstance(model, torch.nn.Module):
            model.eval().requires_grad_(False)
        self.model = model
        self.score = score
        self.batch_size = batch_size
        self.flipper = flipper
        self.truncated = 0
        self.model_identity = model.identity
        self.identity = f"consistency:{hash_json([score], length=8)}:{self.model_identity}"

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` of any size against the texts of ``cases``.

        Parts: ``cosine`` and ``truncated`` (1 or 0), NaN where the text is empty.
        """
        texts = [case.text for case in cases]
        parts = torch.split(images, self.batch_size)
        seen = torch.cat([self.model.embed_images(part) for part in parts])
        told = torch.tensor([bool(text.strip()) for text in texts], device=seen.device)
        cosine = (seen * self.model.embed_texts(texts).to(seen)).sum(dim=1)
        cut = self.model.truncates(texts)
        self._count(sum(cut))
        values, valid = (cosine, told) if self.score == "cosine" else self._contrast(seen, cosine, cases)
        hidden = {
            "cosine": cosine.detach().masked_fill(~told, torch.nan),
            "truncated": torch.tensor(cut, device=seen.device).float().masked_fill(~told, torch.nan),
        }
        return RewardResult(values, valid & told, hidden)

    def wrong_cases(self, cases: Sequence[Case], random: np.random.Generator) -> list[Case | None]:
        """Return each case with one fact of its text made wrong, ``None`` where that cannot be done.

        Each finding is removed as often as it is added, so that a model that only knows which texts are usual, and does
        not look, gains nothing.
        """
        flips = balanced_flips(cases, random, self.flipper)
        return [None if flip is None else replace(case, text=flip.text) for case, flip in zip(cases, flips)]

    def _contrast(
        self, seen: torch.Tensor, cosine: torch.Tensor, cases: Sequence[Case]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the log-probability of each true text among its flips, and whether there are any."""
        flips = {(case.text, case.case_id): case_flips(case, self.flipper) for case in cases}
        rows = [[flip.text for flip in flips[case.text, case.case_id]] for case in cases]
        distinct = list(dict.fromkeys(text for row in rows for text in row))
        numbers = {text: number for number, text in enumerate(distinct)}
        most = max(1, *(len(row) for row in rows)) if rows else 1
        table = torch.tensor([[*(numbers[text] for text in row), *[-1] * (most - len(row))] for row in rows])
        table = table.to(seen.device)
        valid = (table >= 0).any(dim=1)
        if not distinct:
            return torch.zeros_like(cosine), valid
        read = self.model.embed_texts(distinct).to(seen)
        scale = self.model.scale.to(seen)
        others = (seen @ read.T).gather(1, table.clamp_min(0)).masked_fill(table < 0, -torch.inf)
        logits = scale * torch.cat([cosine[:, None], others], dim=1)
        return torch.log_softmax(logits, dim=1)[:, 0], valid

    def _count(self, cut: int) -> None:
        """Keep count of the texts that lost their end; say so once."""
        if cut and not self.truncated:
            say(
                f"reward 'consistency': {cut} texts are longer than its model's limit and are scored by their beginning"
            )
        self.truncated += cut


def consistency_reward(path: Path | None, settings: Mapping[str, Any], device: torch.device) -> ConsistencyReward:
    """Build the reward from the folder of a model; settings ``backend``, and as in :class:`ConsistencyReward`."""
    check_settings("consistency", settings, ("backend", "score", "batch_size"))
    others = dict(settings)
    backend = str(others.pop("backend", "own"))
    if backend not in BACKENDS:
        raise UserError(f"unknown backend '{backend}' of reward 'consistency': {nearest(backend, BACKENDS)}")
    return ConsistencyReward(BACKENDS[backend](need_path("consistency", path), device), **others)
