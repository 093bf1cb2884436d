"""Several models of one kind as one cautious reward: what they agree on counts, what one of them loves alone does not.

r = mean_m r_m - k std_m r_m over M members that were trained apart (another seed, split, backbone). A generator that
finds the blind spot of one member raises the spread along with the mean. After Coste et al. 2024 (reward model
ensembles help mitigate overoptimization, arXiv 2310.02743, uncertainty-weighted optimisation), with std in the place of
the variance, so that k has no unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json
from clinalign.core.registry import Registry
from clinalign.core.types import Case, Reward, RewardResult

_NO_SPREAD = 1e-12  # variance below which members agree; the root has no gradient at 0


class EnsembleReward:
    """Mean of the members' scores minus ``k`` times their (population) standard deviation.

    Differentiable in the images where the members are. A sample is valid where every member's score is. Parts: ``mean``
    and ``spread``, NaN where it is not valid.

    Args:
        members: Two rewards or more, of different weights.
        k: Caution; 0 is the mean.

    Raises:
        UserError: With fewer than two members, two of the same weights, or a negative k.
    """

    name = "ensemble"

    def __init__(self, members: Sequence[Reward], k: float = 1.0) -> None:
        identities = sorted(member.identity for member in members)
        if len(members) < 2:
            raise UserError(f"an ensemble needs two members or more, got {len(members)}: name more folders")
        if len(set(identities)) < len(identities):
            raise UserError(
                "two members of the ensemble are the same model, which agrees with itself: train another one "
                "(another --seed or --backbone)"
            )
        if isinstance(k, bool) or not isinstance(k, int | float) or not 0 <= k < float("inf"):
            raise UserError(f"k of reward 'ensemble' must be a number of 0 or more, got {k}")
        self.members = list(members)
        self.k = float(k)
        self.identity = f"ensemble:k={self.k:g}:{hash_json(identities)}"
        self.model_identity = self.identity
        # What a wrong case or a worse image is, the kind of reward knows, whichever member is asked.
        for method in ("wrong_cases", "worse_images"):
            if hasattr(members[0], method):
                setattr(self, method, getattr(members[0], method))

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        """Score ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` against ``cases`` with every member."""
        results = [member(images, cases) for member in self.members]
        valid = torch.stack([result.valid & torch.isfinite(result.values) for result in results]).all(dim=0)
        # a masked value may be NaN, and 0 * NaN is NaN in the gradient too: choose before counting
        scores = torch.stack([torch.where(valid, result.values, 0.0) for result in results])
        mean, variance = scores.mean(dim=0), scores.var(dim=0, correction=0)
        spread = torch.where(variance > _NO_SPREAD, variance.clamp_min(_NO_SPREAD).sqrt(), 0.0)
        parts = {"mean": mean, "spread": spread}
        hidden = {name: values.detach().masked_fill(~valid, torch.nan) for name, values in parts.items()}
        return RewardResult(mean - self.k * spread, valid, hidden)


def ensemble_reward(
    kinds: Registry[Any], path: Path | None, settings: Mapping[str, Any], device: torch.device
) -> EnsembleReward:
    """Build the reward.

    Args:
        kinds: The rewards by name.
        path: None: an ensemble has the folders of its members.
        settings: ``of`` (name of the members' kind), ``members`` (their folders), ``k``, and the settings that all
            members share.
        device: Where they compute.

    Raises:
        UserError: For a missing or unknown kind, too few members, or what a member refuses.
    """
    if path is not None:
        raise UserError(f"reward 'ensemble' takes a list of folders as its members, and no path {path}")
    shared = dict(settings)
    kind, folders, k = shared.pop("of", None), shared.pop("members", ()), shared.pop("k", 1.0)
    if kind is None:
        raise UserError("reward 'ensemble' needs the kind of its members: give it settings.of, for example attributes")
    if kind == "ensemble":
        raise UserError("reward 'ensemble' cannot be made of ensembles: name the kind of its members")
    factory = kinds.get(str(kind))
    if isinstance(folders, str | Path) or not isinstance(folders, Sequence):
        raise UserError(f"members of reward 'ensemble' must be a list of folders, got {folders}")
    return EnsembleReward([factory(Path(folder), shared, device) for folder in folders], k)
