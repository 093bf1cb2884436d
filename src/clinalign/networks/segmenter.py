"""The segmenter: a small U-Net that says of every pixel which regions (findings, lung fields, lesion) it belongs to.

Encoder: the feature maps of any timm network. Decoder: after U-Net (Ronneberger et al., MICCAI 2015), one convolution
a level. The finest level is the encoder's first (half the picture's side, mostly), from where each pixel of the map is
spread over the pixels beneath it (sub-pixel convolution, Shi et al., CVPR 2016): convolutions at full size would cost
more than all others together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.images import resize
from clinalign.networks.backbones import create_pyramid
from clinalign.networks.classifier import IMAGENET_MEAN, IMAGENET_STD, check_image_batch
from clinalign.networks.network_folder import fill_network, hash_weights, read_card, save_network
from clinalign.networks.place_rules import PlaceRules

KIND = "region"
WIDTH = 64  # channels of the coarsest decoder level


class Segmenter(nn.Module):
    """One sigmoid map a region.

    Args:
        regions: The R regions, in the order of the maps.
        image_size: Side in pixels at which the network looks; images of any other size are resized to it.
        backbone: timm name of the encoder.
        rules: How places are read off the maps; plain thirds and halves by default.

    Raises:
        UserError: For an unknown backbone or one without feature maps, or no region.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        regions: Sequence[str],
        image_size: int,
        backbone: str = "test_resnet",
        rules: PlaceRules | None = None,
    ) -> None:
        super().__init__()
        if not regions:
            raise UserError("a segmenter needs at least one region")
        self.regions = tuple(regions)
        self.image_size = image_size
        self.backbone_name = backbone
        self.rules = rules or PlaceRules()
        self.card: dict[str, Any] = {}
        self.encoder, channels, reductions = create_pyramid(backbone, image_size)
        self.finest = reductions[0]
        levels, width = [], channels[-1]
        for level, skip in enumerate(channels[-2::-1]):
            after = max(WIDTH * 3 // (3 + level), 24)  # fewer channels where there are more pixels
            levels.append(_level(width + skip, after))
            width = after
        self.decoder = nn.ModuleList(levels)
        self.head = nn.Conv2d(width, len(self.regions) * self.finest**2, 1)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def identity(self) -> str:
        """``segmenter:<backbone>:<weights hash>:<rules hash>``; others measure something else."""
        return f"segmenter:{self.backbone_name}:{hash_weights(self)}:{self.rules.identity}"

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.mean.device

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to logits ``(N, R, image_size, image_size)``.

        Differentiable in the images, and always computed in float32, also inside an autocast region.
        """
        check_image_batch(images)
        with torch.autocast(images.device.type, enabled=False):
            maps = self.encoder((resize(images.float(), self.image_size) - self.mean) / self.std)
            found = maps[-1]
            for level, skip in zip(self.decoder, maps[-2::-1], strict=True):
                found = level(torch.cat([F.interpolate(found, size=skip.shape[-2:]), skip], dim=1))
            logits: torch.Tensor = F.pixel_shuffle(self.head(found), self.finest)
        return logits

    def maps(self, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
        """Return soft masks ``(N, R, image_size, image_size)`` in ``[0, 1]`` on the network's device.

        With gradients where ``images`` require them.
        """
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()):
            parts = [torch.sigmoid(self(part)) for part in torch.split(images.to(self.device), batch_size)]
        size = self.image_size
        return torch.cat(parts) if parts else torch.empty((0, len(self.regions), size, size), device=self.device)

    def save(self, folder: Path) -> None:
        """Write ``folder/model.safetensors`` and ``folder/card.json``, whole or not at all."""
        card = {
            **self.card,
            "kind": KIND,
            "backbone": self.backbone_name,
            "image_size": self.image_size,
            "regions": list(self.regions),
            "rules": self.rules.to_json(),
            "identity": self.identity,
        }
        self.card = save_network(folder, self, card)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Segmenter:
        """Open a folder written by :meth:`save`, in evaluation mode.

        Raises:
            UserError: When a part is missing or damaged, or only a pickle is there (never loaded: it can run code).
        """
        folder = Path(folder)
        card = read_card(folder, KIND)
        try:
            model = cls(card["regions"], card["image_size"], card["backbone"], PlaceRules.from_json(card["rules"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"cannot read the segmenter in {folder}: train it again with 'clinalign train reward region'"
            ) from error
        fill_network(model, folder, card)
        model.card = card
        return model.to(device).eval()


def _level(inside: int, outside: int) -> nn.Sequential:
    """Return one level of the decoder."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )
