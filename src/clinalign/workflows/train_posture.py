"""Train the alignment network of the posture reward on frontal chest films, without labels (posture of CXRL, R).

Round 1 takes every film as canonical and learns the random poses that it is put into. Films are not canonical, but their
own poses are small against the random ones, so that this network already tells them. Round 2 learns from random poses
composed with the films' own ones, as round 1 saw them and re-centred so that their mean is the identity; and a small
image loss asks that each aligned film resembles the canonical one, the mean of all aligned training films.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError, nearest
from clinalign.core.files import write_json
from clinalign.core.precision import pick_device
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.affine import identity, invert, matrix, nearest_psi, warp
from clinalign.networks.alignment import AlignmentNetwork, coarse_grey
from clinalign.networks.fit import FitResult, FitSettings, Labelled, fit, predict
from clinalign.networks.labelled_data import read_labelled
from clinalign.networks.warps import Warps, in_pose, random_views
from clinalign.workflows.posture_measures import measure
from clinalign.workflows.reward_folder import check_free, check_split

MODALITY = "chest x-ray"
FRONTAL = ("pa", "ap", "frontal")
MINIMUM_FILMS = 16
LARGEST_VIEW = 32  # pixels: posture is coarse, and a small view sees several times the steps in the same time
DEFAULT_BACKBONE = {"train": "test_resnet", "judge": "test_byobnet"}  # two families, as for attributes
DEFAULT_EPOCHS = {"train": 40, "judge": 60}
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


def train_posture(
    data: Path | str,
    out: Path | str,
    split: str = "train",
    backbone: str | None = None,
    image_size: int | None = None,
    weights: Path | None = None,
    dropout: float = 0.0,
    device: str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Train an alignment network on ``split``, calibrate it on ``validation``, measure it on ``test``.

    Args:
        data: Prepared dataset of chest films; those of a known view that is not frontal are left out.
        out: Folder to make: ``model.safetensors``, ``card.json``, ``metrics.json``.
        split: ``train`` (rewards) or ``judge`` (evaluators); the two never share a patient.
        backbone: timm name; by default another one for ``judge`` than for ``train``.
        image_size: Side at which the network looks; by default the dataset's, at most 32.
        weights: Local safetensors file of pretrained backbone weights.
        dropout: Before the last layer.
        device: ``cpu``, ``cuda`` or ``auto``.
        **settings: Fields of :class:`PostureSettings`, :class:`clinalign.networks.warps.Warps` and
            :class:`clinalign.networks.fit.FitSettings`; ``epochs`` (40, ``judge`` 60) and ``seconds`` are those of both
            rounds together.

    Returns:
        ``summary``, the errors, scores and ladders of :func:`clinalign.workflows.posture_measures.measure`, and how it
        was trained.

    Raises:
        UserError: When the data cannot be used, a setting is unknown or out of range, or ``out`` holds something else.
    """
    data, out = Path(data), Path(out)
    own, warps, fitting = _sort_settings(settings, split)
    check_free(out)
    dataset = PreparedDataset.open(data)
    if dataset.modality != MODALITY:
        raise UserError(
            f"posture is learnt from {MODALITY} films, and {data} holds {dataset.modality}: give other data"
        )
    cases = {name: _frontal(dataset, name) for name in (split, "validation", "test")}
    torch.manual_seed(derive_seed(fitting.seed, "weights"))
    size = image_size or min(dataset.image_size, LARGEST_VIEW)
    model = AlignmentNetwork(size, backbone or DEFAULT_BACKBONE[split], own.hidden, dropout, weights)
    model = model.to(pick_device(device))
    # Warps are made at twice the network's side at most: finer pixels would be averaged away by the network's resize.
    films = {name: _read(dataset, rows, min(dataset.image_size, 2 * size)) for name, rows in cases.items()}
    rounds = _train(model, films[split], films["validation"], own, warps, fitting)
    _calibrate(model, films["validation"], own)
    metrics: dict[str, Any] = {
        **measure(model, dataset, cases["test"], films["test"].images, warps),
        "left_out": {name: len(dataset.cases(name)) - len(rows) for name, rows in cases.items()},
        "epochs": [len(result.history) for result in rounds],
        "best_epochs": [result.best_epoch for result in rounds],
        "seconds": round(sum(result.seconds for result in rounds), 1),
    }
    model.card = {
        "split": split,
        "dataset": dataset.fingerprint,
        "source": dataset.info.get("source"),
        "modality": dataset.modality,
        "calibration": {"tolerance": model.tolerance.tolist(), "typical_likeness": model.typical.item()},
        "metrics": metrics,
        "settings": {**asdict(own), "warps": asdict(warps)},
        "fit": asdict(fitting),
        "history": [result.history for result in rounds],
        "intended_use": "reward or evaluator for research on synthetic images; not for diagnosis",
    }
    model.save(out)
    metrics["identity"] = model.identity
    write_json(out / "metrics.json", metrics)
    return metrics


def _sort_settings(settings: dict[str, Any], split: str) -> tuple[PostureSettings, Warps, FitSettings]:
    """Divide what the user set among the three groups of settings."""
    check_split(split)
    # Its own warps and looks take the place of the recipes, and there is no attribute to weigh.
    fit_names = [entry.name for entry in fields(FitSettings) if entry.name not in ("augmentation", "max_pos_weight")]
    groups = ([entry.name for entry in fields(PostureSettings)], [entry.name for entry in fields(Warps)], fit_names)
    known = [name for group in groups for name in group]
    for name in settings:
        if name not in known:
            raise UserError(f"training posture has no setting '{name}': {nearest(name, known)}")
    own, warps, fitting = ({name: settings[name] for name in settings if name in group} for group in groups)
    fitting = {"augmentation": "none", "epochs": DEFAULT_EPOCHS[split], **fitting}
    return PostureSettings(**own), Warps(**warps), FitSettings(**fitting)


def _frontal(dataset: PreparedDataset, split: str) -> list[Case]:
    """Return the cases of ``split`` but those of a known view that is not frontal."""
    cases = dataset.cases(split)
    kept = [case for case in cases if (case.subgroups.get("view") or FRONTAL[0]).lower() in FRONTAL]
    if len(kept) < MINIMUM_FILMS:
        raise UserError(
            f"{dataset.path} has {len(kept)} frontal films in split '{split}' of {len(cases)} cases, and posture needs "
            f"{MINIMUM_FILMS}: prepare more"
        )
    return kept


def _read(dataset: PreparedDataset, cases: Sequence[Case], size: int) -> Labelled:
    """Read films into memory, each labelled as canonical."""
    images = read_labelled(dataset, cases, (), size).images
    return Labelled(images, identity(len(images)), torch.ones((len(images), 5), dtype=torch.bool))


def _train(
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
    images = films.images.repeat(VIEWS_OF_VALIDATION, 1, 1, 1).float() / 255.0
    added = warps.draw(len(images), generator)
    poses = nearest_psi(matrix(added) @ matrix(films.labels.repeat(VIEWS_OF_VALIDATION, 1)))
    return Labelled.of(in_pose(images, added), poses, torch.ones_like(poses).bool())


def _own_poses(model: AlignmentNetwork, train: Labelled, validation: Labelled) -> tuple[Labelled, Labelled]:
    """Label films with their own poses, re-centred on the training films, and set the canonical film."""
    psi = [predict(model.pose, films, model.device) for films in (train, validation)]
    # Pose P maps canonical to film. Seen from the mean pose C as the new origin it is P C^-1, whose mean is the identity.
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


def _calibrate(model: AlignmentNetwork, films: Labelled, own: PostureSettings) -> None:
    """Write into ``model`` how far real films deviate, and how like the canonical one they are when aligned."""
    psi = predict(model.pose, films, model.device)
    away = (psi - identity(len(psi))).abs()
    images = films.images.float() / 255.0
    with torch.no_grad():
        likeness = model.likeness(images.to(model.device), psi.to(model.device)).cpu()
    model.tolerance.copy_(away.quantile(own.usual, dim=0))
    model.typical.copy_(likeness.quantile(1.0 - own.typical))
