"""An encoder that recognises a patient or lesion: two of its pictures lie near, two strangers' far apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from clinalign.core.errors import UserError
from clinalign.networks.image_tower import ImageTower
from clinalign.networks.network_folder import CARD_FILE, fill_network, hash_weights, read_card, save_network

KIND = "identity"
PAIRS = ("photographs", "augmentations")


class IdentityEncoder(nn.Module):
    """A timm backbone with a coarse grid of places, mapped to unit vectors.

    Args:
        image_size: Side in pixels at which the network looks; other sizes are resized.
        backbone: timm name.
        width: Of the embedding, D.
        dropout: Rate before the last layer while training.
        weights: Local safetensors file with pretrained backbone weights.

    Raises:
        UserError: For an unknown backbone, or weights that do not fit.
    """

    def __init__(
        self,
        image_size: int,
        backbone: str = "test_byobnet",
        width: int = 128,
        dropout: float = 0.0,
        weights: Path | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.backbone_name, self.width, self.dropout = image_size, backbone, width, dropout
        self.card: dict[str, Any] = {}
        self.tower = ImageTower(backbone, image_size, width, dropout, weights)

    @property
    def identity(self) -> str:
        """``identity:<backbone>:<weights hash>:size=<side>``; numbers of other identity are not compared."""
        return f"{KIND}:{self.backbone_name}:{hash_weights(self)}:size={self.image_size}"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]``, any size, to unit vectors ``(N, D)``."""
        return F.normalize(self.tower(images), dim=1)

    def save(self, folder: Path) -> None:
        """Write ``folder/model.safetensors`` and ``folder/card.json``, whole or not at all."""
        card = {
            **self.card, "kind": KIND, "backbone": self.backbone_name, "image_size": self.image_size,
            "width": self.width, "dropout": self.dropout, "identity": self.identity,
        }  # fmt: skip
        self.card = save_network(folder, self, card)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> IdentityEncoder:
        """Open a folder written by :meth:`save`, in evaluation mode.

        Raises:
            UserError: When a part is missing or damaged, is of another kind, or only a pickle is there (never loaded).
        """
        folder = Path(folder)
        if not (folder / CARD_FILE).is_file():
            raise UserError(f"no identity encoder in {folder}: make one with 'clinalign train identity'")
        card = read_card(folder, KIND)
        try:
            model = cls(card["image_size"], card["backbone"], card["width"], card["dropout"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"cannot read the identity encoder in {folder}: train it again with 'clinalign train identity'"
            ) from error
        fill_network(model, folder, card)
        model.card = card
        return model.to(device).eval()
