"""Does a classifier read off the film what its case says? The diagnostic reward of CXRL (Han et al., MICCAI 2024).

r_diag(I) = - mean over the labelled findings k of BCE(G_k(I), L_k). The paper names classifier and labels; its score is
not published (R). Findings that the case does not know, or knows as uncertain, are masked. CXRL compares it with the
anchor's (``feedback: comparative``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError, nearest
from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.xrv import WEIGHTS, XrvClassifier
from clinalign.rewards.attributes import AttributeReward
from clinalign.rewards.settings import check_settings, need_path

BACKENDS = ("own", "torchxrayvision")


class DiagnosticReward(AttributeReward):
    """Mean log-likelihood of the case's findings; as :class:`AttributeReward` with ``log_likelihood``."""

    name = "diagnostic"


def diagnostic_reward(path: Path | None, settings: Mapping[str, Any], device: torch.device) -> DiagnosticReward:
    """Build the reward.

    Args:
        path: Folder of ``train reward attributes``, or a weights file of torchxrayvision.
        settings: ``backend`` (``own`` or ``torchxrayvision``), ``attributes``, ``clip``, ``batch_size``; for
            torchxrayvision also ``weights`` (its name of them) and ``findings`` (our names to theirs).
        device: Where it computes.

    Raises:
        UserError: For an unknown setting, finding or name of weights, or a file that cannot be used.
    """
    check_settings("diagnostic", settings, ("backend", "attributes", "clip", "batch_size", "weights", "findings"))
    place = need_path("diagnostic", path)
    backend = settings.get("backend", "own")
    if backend not in BACKENDS:
        raise UserError(f"unknown backend '{backend}' of reward 'diagnostic': {nearest(str(backend), BACKENDS)}")
    rest = {name: value for name, value in settings.items() if name in ("attributes", "clip", "batch_size")}
    classifier: Any
    if backend == "own":
        for name in ("weights", "findings"):
            if name in settings:
                raise UserError(f"setting '{name}' of reward 'diagnostic' is for backend torchxrayvision: leave it out")
        classifier = AttributeClassifier.load(place, device)
    else:
        weights = settings.get("weights", WEIGHTS)
        classifier = XrvClassifier(place, settings.get("findings"), weights).to(device)
    return DiagnosticReward(classifier, score="log_likelihood", **rest)
