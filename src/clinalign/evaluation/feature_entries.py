"""Fidelity as entries of ``metrics.json``: features of generated images against those of real ones.

Every entry has its real-against-real floor beside it. Radiomics features, which have units of their own, give FRD;
those of a network FID, KID, precision, recall, density and coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from clinalign.evaluation.entries import Entries
from clinalign.evaluation.fidelity import fid_extrapolated, fid_interval, kid_interval
from clinalign.evaluation.floor import FIDELITY_METRICS, distance_values, floor_values, frechet_value
from clinalign.evaluation.intervals import Estimate, mean_interval
from clinalign.evaluation.manifold import manifold_scores
from clinalign.evaluation.radiomics import is_radiomics, normalise


def feature_entries(
    x: torch.Tensor,
    y: torch.Tensor,
    identity: str,
    *,
    groups_x: Sequence[str],
    groups_y: Sequence[str],
    with_floor: bool = True,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Return what an extractor's features tell: :func:`frd_entries` of radiomics, else :func:`fidelity_entries`."""
    measure = frd_entries if is_radiomics(identity) else fidelity_entries
    return measure(
        x, y, identity, groups_x=groups_x, groups_y=groups_y, with_floor=with_floor, replicates=replicates, seed=seed
    )


def fidelity_entries(
    x: torch.Tensor,
    y: torch.Tensor,
    identity: str,
    *,
    groups_x: Sequence[str],
    groups_y: Sequence[str],
    k: int = 5,
    with_floor: bool = True,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Compare features of generated images ``y`` ``(N, D)`` with real ones ``x`` ``(M, D)``.

    FID and KID resample both sets, by the influence of each image. Precision and density resample the generated images,
    recall and coverage the real ones, given the other set: images drawn twice would be each other's nearest neighbour
    and spoil the balls.

    Args:
        x: Reference features.
        y: Features to judge.
        identity: The extractor's.
        groups_x: Patient, lesion or case of each real image.
        groups_y: The same of each generated image.
        k: Neighbours of precision, recall, density and coverage.
        with_floor: False when ``y`` is real too; its values are then their own floor.
        replicates: Resamples.
        seed: Same seed, same entries.

    Returns:
        ``fidelity/`` fid, kid, precision, recall, density, coverage. Each has ``n`` and ``n_reference`` (images),
        ``extractor``, ``floor`` (real against real with ``floor_n`` images a side) and ``at_floor_n`` (generated
        against real with as many: what the floor is to be compared with). FID also has ``extrapolated``, to infinitely
        many images, where both sets have more than twice as many images as features.

    Raises:
        UserError: With too few images or groups.
    """
    scores = manifold_scores(x, y, k)
    sides = (groups_y, groups_x, groups_y, groups_x)
    estimates: list[Estimate] = [
        fid_interval(x, y, groups_x, groups_y, replicates, seed),
        kid_interval(x, y, groups_x, groups_y, replicates, seed),
        *(
            mean_interval(score, groups=groups, replicates=replicates, seed=seed)
            for score, groups in zip(scores, sides, strict=True)
        ),
    ]
    floor = generated = torch.tensor([estimate.value for estimate in estimates], dtype=torch.float64)
    floor_n = min(len(x), len(y))
    if with_floor:
        floor, generated, floor_n = floor_values(x, y, groups_x, k, seed=seed)
    entries = {
        f"fidelity/{name}": _beside_floor(estimate, (len(x), len(y)), identity, floor[index], generated[index], floor_n)
        for index, (name, estimate) in enumerate(zip(FIDELITY_METRICS, estimates, strict=True))
    }
    if min(len(x), len(y)) > 2 * x.shape[1]:  # from fewer images FID is not yet a line in 1/n
        entries["fidelity/fid"]["extrapolated"] = fid_extrapolated(x, y, seed=seed)
    return entries


def distance_entries(
    x: torch.Tensor,
    y: torch.Tensor,
    identity: str,
    *,
    groups_x: Sequence[str],
    groups_y: Sequence[str],
    most: int = 1000,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Compare features by ``fidelity/fid`` and ``fidelity/kid`` alone: what a part of the images, as a subgroup, gets.

    Arguments and entries as in :func:`fidelity_entries`; ``most`` is the largest n of the floor.
    """
    estimates = (
        fid_interval(x, y, groups_x, groups_y, replicates, seed),
        kid_interval(x, y, groups_x, groups_y, replicates, seed),
    )
    floor, generated, n = floor_values(x, y, groups_x, seed=seed, measure=distance_values, most=most)
    return {
        f"fidelity/{name}": _beside_floor(estimate, (len(x), len(y)), identity, floor[index], generated[index], n)
        for index, (name, estimate) in enumerate(zip(("fid", "kid"), estimates, strict=True))
    }


def frd_entries(
    x: torch.Tensor,
    y: torch.Tensor,
    identity: str,
    *,
    groups_x: Sequence[str],
    groups_y: Sequence[str],
    with_floor: bool = True,
    replicates: int = 1000,
    seed: int = 0,
) -> Entries:
    """Compare radiomics features of generated images ``y`` ``(N, D)`` with real ones ``x`` ``(M, D)`` by FRD.

    The squared Frechet distance after both were normalised by the reference's mean and standard deviation (Konz, Osuala
    et al., arXiv 2412.01496). The paper states its logarithm, which is in ``log`` where it is defined; without it two
    equal sets are at 0, like FID.

    Returns:
        ``fidelity/frd`` with the fields of :func:`fidelity_entries`, and ``features``, how many vary in the reference.
        Empty where none does.
    """
    x, y = normalise(x, y)
    if x.shape[1] == 0:
        return {}
    estimate = fid_interval(x, y, groups_x, groups_y, replicates, seed)
    floor = generated = torch.tensor([estimate.value])
    floor_n = min(len(x), len(y))
    if with_floor:
        floor, generated, floor_n = floor_values(x, y, groups_x, seed=seed, measure=frechet_value)
    entry = _beside_floor(estimate, (len(x), len(y)), identity, floor[0], generated[0], floor_n)
    logarithm = {"log": math.log(estimate.value)} if estimate.value > 0 else {}
    return {"fidelity/frd": {**entry, **logarithm, "features": x.shape[1]}}


def _beside_floor(
    estimate: Estimate,
    sizes: tuple[int, int],
    identity: str,
    floor: torch.Tensor,
    generated: torch.Tensor,
    floor_n: int,
) -> dict[str, Any]:
    """Return one entry; ``sizes`` are the numbers of real and generated images."""
    return {
        **estimate.to_json(),
        "n": sizes[1],
        "n_reference": sizes[0],
        "extractor": identity,
        "floor": float(floor),
        "floor_n": floor_n,
        "at_floor_n": float(generated),
    }
