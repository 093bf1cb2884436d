"""The alignment network: how a frontal chest film is scaled, shifted and turned (posture alignment of CXRL).

It regresses psi (see :mod:`clinalign.networks.affine`) of the map that brings a film to the canonical pose, which is
the film's own pose: a chest turned clockwise by 5 degrees has theta = +5 degrees. A spatial transformer (Jaderberg et
al., NeurIPS 2015) of our own making (R: the paper gives no architecture): the feature map of a timm backbone, kept in
its places and not pooled away, two linear layers, and a last layer of zeros, so that an untrained one answers identity.

It keeps what training found out about real films: the canonical mean film, how far their poses deviate, and how like
the canonical film they are once aligned. An image of something else has no pose, whatever the five numbers say; that
likeness tells (:meth:`AlignmentNetwork.likeness`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.images import resize
from clinalign.networks.affine import matrix, warp
from clinalign.networks.backbones import create_backbone
from clinalign.networks.classifier import IMAGENET_MEAN, IMAGENET_STD, check_image_batch
from clinalign.networks.network_folder import fill_network, hash_weights, read_card, save_network

KIND = "posture"
# Scales stay within a factor of e, shifts within three quarters of the width, turns within 90 degrees (R). A score made
# of them has a floor, and far from all training poses the network cannot answer the absurd.
LIMITS = (1.0, 1.0, 1.5, 1.5, math.pi / 2)
SMALLEST_MAP = 4  # places along a side that the feature map must keep
COARSE = 32  # side at which films are compared: postures are coarse, and fine texture differs between patients


class AlignmentNetwork(nn.Module):
    """A timm backbone with a spatial-transformer head.

    Args:
        image_size: Side in pixels at which the network looks; images of any other size are resized to it.
        backbone: Any timm model name that has feature maps.
        hidden: Width of the layer between feature map and psi.
        dropout: Rate before the last layer while training.
        weights: Local safetensors file with pretrained backbone weights; random initialisation without it.

    Attributes:
        canonical: ``(1, 1, 32, 32)`` mean of the aligned training films; zeros before there is one.
        centre: ``(5,)`` taken off every answer, so that the mean pose of the training films is the identity exactly.
        tolerance: ``(5,)`` how far the psi of real films deviate from the identity; zeros before calibration.
        typical: Likeness that nearly all real films reach; -1 before calibration.

    Raises:
        UserError: For an unknown or unsuitable backbone, or weights that do not fit.
    """

    canonical: torch.Tensor
    centre: torch.Tensor
    tolerance: torch.Tensor
    typical: torch.Tensor
    limits: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        image_size: int,
        backbone: str = "test_resnet",
        hidden: int = 128,
        dropout: float = 0.0,
        weights: Path | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.backbone_name = backbone
        self.hidden = hidden
        self.dropout = dropout
        self.card: dict[str, Any] = {}
        self.backbone = create_backbone(backbone, image_size, weights).module
        self._level, features = self._choose_level()
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 5)
        )
        last = self.head[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.register_buffer("canonical", torch.zeros(1, 1, COARSE, COARSE))
        self.register_buffer("centre", torch.zeros(5))
        self.register_buffer("tolerance", torch.zeros(5))
        self.register_buffer("typical", torch.tensor(-1.0))
        self.register_buffer("limits", torch.tensor(LIMITS), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def identity(self) -> str:
        """``alignment:<backbone>:<weights hash>``; the hash covers canonical film and calibration."""
        return f"alignment:{self.backbone_name}:{hash_weights(self)}"

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.canonical.device

    def pose(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]``, any square size, to psi ``(N, 5)``, float32; differentiable.

        Raises:
            UserError: For images that are not float, not of three channels or not square.
        """
        check_image_batch(images)
        if images.shape[-1] != images.shape[-2]:
            raise UserError(f"posture is measured on square images, got {tuple(images.shape[-2:])}: pad or crop them")
        with torch.autocast(images.device.type, enabled=False):
            prepared = (resize(images.float(), self.image_size) - self.mean) / self.std
            raw: torch.Tensor = self.head(self._map(prepared))
            moved = self.limits * torch.tanh(raw / self.limits)
            return torch.cat((moved[:, :2].exp(), moved[:, 2:]), dim=1) - self.centre

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The same as :meth:`pose`."""
        return self.pose(images)

    def align(self, images: torch.Tensor, psi: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``images`` in the canonical pose, by their predicted pose or by ``psi`` ``(N, 5)``."""
        return warp(images, matrix(self.pose(images) if psi is None else psi))

    def likeness(self, images: torch.Tensor, psi: torch.Tensor) -> torch.Tensor:
        """Return how like the canonical film ``images`` are when aligned by ``psi``: ``(N,)`` in ``[-1, 1]``.

        Pearson's correlation over a coarse picture, so that exposure and contrast do not count; 0 for a blank image and
        about 0 for noise. Differentiable.
        """
        coarse = coarse_grey(warp(coarse_grey(images, 2 * COARSE), matrix(psi)))
        return correlation(coarse, self.canonical)

    def save(self, folder: Path) -> None:
        """Write ``folder/model.safetensors`` and ``folder/card.json``, whole or not at all."""
        card = {
            **self.card,
            "kind": KIND,
            "backbone": self.backbone_name,
            "image_size": self.image_size,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "identity": self.identity,
        }
        self.card = save_network(folder, self, card)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> AlignmentNetwork:
        """Open a folder written by :meth:`save`, in evaluation mode.

        Raises:
            UserError: When a part is missing or damaged, is of another kind, or only a pickle is there (never loaded).
        """
        folder = Path(folder)
        card = read_card(folder, KIND)
        try:
            model = cls(card["image_size"], card["backbone"], card["hidden"], card["dropout"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"cannot read the alignment network in {folder}: train it again with 'clinalign train reward posture'"
            ) from error
        fill_network(model, folder, card)
        model.card = card
        return model.to(device).eval()

    def _map(self, prepared: torch.Tensor) -> torch.Tensor:
        """Return the chosen feature map ``(N, C, h, w)``."""
        maps: list[torch.Tensor] = self.backbone.forward_intermediates(  # type: ignore[operator]
            prepared, indices=[self._level], intermediates_only=True, stop_early=True
        )
        return maps[0]

    def _choose_level(self) -> tuple[int, int]:
        """Return the deepest level whose map still has places, and its number of features.

        Averaged over the plane, as for classification, features would hardly know where they were seen.
        """
        probe = torch.zeros(1, 3, self.image_size, self.image_size)
        was_training = self.backbone.training
        try:
            with torch.no_grad():
                maps = self.backbone.eval().forward_intermediates(probe, intermediates_only=True)  # type: ignore[operator]
        except (AttributeError, TypeError) as error:
            raise UserError(
                f"backbone '{self.backbone_name}' gives no feature maps: take another, such as test_resnet"
            ) from error
        self.backbone.train(was_training)
        kept = [level for level, found in enumerate(maps) if found.shape[-1] >= SMALLEST_MAP]
        if not kept:
            raise UserError(
                f"backbone '{self.backbone_name}' keeps no map of {SMALLEST_MAP} x {SMALLEST_MAP} places at "
                f"{self.image_size} px: look at larger images with --image-size"
            )
        return kept[-1], int(maps[kept[-1]][0].numel())


def coarse_grey(images: torch.Tensor, side: int = COARSE) -> torch.Tensor:
    """Return the mean over channels of ``(N, C, H, W)`` at ``side`` pixels, ``(N, 1, side, side)``."""
    return resize(images.float().mean(dim=1, keepdim=True), side)


def correlation(images: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation over the pixels of ``(N, 1, H, W)`` images, ``(N,)``; 0 where one is constant."""
    first, second = (picture.flatten(1) - picture.flatten(1).mean(dim=1, keepdim=True) for picture in (images, other))
    # 1e-4 a pixel is below what 8 bits can show: it keeps a blank image at 0 instead of at chance.
    least = 1e-4 * first.shape[1] ** 0.5
    norms = (first.square().sum(dim=1) + least**2).sqrt() * (second.square().sum(dim=1) + least**2).sqrt()
    found: torch.Tensor = (first * second).sum(dim=1) / norms
    return found
