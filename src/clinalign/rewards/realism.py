"""Does it look like a photograph at all? A guard beside rewards that ask what a picture shows.

r = log p(real), bounded above: nothing is gained by being ever more real. Below it is not: generated pictures are told
from real ones with ease at first, and among pictures that are all far from real the nearer one must still win. A
classifier of findings was never shown what a generator can draw, so that a caricature may be the clearest melanoma it
has ever seen. This one has seen the anchor's pictures, and real ones spoilt by hand. The published recipes have no such
reward (R).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json
from clinalign.core.types import Case, RewardResult
from clinalign.networks.realism import RealismClassifier
from clinalign.networks.spoil import KINDS, spoil
from clinalign.rewards.settings import check_settings, need_path


class RealismReward:
    """Log-probability that a picture is real; differentiable in the images. It does not look at the case.

    Args:
        classifier: The trained classifier; it is put into evaluation mode and frozen.
        clip: Probabilities are held below ``1 - clip``; between 0 and 0.5.
        batch_size: Images at once.

    Raises:
        UserError: For a value out of range.
    """

    name = "realism"

    def __init__(self, classifier: RealismClassifier, clip: float = 0.05, batch_size: int = 64) -> None:
        if not 0.0 < clip < 0.5:
            raise UserError(f"clip of reward '{self.name}' must lie between 0 and 0.5, got {clip}")
        if batch_size < 1:
            raise UserError(f"batch_size of reward '{self.name}' must be 1 or more, got {batch_size}")
        self.classifier = classifier.eval().requires_grad_(False)
        self.clip = clip
        self.batch_size = batch_size
        self.model_identity = classifier.identity
        self.identity = f"{self.name}:{hash_json([clip], length=8)}:{self.model_identity}"

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` of any size; every score is valid."""
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()):
            batches = torch.split(images.to(self.classifier.device), self.batch_size)
            logits = torch.cat([self.classifier(batch) for batch in batches])
            values = F.logsigmoid(logits[:, 0].clamp(max=torch.logit(torch.tensor(1.0 - self.clip)).item()))
        return RewardResult(values, torch.ones(len(values), dtype=torch.bool, device=values.device))

    def worse_images(self, images: torch.Tensor, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """Return spoilt copies of real images, which must score lower (for ``reward check``), by kind."""
        chance = torch.Generator(images.device).manual_seed(int(random.integers(2**31)))
        return {kind: spoil(images, kind, chance) for kind in KINDS}


def realism_reward(path: Path | None, settings: Mapping[str, Any], device: torch.device) -> RealismReward:
    """Build the reward from the folder of its classifier; settings as in :class:`RealismReward`."""
    check_settings("realism", settings, ("clip", "batch_size"))
    return RealismReward(RealismClassifier.load(need_path("realism", path), device), **settings)
