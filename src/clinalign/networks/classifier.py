"""The attribute classifier: one small timm network that sees which attributes an image shows.

One class serves as reward (trained on ``train``) and, with other weights and another backbone, as evaluator (trained on
``judge``). Its logits live in *balanced* space: 0 means "as likely as not if the attribute were in half of all images",
so that the decision at probability 0.5 (RL4Med-DDPO) does not simply answer "absent" for a rare attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.images import resize
from clinalign.networks.backbones import create_backbone
from clinalign.networks.network_folder import fill_network, hash_weights, read_card, save_network

if TYPE_CHECKING:
    from typing_extensions import Self

Prior = Literal["balanced", "natural"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def check_image_batch(images: torch.Tensor) -> None:
    """Refuse what is not a float batch ``(N, 3, H, W)``.

    Raises:
        UserError: Saying the shape and type that were given.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise UserError(
            f"images must be float of shape (N, 3, H, W) in [0, 1], got {images.dtype} {tuple(images.shape)}: "
            "repeat a grey channel three times and divide 8-bit values by 255"
        )


class AttributeClassifier(nn.Module):
    """A timm backbone, dropout and one logit an attribute.

    Args:
        attribute_names: The K attributes, in the order of the logits.
        image_size: Side in pixels at which the network looks; images of any other size are resized to it (a size above
            the dataset's enlarges them first, which saves small detail such as hair from an early stride).
        backbone: Any timm model name.
        exclusive: Groups of attributes of which exactly one is present, for example ``{"diagnosis": ["MEL", "NV"]}``.
        dropout: Rate before the last layer while training.
        weights: Local safetensors file with pretrained backbone weights; random initialisation without it.

    Raises:
        UserError: For an unknown backbone, no attribute, or weights that do not fit.
    """

    kind: ClassVar[str] = "attributes"  # written into the card, and asked for when a folder is opened
    scale: torch.Tensor
    shift: torch.Tensor
    log_prior_odds: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        attribute_names: Sequence[str],
        image_size: int,
        backbone: str = "test_resnet",
        exclusive: Mapping[str, Sequence[str]] | None = None,
        dropout: float = 0.3,
        weights: Path | None = None,
    ) -> None:
        super().__init__()
        if not attribute_names:
            raise UserError("a classifier needs at least one attribute")
        self.attribute_names = tuple(attribute_names)
        self.image_size = image_size
        self.backbone_name = backbone
        self.exclusive = {group: list(members) for group, members in (exclusive or {}).items()}
        self.dropout = dropout
        self.card: dict[str, Any] = {}
        self.backbone, width = create_backbone(backbone, image_size, weights)
        count = len(self.attribute_names)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, count))
        # Calibration (networks.calibration): balanced logit = scale * raw logit + shift.
        self.register_buffer("scale", torch.ones(count))
        self.register_buffer("shift", torch.zeros(count))
        self.register_buffer("log_prior_odds", torch.zeros(count))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    @property
    def weights_hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of all weights, calibration included."""
        return hash_weights(self)

    @property
    def identity(self) -> str:
        """``classifier:<backbone>:<weights hash>``; two measurements of different identity are never compared."""
        return f"classifier:{self.backbone_name}:{self.weights_hash}"

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.scale.device

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to pooled features ``(N, D)``; differentiable in the images.

        Always computed in float32, also inside an autocast region. No ``no_grad`` and no batching: the caller decides.
        """
        check_image_batch(images)
        with torch.autocast(images.device.type, enabled=False):
            prepared = (resize(images.float(), self.image_size) - self.mean) / self.std
            features: torch.Tensor = self.backbone(prepared)
        return features

    def raw_logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's logits ``(N, K)`` before calibration: what training optimises."""
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            logits: torch.Tensor = self.head(features)
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]``, any size, to balanced logits ``(N, K)``, float32."""
        return self.raw_logits(images) * self.scale + self.shift

    def probabilities(self, images: torch.Tensor, prior: Prior = "balanced", batch_size: int = 256) -> torch.Tensor:
        """Return the probability of each attribute ``(N, K)``, without gradients, in evaluation mode, on the CPU.

        Args:
            images: ``(N, 3, H, W)`` in ``[0, 1]``.
            prior: ``balanced`` as if each attribute were in half of all images (rewards, generated images);
                ``natural`` at the prevalence of the data that it was calibrated on (real test images).
            batch_size: Images at once; does not change the result.
        """
        offset = self.log_prior_odds if prior == "natural" else torch.zeros_like(self.log_prior_odds)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                parts = torch.split(images, batch_size)
                rows = [torch.sigmoid(self(part.to(self.device)) + offset).cpu() for part in parts]
        finally:
            self.train(was_training)
        return torch.cat(rows) if rows else torch.empty((0, len(self.attribute_names)))

    def save(self, folder: Path) -> None:
        """Write ``folder/model.safetensors`` and ``folder/card.json``, whole or not at all."""
        card = {
            **self.card,
            "kind": self.kind,
            "backbone": self.backbone_name,
            "image_size": self.image_size,
            "attribute_names": list(self.attribute_names),
            "exclusive": self.exclusive,
            "dropout": self.dropout,
            "identity": self.identity,
        }
        self.card = save_network(folder, self, card)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """Open a folder written by :meth:`save`, in evaluation mode.

        Raises:
            UserError: When a part is missing or damaged, or only a pickle is there (never loaded: it can run code).
        """
        folder = Path(folder)
        card = read_card(folder, cls.kind)
        try:
            model = cls(
                card["attribute_names"], card["image_size"], card["backbone"], card["exclusive"], card["dropout"]
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"cannot read the classifier in {folder}: train it again with 'clinalign train reward'"
            ) from error
        fill_network(model, folder, card)
        model.card = card
        return model.to(device).eval()
