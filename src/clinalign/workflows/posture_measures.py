"""What an alignment network and the reward made of it are worth, on films that they were not trained on.

Nobody labelled how a real film stands. Three things can be measured all the same: whether a known warp changes the
estimate by what it should (on phantoms also whether the estimate is the truth), whether the score falls the further a
film is warped, and whether it depends on what it should not, such as an effusion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.intervals import bootstrap, mean_interval, weighted_mean
from clinalign.networks.affine import NAMES, identity, invert, matrix, nearest_psi, warp
from clinalign.networks.alignment import AlignmentNetwork
from clinalign.networks.warps import Warps, in_pose
from clinalign.rewards.posture import PostureReward

VIEWS = 3  # random poses of each film
BATCH = 256
MINIMUM = 5  # films with an attribute, and without, for a difference to be stated
UNITS = {"degrees": ([4], math.degrees(1.0)), "scale": ([0, 1], 100.0), "shift": ([2, 3], 50.0)}
# Name of a ladder: number(s) of psi that change, and their values on the rungs after the unwarped film.
LADDERS: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {
    "turned_clockwise": ((4,), (5.0, 10.0, 15.0, 20.0)),
    "turned_back": ((4,), (-5.0, -10.0, -15.0, -20.0)),
    "zoomed_in": ((0, 1), (1.05, 1.1, 1.15, 1.2, 1.25)),
    "zoomed_out": ((0, 1), (0.95, 0.9, 0.85, 0.8)),
    "shifted_right": ((2,), (0.05, 0.1, 0.15, 0.2)),
    "shifted_left": ((2,), (-0.05, -0.1, -0.15, -0.2)),
    "shifted_down": ((3,), (0.05, 0.1, 0.15, 0.2)),
    "shifted_up": ((3,), (-0.05, -0.1, -0.15, -0.2)),
}


def measure(
    model: AlignmentNetwork, dataset: PreparedDataset, cases: Sequence[Case], images: torch.Tensor, warps: Warps
) -> dict[str, Any]:
    """Measure ``model`` and the reward with its default settings.

    Args:
        model: Trained and calibrated, in evaluation mode.
        dataset: Where the cases are from.
        cases: Films that it was not trained on.
        images: Theirs, ``(N, 3, H, W)`` uint8.
        warps: The random poses of the error; those of training.

    Returns:
        Plain values; every interval is a bootstrap over patients:
        ``error``: mean absolute error under known random poses in ``degrees``, per cent of ``scale`` and per cent of
        the width (``shift``), against the pose composed with the film's own estimated one; ``error_as_canonical``:
        the same with every film taken as canonical, which adds how patients differ; ``own_pose``: mean absolute
        deviation of unwarped films; ``score`` of unwarped films, ``score_plain`` without tolerance and likeness;
        ``parts``; ``ladders``; ``attributes``: score with less score without; on phantoms ``truth``.
    """
    groups = [case.group_id or case.case_id for case in cases]
    films = images.float() / 255.0
    own = _poses(model, films)
    reward = PostureReward(model)
    result = reward(films, cases)
    plain = PostureReward(model, likeness_weight=0.0, tolerance=0.0)(films, cases).values
    metrics: dict[str, Any] = {
        "split": "test",
        "n": len(cases),
        **_errors(model, films, own, warps, groups),
        "own_pose": _in_units((own - identity(len(own))).abs(), groups),
        "score": mean_interval(result.values.cpu(), groups=groups).to_json(),
        "score_plain": mean_interval(plain.cpu(), groups=groups).to_json(),
        "parts": {name: part.mean().item() for name, part in result.parts.items()},
        "tolerance": dict(zip(NAMES, model.tolerance.tolist())),
        "typical_likeness": model.typical.item(),
        "ladders": {name: _ladder(reward, films, own, cases, groups, name) for name in LADDERS},
        "attribute_differences": _differences(result.values.cpu(), dataset, cases, groups),
    }
    truth = _truth(own, dataset, cases)
    if truth:
        metrics["truth"] = truth
    error = {unit: entry["value"] for unit, entry in metrics["error"].items()}
    metrics["summary"] = (
        f"error {error['degrees']:.1f} degrees, {error['scale']:.1f} % of scale, {error['shift']:.1f} % of the width; "
        f"unwarped films score {metrics['score']['value']:.3f}"
    )
    return metrics


def _poses(model: AlignmentNetwork, films: torch.Tensor) -> torch.Tensor:
    """Return the estimated poses ``(N, 5)`` without gradients, on the CPU."""
    with torch.no_grad():
        return torch.cat([model.pose(part.to(model.device)).cpu() for part in torch.split(films, BATCH)])


def _in_units(away: torch.Tensor, groups: Sequence[str]) -> dict[str, Any]:
    """Return the mean of ``(N, 5)`` absolute differences in degrees, per cent of scale, per cent of the width."""
    return {
        name: mean_interval(away[:, which].mean(dim=1) * factor, groups=groups).to_json()
        for name, (which, factor) in UNITS.items()
    }


def _errors(
    model: AlignmentNetwork, films: torch.Tensor, own: torch.Tensor, warps: Warps, groups: Sequence[str]
) -> dict[str, Any]:
    """Return the errors under known random poses, a mean over views for each film."""
    generator = torch.Generator().manual_seed(derive_seed("posture test"))
    composed, canonical = torch.zeros_like(own), torch.zeros_like(own)
    for _ in range(VIEWS):
        added = warps.draw(len(films), generator)
        found = _poses(model, in_pose(films, added))
        composed += (found - nearest_psi(matrix(added) @ matrix(own))).abs() / VIEWS
        canonical += (found - added).abs() / VIEWS
    return {"error": _in_units(composed, groups), "error_as_canonical": _in_units(canonical, groups)}


def _ladder(
    reward: PostureReward,
    films: torch.Tensor,
    own: torch.Tensor,
    cases: Sequence[Case],
    groups: Sequence[str],
    name: str,
) -> dict[str, Any]:
    """Score films further and further from where they were.

    Returns:
        ``rungs`` and the mean ``scores`` on them, the unwarped film first; ``falls``, the share of films whose score
        falls with every step; ``steps``, the share of steps on which it falls; ``ends_lower``, the share of films that
        score less on the last rung than on the first; ``spearman``, the mean over films of the rank correlation of
        score and distance (-1 is best). A film that leans left gains by the first step to the right: ``from_upright``
        has the four again, with every film first brought upright by its own estimated pose.
    """
    numbers, values = LADDERS[name]
    rungs = [1.0 if numbers == (0, 1) else 0.0, *values]
    poses = []
    for value in rungs:
        pose = identity(1)
        pose[:, numbers] = math.radians(value) if numbers == (4,) else value if numbers == (0, 1) else 2.0 * value
        poses.append(invert(matrix(pose)))
    as_found, brought = (
        torch.stack([reward(warp(films, start @ pose), cases).values.cpu() for pose in poses], dim=1)
        for start in (matrix(identity(len(films))), matrix(own))
    )
    return {
        "rungs": rungs,
        "scores": as_found.mean(dim=0).tolist(),
        **_falling(as_found, groups),
        "from_upright": _falling(brought, groups),
    }


def _falling(scores: torch.Tensor, groups: Sequence[str]) -> dict[str, Any]:
    """Return how surely ``(N, rungs)`` scores fall (see :func:`_ladder`)."""
    from scipy.stats import rankdata

    falling = scores.diff(dim=1) < 0
    # Spearman's correlation is Pearson's of the ranks; taken as 0 for a film whose score never changes.
    ranks = torch.from_numpy(rankdata(scores.numpy(), axis=1)) - (scores.shape[1] + 1) / 2
    rungs = torch.arange(scores.shape[1]) - (scores.shape[1] - 1) / 2
    spread = (ranks.square().sum(dim=1) * rungs.square().sum()).sqrt()
    shares = {
        "falls": falling.all(dim=1).float(),
        "steps": falling.float().mean(dim=1),
        "ends_lower": (scores[:, -1] < scores[:, 0]).float(),
        "spearman": (ranks * rungs).sum(dim=1) / spread.clamp_min(1e-9),
    }
    return {key: mean_interval(each, groups=groups).to_json() for key, each in shares.items()}


def _differences(
    scores: torch.Tensor, dataset: PreparedDataset, cases: Sequence[Case], groups: Sequence[str]
) -> dict[str, Any]:
    """Return, for each attribute, the mean score of films with it less that of films without, with its interval."""
    labels, known = dataset.labels(cases)
    out = {}
    for k, name in enumerate(dataset.attribute_names):
        present, absent = (known[:, k] & (labels[:, k] == answer) for answer in (1, 0))
        if min(int(present.sum()), int(absent.sum())) < MINIMUM:
            continue
        with_it, without = (torch.where(rows, scores, torch.nan) for rows in (present, absent))
        difference = bootstrap(
            lambda w, a=with_it, b=without: weighted_mean(a, w) - weighted_mean(b, w),  # type: ignore[misc]
            len(scores),
            groups=groups,
            counted=int(present.sum()),
        )
        out[name] = difference.to_json()
    return out


def _truth(own: torch.Tensor, dataset: PreparedDataset, cases: Sequence[Case]) -> dict[str, Any]:
    """Compare the estimated poses of phantoms with how they were drawn; empty for real films.

    Returns:
        For ``rotation`` (degrees), ``zoom`` (per cent), ``shift_x`` and ``shift_y`` (per cent of the width): Pearson's
        ``correlation``, ``slope`` of the estimate on the truth, and mean absolute ``error`` as estimated.
    """
    drawn = [dataset.parameters(case) for case in cases]
    estimates = {
        "rotation": (own[:, 4], math.degrees(1.0), math.radians(1.0)),
        "zoom": (own[:, :2].prod(dim=1).sqrt(), 100.0, 1.0),
        "shift_x": (own[:, 2], 50.0, 2.0),
        "shift_y": (own[:, 3], 50.0, 2.0),
    }
    out: dict[str, Any] = {}
    for name, (found, unit, to_psi) in estimates.items():
        if any(name not in parameters for parameters in drawn):
            continue
        true = torch.tensor([parameters[name] * to_psi for parameters in drawn])
        if true.std() == 0 or found.std() == 0:
            continue
        covariance = torch.cov(torch.stack((found, true)))
        out[name] = {
            "correlation": (covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt()).item(),
            "slope": (covariance[0, 1] / covariance[1, 1]).item(),
            "error": ((found - true).abs().mean() * unit).item(),
        }
    return out
