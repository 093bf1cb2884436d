"""The two rounds in which the alignment network learns, and what it then keeps of real films (R, all of it).

Round 1 takes every film as canonical and learns the random poses that it is put into. Films are not canonical, but
their own poses are small against the random ones, so that this network already tells them. Round 2 learns from random
poses composed with the films' own ones, as round 1 saw them and re-centred so that their mean is the identity; and a
small image loss asks that each aligned film resembles the canonical one, the mean of all aligned training films.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError
from clinalign.core.images import to_uint8
from clinalign.core.seeds import derive_seed
from clinalign.networks.affine import identity, invert, matrix, nearest_psi, warp
from clinalign.networks.alignment import AlignmentNetwork, coarse_grey
from clinalign.networks.fit import FitResult, FitSettings, Labelled, fit, predict
from clinalign.networks.warps import Warps, in_pose, random_views

VIEWS_OF_VALIDATION = 4  # random poses of each film: a steadier validation score from few films
HUBER = 0.05  # bend of the regression loss, in psi's units: about 3 degrees, 5 % of scale, 2.5 % of the width


@dataclass(frozen=True)
class PostureSettings:
    """What is special to the alignment network; all of it R.

    Attributes:
        hidden: Width of the layer between feature map and psi.
        image_weight: Weight of the image loss of round 2, 1 minus the likeness to the canonical film.
        first_round: Share of epochs and seconds that round 1 takes.
        usual: Share of real films whose deviation is within the tolerance (see :class:`rewards.posture.PostureReward`).
        typical: Share of real films whose likeness to the canonical film is enough.

    Raises:
        UserError: For a value out of range.
    """

    hidden: int = 128
    image_weight: float = 0.05
    first_round: float = 0.4
    usual: float = 0.9
    typical: float = 0.95

    def __post_init__(self) -> None:
        """Check every value."""
        limits = {"hidden": (1, 4096), "image_weight": (0, 10), "first_round": (0.1, 0.9)}
        for entry in fields(self):
            low, high = limits.get(entry.name, (0.5, 1))
            value, whole = getattr(self, entry.name), entry.name == "hidden"
            wanted = int if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, wanted) or not low <= value <= high:
                kind = "whole number" if whole else "number"
                raise UserError(f"{entry.name} must be a {kind} from {low} to {high}, got {value!r}")


def train_rounds(
    model: AlignmentNetwork,
    train: Labelled,
    validation: Labelled,
    own: PostureSettings,
    warps: Warps,
    whole: FitSettings,
) -> list[FitResult]:
    """Run both rounds on ``model`` in place; the second starts from the weights of the first."""
    first = max(1, round(own.first_round * whole.epochs))
    results = []
    for number, epochs in enumerate((first, max(1, whole.epochs - first)), start=1):
        share = own.first_round if number == 1 else 1.0 - own.first_round
        settings = FitSettings(
            **{
                **asdict(whole),
                "epochs": epochs,
                "seconds": whole.seconds * share if whole.seconds else None,
                "seed": derive_seed(whole.seed, "round", number),
            }
        )
        if number == 2:
            train, validation = _own_poses(model, train, validation)
        results.append(_fit_round(model, train, validation, warps, settings, own.image_weight if number == 2 else 0.0))
    return results


def _fit_round(
    model: AlignmentNetwork, train: Labelled, validation: Labelled, warps: Warps, settings: FitSettings, weight: float
) -> FitResult:
    """Fit ``model`` to the random poses of films whose own poses are their labels."""

    def vary(
        images: torch.Tensor, poses: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        moved, maps = random_views(images, matrix(poses), warps, generator)
        return moved, nearest_psi(maps)

    def forward(images: torch.Tensor) -> torch.Tensor:
        psi = model.pose(images)
        unlike = 1.0 - model.likeness(images, psi) if weight else torch.zeros_like(psi[:, 0])
        return torch.cat((psi, unlike[:, None]), dim=1)

    def loss(outputs: torch.Tensor, poses: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return F.smooth_l1_loss(outputs[:, :5], poses, beta=HUBER) + weight * outputs[:, 5].mean()

    def score(outputs: torch.Tensor, poses: torch.Tensor, _: torch.Tensor) -> float:
        return -(outputs[:, :5] - poses).abs().mean().item()

    return fit(model, train, _moved(validation, warps), settings, loss, score, forward, "learning posture", vary)


def _moved(films: Labelled, warps: Warps) -> Labelled:
    """Return several views of each film in random poses, the same whatever the seed of training."""
    generator = torch.Generator().manual_seed(derive_seed("posture validation"))
    views, poses = [], []
    for _ in range(VIEWS_OF_VALIDATION):
        added = warps.draw(len(films), generator)
        views.append(to_uint8(in_pose(films.images.float() / 255.0, added)))
        poses.append(nearest_psi(matrix(added) @ matrix(films.labels)))
    labels = torch.cat(poses)
    return Labelled(torch.cat(views), labels, torch.ones_like(labels).bool())


def _own_poses(model: AlignmentNetwork, train: Labelled, validation: Labelled) -> tuple[Labelled, Labelled]:
    """Label films with their own poses, re-centred on the training films, and set the canonical film."""
    psi = [predict(model.pose, films, model.device) for films in (train, validation)]
    # Pose P maps canonical to film. With the mean pose C as the new origin it is P C^-1, whose mean is the identity.
    centre = invert(matrix(psi[0].mean(dim=0, keepdim=True)))
    relabelled = [
        Labelled(films.images, nearest_psi(matrix(own) @ centre), films.known)
        for films, own in zip((train, validation), psi)
    ]
    model.canonical.copy_(mean_film(relabelled[0].images, relabelled[0].labels))
    return relabelled[0], relabelled[1]


def mean_film(images: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    """Return the coarse mean of ``(N, 3, H, W)`` uint8 films aligned by their poses ``(N, 5)``, ``(1, 1, 32, 32)``."""
    total = torch.zeros(1)
    for rows, psi in zip(torch.split(images, 256), torch.split(poses, 256)):
        total = total + coarse_grey(warp(rows.float() / 255.0, matrix(psi))).sum(dim=0, keepdim=True)
    return total / len(images)


def calibrate(model: AlignmentNetwork, train: Labelled, films: Labelled, own: PostureSettings) -> None:
    """Write into ``model`` what is usual in real films.

    Round 2 learns poses whose mean is the identity, and answers with a mean a per cent or two away from it. What is
    left over on the training films is taken off every answer. How far films deviate, and how like the canonical one
    they are when aligned, is measured on others, the validation films.
    """
    model.centre.copy_((predict(model.pose, train, model.device) - identity(len(train))).mean(dim=0))
    psi = predict(model.pose, films, model.device)
    away = (psi - identity(len(psi))).abs()
    images = films.images.float() / 255.0
    with torch.no_grad():
        likeness = model.likeness(images.to(model.device), psi.to(model.device)).cpu()
    model.tolerance.copy_(away.quantile(own.usual, dim=0))
    model.typical.copy_(likeness.quantile(1.0 - own.typical))
