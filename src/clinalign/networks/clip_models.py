"""CLIP-type models of transformers and open_clip behind the image-text interface, from local folders only.

A folder says by itself how its model wants to see images: range, size, mean, standard deviation and channels. What it
says is done here in torch, so that gradients reach our images ``(N, 3, H, W)`` in ``[0, 1]``. Weights are safetensors;
nothing is downloaded and no code of the folder is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json
from clinalign.networks.classifier import check_image_batch
from clinalign.networks.network_folder import PICKLES, hash_weights


@dataclass(frozen=True)
class Preprocessing:
    """What a model does to an image before it looks.

    Attributes:
        size: Height and width that the model sees, in pixels.
        shortest: Side to which the shorter edge is resized before the centre is cut out; 0 resizes both to ``size``.
        interpolation: ``bilinear`` or ``bicubic``, with antialiasing.
        mean: Subtracted from each channel, on the scale ``[0, 1]``.
        std: Divided by, likewise.
        channels: 3, or 1 for models of grey images: the mean of the three.
    """

    size: tuple[int, int]
    shortest: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int = 3

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 3, H, W)`` in ``[0, 1]`` to ``(N, channels, *size)``, differentiable."""
        check_image_batch(images)
        images, (height, width) = images.float(), self.size
        wanted = self.size
        if self.shortest:
            ratio = self.shortest / min(images.shape[-2:])
            wanted = (max(height, round(images.shape[-2] * ratio)), max(width, round(images.shape[-1] * ratio)))
        if tuple(images.shape[-2:]) != wanted:
            images = F.interpolate(images, wanted, mode=self.interpolation, align_corners=False, antialias=True)
            images = images.clamp(0.0, 1.0)  # bicubic overshoots; 8-bit pictures cannot
        top, left = (wanted[0] - height) // 2, (wanted[1] - width) // 2
        images = images[..., top : top + height, left : left + width]
        if self.channels == 1:
            images = images.mean(dim=1, keepdim=True)
        shape = (1, -1, 1, 1)
        return (images - images.new_tensor(self.mean).view(shape)) / images.new_tensor(self.std).view(shape)


class ClipModel:
    """A frozen foreign model with the interface of :class:`clinalign.networks.image_text.ImageTextModel`.

    Args:
        network: The model, in evaluation mode.
        preprocessing: What it wants.
        see: Maps preprocessed images to ``(N, D)``.
        read: Maps N texts to ``(N, D)``.
        length: Number of tokens of a text.
        limit: Most tokens that it reads.
        kind: Shown in the identity.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        see: Callable[[torch.Tensor], torch.Tensor],
        read: Callable[[list[str]], torch.Tensor],
        length: Callable[[str], int],
        limit: int,
        kind: str,
    ) -> None:
        self.network = network.float().eval().requires_grad_(False)
        self.preprocessing = preprocessing
        self.limit = limit
        self.identity = f"{kind}:{hash_weights(network)}:preprocessing={hash_json(vars(preprocessing), length=8)}"
        self._see, self._read, self._length = see, read, length

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.network.parameters()).device

    @property
    def scale(self) -> torch.Tensor:
        """The learnt inverse temperature, by which cosines become logits."""
        scale: torch.Tensor = self.network.logit_scale.detach().exp().reshape(())  # type: ignore[operator,union-attr]
        return scale

    def embed_images(self, images: torch.Tensor, batch_size: int = 32) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to unit vectors ``(N, D)``; gradients where they are required.

        Always computed in float32, also inside an autocast region.
        """
        with (
            torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()),
            torch.autocast(self.device.type, enabled=False),
        ):
            parts = torch.split(images.to(self.device), batch_size)
            return torch.cat([F.normalize(self._see(self.preprocessing(part)).float(), dim=1) for part in parts])

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> torch.Tensor:
        """Map N texts to unit vectors ``(N, D)``, each distinct text once."""
        distinct = list(dict.fromkeys(texts))
        rows = {text: row for row, text in enumerate(distinct)}
        with torch.autocast(self.device.type, enabled=False):
            parts = [
                F.normalize(self._read(distinct[start : start + batch_size]).float(), dim=1)
                for start in range(0, len(distinct), batch_size)
            ]
        return torch.cat(parts)[torch.tensor([rows[text] for text in texts], device=self.device)]

    def truncates(self, texts: Sequence[str]) -> tuple[bool, ...]:
        """Tell of each text whether it is longer than the limit and loses its end."""
        cut = {text: self._length(text) > self.limit for text in set(texts)}
        return tuple(cut[text] for text in texts)


def check_folder(folder: Path, config: str, library: str) -> None:
    """Refuse what is not a local model folder with safetensors.

    Raises:
        UserError: Saying what is missing.
    """
    if not folder.is_dir() or not (folder / config).is_file():
        raise UserError(
            f"no {library} model in {folder}: give a local folder with {config} and a .safetensors file (nothing is "
            "downloaded)"
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickles:
            raise UserError(
                f"{folder / pickles[0]} is a pickle, which can run code when opened: convert it to .safetensors where "
                "you trust it"
            )
        raise UserError(f"{folder} holds no .safetensors file: the {library} model's weights are missing")
