"""An image encoder and a text encoder into one space, after CLIP (Radford et al., ICML 2021).

The consistency reward of CXRL is the cosine between a picture's and its report's embedding; as evaluator the same
network, with another backbone, width, seed and split, measures what the reward may have been fooled into.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from clinalign.core.errors import UserError
from clinalign.networks.image_tower import ImageTower
from clinalign.networks.network_folder import fill_network, hash_weights, read_card, save_network
from clinalign.networks.text_encoder import (
    TOKENIZER_FOLDER,
    TextEncoder,
    load_tokenizer,
    tokenize,
    tokenizer_hash,
    truncates,
)

KIND = "consistency"
LARGEST_SCALE = 100.0  # of the logits (CLIP, section 2.5)


class ImageTextModel(Protocol):
    """What the consistency reward and the image-text metrics need; an adapter of a foreign model has it too."""

    @property
    def identity(self) -> str:
        """Kind, weights hash and what else decides the embeddings."""
        ...

    @property
    def scale(self) -> torch.Tensor:
        """The learnt inverse temperature, by which cosines become logits."""
        ...

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 3, H, W)`` in ``[0, 1]`` to unit vectors ``(N, D)``, differentiable in the images."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Map N texts to unit vectors ``(N, D)``."""
        ...

    def truncates(self, texts: Sequence[str]) -> tuple[bool, ...]:
        """Tell of each text whether it is longer than the limit and loses its end."""
        ...


class ImageTextPair(nn.Module):
    """The two encoders, each with a linear map into the shared space, and the learnt temperature.

    Args:
        tokenizer: Fitted to the corpus (:func:`clinalign.generation.architecture.fit_tokenizer`).
        image_size: Side at which the image encoder looks; other sizes are resized.
        backbone: timm name of the image encoder.
        width: Of the shared space, D.
        text_width: Of the text encoder.
        text_layers: Depth of the text encoder.
        dropout: Rate before the image encoder's last layer.
        weights: Local safetensors file with pretrained backbone weights.

    Raises:
        UserError: For an unknown backbone, weights that do not fit, or widths that cannot be built.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_size: int,
        backbone: str = "test_resnet",
        width: int = 64,
        text_width: int = 64,
        text_layers: int = 2,
        dropout: float = 0.1,
        weights: Path | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.backbone_name = backbone
        self.settings = {
            "image_size": image_size, "width": width, "text_width": text_width, "text_layers": text_layers,
            "dropout": dropout,
        }  # fmt: skip
        self.card: dict[str, Any] = {}
        self.image_encoder = ImageTower(backbone, image_size, width, dropout, weights)
        self.text_encoder = TextEncoder(
            len(tokenizer), int(tokenizer.model_max_length), text_width, text_layers, 0.0, int(tokenizer.pad_token_id)
        )
        self.text_head = nn.Linear(text_width, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def identity(self) -> str:
        """``consistency:<backbone>:<weights hash>:<tokenizer hash>``; numbers of other identity are not compared."""
        return f"{KIND}:{self.backbone_name}:{hash_weights(self)}:{tokenizer_hash(self.tokenizer)[:8]}"

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.log_scale.device

    @property
    def scale(self) -> torch.Tensor:
        """The inverse temperature by which cosines are multiplied in training, at most 100."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to unit vectors ``(N, D)``: what training calls."""
        return F.normalize(self.image_encoder(images), dim=1)

    def encode_tokens(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map token ids ``(N, L)`` with their mask to unit vectors ``(N, D)``: what training calls."""
        with torch.autocast(ids.device.type, enabled=False):
            return F.normalize(self.text_head(self.text_encoder(ids, mask)), dim=1)

    def embed_images(self, images: torch.Tensor, batch_size: int = 128) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to unit vectors ``(N, D)`` on the model's device.

        Gradients flow where ``images`` require them. The batch size does not change the result.
        """
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()):
            parts = torch.split(images.to(self.device), batch_size)
            return torch.cat([self.encode_images(part) for part in parts])

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
        """Map N texts to unit vectors ``(N, D)`` on the model's device, each distinct text once."""
        if not texts:
            return torch.zeros((0, self.text_head.out_features), device=self.device)
        distinct = list(dict.fromkeys(texts))
        rows = {text: row for row, text in enumerate(distinct)}
        parts = []
        for start in range(0, len(distinct), batch_size):
            ids, mask = tokenize(self.tokenizer, distinct[start : start + batch_size])
            parts.append(self.encode_tokens(ids.to(self.device), mask.to(self.device)))
        return torch.cat(parts)[torch.tensor([rows[text] for text in texts], device=self.device)]

    def truncates(self, texts: Sequence[str]) -> tuple[bool, ...]:
        """Tell of each text whether it is longer than the tokenizer's limit and loses its end."""
        return truncates(self.tokenizer, texts)

    def save(self, folder: Path) -> None:
        """Write weights, card and ``tokenizer/`` to ``folder``, whole or not at all."""
        card = {
            **self.card, "kind": KIND, "backbone": self.backbone_name, **self.settings,
            "tokenizer_hash": tokenizer_hash(self.tokenizer), "identity": self.identity,
        }  # fmt: skip
        self.card = save_network(
            folder, self, card, lambda place: self.tokenizer.save_pretrained(str(place / TOKENIZER_FOLDER))
        )

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> ImageTextPair:
        """Open a folder written by :meth:`save`, in evaluation mode.

        Raises:
            UserError: When a part is missing or damaged, the tokenizer is another than the one trained with, or only a
                pickle is there (never loaded: it can run code).
        """
        folder = Path(folder)
        card = read_card(folder, KIND)
        tokenizer = load_tokenizer(folder)
        if tokenizer_hash(tokenizer) != card.get("tokenizer_hash"):
            raise UserError(f"the tokenizer in {folder} is not the one that its card describes: train it again")
        try:
            names = ("image_size", "width", "text_width", "text_layers", "dropout")
            model = cls(tokenizer, backbone=card["backbone"], **{name: card[name] for name in names})
        except (KeyError, TypeError) as error:
            raise UserError(
                f"cannot read the image-text pair in {folder}: train it again with 'clinalign train reward {KIND}'"
            ) from error
        fill_network(model, folder, card)
        model.card = card
        return model.to(device).eval()
