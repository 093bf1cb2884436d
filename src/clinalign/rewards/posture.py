"""Does the film stand upright in its frame? The posture reward of CXRL (Han et al., MICCAI 2024), not comparative.

A frozen alignment network estimates psi = (s_x, s_y, t_x, t_y, theta), how the chest is scaled, shifted and turned
against the canonical pose (:mod:`clinalign.networks.affine`). The paper rewards a negative deviation from the identity
(P) without giving its formula. Ours (R) is

    r_align = -( w_s (|s_x - 1| + |s_y - 1|) + w_t (|t_x| + |t_y|) + w_r |theta| + w_l max(0, l_0 - l) ),

shifts in grid units (2 is the width), theta in radians, with two additions, both of them settings:

- ``tolerance``: |d| is Huber's function, d^2 / 2h below h and |d| - h / 2 above, with h the tolerance times the 90 %
  quantile of |d| over real films. Patients are not equally broad, nor all placed alike: within what is usual the score
  hardly changes, and real films come out near 0. It still falls strictly. 0 gives |d| itself.
- ``likeness_weight``: noise and blank pictures have no pose, and the network answers them with anything. l is how like
  the canonical film the picture is once aligned (Pearson's correlation of coarse pictures), l_0 what 95 % of real films
  exceed: above it nothing is gained, so that pathology, exposure and build cost next to nothing, and nobody is drawn
  towards the mean. 0 switches it off.

It reads no text: every case of an image gets the same score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json
from clinalign.core.types import Case, RewardResult
from clinalign.networks.affine import identity
from clinalign.networks.alignment import AlignmentNetwork
from clinalign.networks.warps import in_pose
from clinalign.rewards.settings import check_settings, need_path

SETTINGS = ("scale_weight", "shift_weight", "rotation_weight", "likeness_weight", "tolerance", "batch_size")
# What `reward check` shows it: plainly wrong, and within what the network was trained on.
WORSE_DEGREES, WORSE_ZOOM, WORSE_SHIFT = 15.0, 1.25, 0.15


class PostureReward:
    """Minus the deviation of an image's pose from the canonical one; 0 is best. Differentiable in the images.

    Args:
        network: The trained network; it is put into evaluation mode and frozen.
        scale_weight: w_s of both scales (R: 1).
        shift_weight: w_t of both shifts (R: 1).
        rotation_weight: w_r (R: 1).
        likeness_weight: w_l (R: 1).
        tolerance: Multiple of what is usual in real films within which the score is quadratic (R: 1); 0 for none.
        batch_size: Images at once.

    Raises:
        UserError: For a weight below 0, or none above it.
    """

    name = "posture"

    def __init__(
        self,
        network: AlignmentNetwork,
        scale_weight: float = 1.0,
        shift_weight: float = 1.0,
        rotation_weight: float = 1.0,
        likeness_weight: float = 1.0,
        tolerance: float = 1.0,
        batch_size: int = 64,
    ) -> None:
        weights = (scale_weight, shift_weight, rotation_weight, likeness_weight)
        for name, value in zip(SETTINGS, (*weights, tolerance)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise UserError(f"{name} of reward 'posture' must be a number of 0 or more, got {value!r}")
        if not any(weights):
            raise UserError("reward 'posture' has only weights of 0: give at least one of them another value")
        if batch_size < 1:
            raise UserError(f"batch_size of reward 'posture' must be 1 or more, got {batch_size}")
        self.network = network.eval().requires_grad_(False)
        self.weights = weights
        self.tolerance = tolerance
        self.batch_size = batch_size
        self.model_identity = network.identity
        self.identity = f"posture:{hash_json([weights, tolerance], length=8)}:{self.model_identity}"

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` ``(N, 3, H, W)`` in ``[0, 1]``, square, of any size; every score is valid.

        The parts ``scale``, ``shift``, ``rotation`` and ``likeness`` are weighted, 0 or less, and add up to the score.
        """
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()):
            batches = torch.split(images.to(self.network.device), self.batch_size)
            terms = torch.cat([self._terms(batch) for batch in batches])
            values = terms.sum(dim=1)
        parts = {name: terms.detach()[:, k] for k, name in enumerate(("scale", "shift", "rotation", "likeness"))}
        return RewardResult(values, torch.ones(len(values), dtype=torch.bool, device=values.device), parts)

    def worse_images(self, images: torch.Tensor, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """Return copies in plainly wrong postures, which must score lower (for ``reward check``).

        Args:
            images: Real films ``(N, 3, H, W)``.
            random: Chooses the sign and direction for each of them.

        Returns:
            ``turned`` by 15 degrees, ``zoomed`` by 1.25 or its inverse, ``shifted`` by 15 % of the width.
        """
        either = torch.from_numpy(random.choice([-1.0, 1.0], size=(3, len(images)))).to(images)
        direction = torch.from_numpy(random.uniform(0.0, 2.0 * math.pi, len(images))).to(images)
        turned, zoomed, shifted = (identity(len(images), images) for _ in range(3))
        turned[:, 4] = math.radians(WORSE_DEGREES) * either[0]
        zoomed[:, :2] = (WORSE_ZOOM ** either[1])[:, None]
        shifted[:, 2], shifted[:, 3] = 2 * WORSE_SHIFT * direction.cos(), 2 * WORSE_SHIFT * direction.sin()
        return {
            "turned": in_pose(images, turned),
            "zoomed": in_pose(images, zoomed),
            "shifted": in_pose(images, shifted),
        }

    def _terms(self, images: torch.Tensor) -> torch.Tensor:
        """Return the weighted terms of a batch, ``(N, 4)``, each 0 or less."""
        psi = self.network.pose(images)
        away = softened(psi - identity(len(psi), psi), self.tolerance * self.network.tolerance)
        lacking = (self.network.typical - self.network.likeness(images, psi)).clamp_min(0.0)
        terms = torch.stack((away[:, :2].sum(dim=1), away[:, 2:4].sum(dim=1), away[:, 4], lacking), dim=1)
        return -terms * terms.new_tensor(self.weights)


def softened(away: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
    """Return Huber's function of ``(N, K)`` deviations with the bend at ``(K,)`` ``usual``; |d| where that is 0."""
    size, bend = away.abs(), usual.clamp_min(1e-12)
    return torch.where(size < usual, away.square() / (2.0 * bend), size - usual / 2.0)


def posture_reward(path: Path | None, settings: Mapping[str, Any], device: torch.device) -> PostureReward:
    """Build the reward from the folder of an alignment network; settings as in :class:`PostureReward`."""
    check_settings("posture", settings, SETTINGS)
    return PostureReward(AlignmentNetwork.load(need_path("posture", path), device), **settings)
