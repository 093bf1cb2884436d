"""From a prepared dataset to tensors in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from clinalign.core.images import resize, to_uint8
from clinalign.core.types import Case
from clinalign.networks.fit import Labelled

CHUNK = 256  # images that are float at once while reading


class HasImagesAndLabels(Protocol):
    """The part of :class:`clinalign.data.prepared.PreparedDataset` that training reads."""

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The order of the label columns."""
        ...

    def images(self, cases: Sequence[Case], size: int | None = None) -> torch.Tensor:
        """Return ``(N, 3, H, W)`` float32 in ``[0, 1]``."""
        ...

    def labels(self, cases: Sequence[Case]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return labels and known, ``(N, K)``."""
        ...


class HasImagesAndMasks(Protocol):
    """The part of :class:`clinalign.data.prepared.PreparedDataset` that training a segmenter reads."""

    def images(self, cases: Sequence[Case], size: int | None = None) -> torch.Tensor:
        """Return ``(N, 3, H, W)`` float32 in ``[0, 1]``."""
        ...

    def masks(self, cases: Sequence[Case], name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(N, H, W)`` bool masks and ``(N,)`` bool known."""
        ...


def read_masked(data: HasImagesAndMasks, cases: Sequence[Case], regions: Sequence[str], size: int) -> Labelled:
    """Read ``cases`` into memory as 8-bit images with the masks of ``regions`` ``(N, R, size, size)`` as labels."""
    images, masks, known = [], [], []
    for start in range(0, len(cases), CHUNK):
        part = cases[start : start + CHUNK]
        images.append(to_uint8(data.images(part, size)))
        read = [data.masks(part, name) for name in regions]
        chunk = torch.stack([mask for mask, _ in read], dim=1)
        if chunk.shape[-1] != size:
            chunk = resize(chunk.float(), size) >= 0.5
        masks.append(chunk)
        known.append(torch.stack([is_known for _, is_known in read], dim=1))
    return Labelled(torch.cat(images), torch.cat(masks), torch.cat(known))


def read_labelled(
    data: HasImagesAndLabels, cases: Sequence[Case], attributes: Sequence[str], size: int | None = None
) -> Labelled:
    """Read ``cases`` into memory as 8-bit images of ``size`` pixels, with the columns of ``attributes`` in order."""
    columns = [data.attribute_names.index(name) for name in attributes]
    labels, known = data.labels(cases)
    parts = [to_uint8(data.images(cases[start : start + CHUNK], size)) for start in range(0, len(cases), CHUNK)]
    return Labelled(torch.cat(parts), labels[:, columns].float(), known[:, columns].bool())


def usable_attributes(
    labels: torch.Tensor, known: torch.Tensor, names: Sequence[str], minimum: int
) -> tuple[list[str], dict[str, str]]:
    """Divide attributes into those with enough of both answers to learn from, and the rest with the reason.

    Args:
        labels: ``(N, K)`` of the training split.
        known: ``(N, K)`` bool.
        names: The K names.
        minimum: Least number of known positives, and of known negatives.

    Returns:
        Names to learn in the given order, and left-out name to reason.
    """
    kept, left_out = [], {}
    for k, name in enumerate(names):
        positives = int((labels[:, k].bool() & known[:, k]).sum())
        negatives = int(known[:, k].sum()) - positives
        if min(positives, negatives) < minimum:
            left_out[name] = f"{positives} positives and {negatives} negatives in training, {minimum} of each needed"
        else:
            kept.append(name)
    return kept, left_out
