"""An image encoder that also knows where things are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from clinalign.core.images import resize
from clinalign.networks.backbones import create_backbone
from clinalign.networks.classifier import IMAGENET_MEAN, IMAGENET_STD, check_image_batch

GRID, GRID_CHANNELS = 4, 48


class ImageTower(nn.Module):
    """A timm backbone, its pooled features, and a coarse grid of its last feature map.

    Averaging over the picture forgets on which side a finding lies. The grid (up to 4 x 4 cells of 48 channels, in
    order) keeps it. Backbones without a feature map ``(N, C, H, W)``, such as vision transformers, mark places
    themselves and go without.

    Args:
        backbone: timm name.
        image_size: Side in pixels at which the network looks; other sizes are resized.
        width: Of the result.
        dropout: Rate before the last layer while training.
        weights: Local safetensors file with pretrained backbone weights.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, backbone: str, image_size: int, width: int, dropout: float = 0.0, weights: Path | None = None
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.backbone, pooled = create_backbone(backbone, image_size, weights)
        with torch.no_grad():
            shape = self.backbone.eval().forward_features(torch.zeros(1, 3, image_size, image_size)).shape  # type: ignore[operator]
        self.backbone.train()
        self.cells = min(GRID, *shape[2:]) if len(shape) == 4 and shape[1] == self.backbone.num_features else 0
        if self.cells > 1:
            self.reduce = nn.Conv2d(int(shape[1]), GRID_CHANNELS, 1)
            pooled += GRID_CHANNELS * self.cells**2
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(pooled, width))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]``, any size, to ``(N, width)``; differentiable, in float32.

        Raises:
            UserError: For anything that is not such a batch.
        """
        check_image_batch(images)
        with torch.autocast(images.device.type, enabled=False):
            prepared = (resize(images.float(), self.image_size) - self.mean) / self.std
            features = self.backbone.forward_features(prepared)  # type: ignore[operator]
            parts = [self.backbone.forward_head(features, pre_logits=True)]  # type: ignore[operator]
            if self.cells > 1:
                grid = nn.functional.adaptive_avg_pool2d(self.reduce(features), self.cells)
                parts.append(grid.flatten(1))
            embedded: torch.Tensor = self.head(torch.cat(parts, dim=1))
        return embedded
