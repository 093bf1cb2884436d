"""How well an encoder tells two pictures of one patient from two of two patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from clinalign.networks.scores import auroc


class Verification(NamedTuple):
    """Cosines of pairs.

    Attributes:
        genuine: ``(G,)`` of two pictures of one patient.
        impostor: ``(I,)`` of pictures of two patients.
        genuine_groups: ``(G,)`` number of the patient of each genuine pair.
    """

    genuine: torch.Tensor
    impostor: torch.Tensor
    genuine_groups: torch.Tensor


def verify(embedded: torch.Tensor, groups: Sequence[str], most: int = 2000) -> Verification:
    """Compare all pairs of ``(N, D)`` unit vectors, in which patients with one picture make impostors only.

    Args:
        embedded: Unit vectors.
        groups: Their patients or lesions.
        most: Pictures that are looked at, the first: pairs grow with the square.
    """
    codes = torch.from_numpy(np.unique(np.asarray(groups[:most]), return_inverse=True)[1])
    first, second = torch.triu_indices(len(codes), len(codes), offset=1)
    cosines = (embedded[:most] @ embedded[:most].T)[first, second]
    same = codes[first] == codes[second]
    return Verification(cosines[same], cosines[~same], codes[first][same])


def verification_auc(found: Verification) -> float:
    """Return the chance that a genuine pair is more alike than an impostor pair, NaN without genuine pairs."""
    scores = torch.cat([found.genuine, found.impostor])
    return auroc(scores, torch.cat([torch.ones_like(found.genuine), torch.zeros_like(found.impostor)]))
