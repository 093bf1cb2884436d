"""What an identity encoder learns from: two views of each patient or lesion, and everybody else in the batch.

A view is another photograph of the same patient where there is one, else the same photograph, changed at random. The
loss is that of supervised contrastive learning (Khosla et al., NeurIPS 2020, eq. 2, L_out) with a fixed temperature t:

    L = mean_i -1/|P(i)| sum_{p in P(i)} log exp(<u_i, u_p>/t) / sum_{a != i} exp(<u_i, u_a>/t)

P(i) being the other views of i's patient in the batch. With one photograph a patient it is NT-Xent (SimCLR).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from clinalign.networks.augment import augment

TEMPERATURE = 0.1


class TwoViews:
    """Makes two views of every picture of a batch, as :func:`clinalign.networks.fit.fit` calls it.

    Args:
        images: ``(N, 3, H, W)`` uint8, all training pictures.
        groups: Their patients or lesions.
        recipe: Of :mod:`clinalign.networks.augment`.
    """

    def __init__(self, images: torch.Tensor, groups: Sequence[str], recipe: str) -> None:
        self.images, self.recipe = images, recipe
        self.codes = torch.from_numpy(np.unique(np.asarray(groups), return_inverse=True)[1])
        self.order = self.codes.argsort(stable=True)
        self.count = torch.bincount(self.codes)
        self.start = self.count.cumsum(0) - self.count
        self.place = torch.empty_like(self.order)
        self.place[self.order] = torch.arange(len(self.order)) - self.start[self.codes[self.order]]

    def partners(self, rows: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        """Return another picture of the patient of each of ``rows`` ``(B,)``; itself where there is no other.

        Args:
            rows: Numbers of pictures.
            draw: ``(B,)`` in ``[0, 1)``, which of the others.
        """
        codes = self.codes[rows]
        others = (self.count[codes] - 1).clamp_min(1)
        step = 1 + (draw * others).long().clamp_max(others - 1)
        return self.order[self.start[codes] + (self.place[rows] + step) % self.count[codes]]

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(2B, 3, H, W)`` views and ``(2B, 1)`` numbers of their patients.

        Args:
            images: ``(B, 3, H, W)`` in ``[0, 1]``.
            labels: ``(B, 1)`` their row numbers.
            generator: Source of randomness, on the images' device.
        """
        rows = labels[:, 0].long().cpu()
        draw = torch.rand(len(rows), generator=generator, device=generator.device).cpu()
        others = self.images[self.partners(rows, draw)].to(images.device).float() / 255.0
        codes = self.codes[rows][:, None].float().to(labels.device)
        views = [augment(each, self.recipe, generator) for each in (images, others)]
        return torch.cat(views), torch.cat([codes, codes])


def identity_loss(embedded: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the loss at the top of this file.

    Args:
        embedded: ``(B, D)`` unit vectors.
        labels: ``(B, 1)`` numbers of patients.
        known: Not used: every picture has a patient.
    """
    logits = embedded @ embedded.T / TEMPERATURE
    self_pair = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logs = torch.log_softmax(logits.masked_fill(self_pair, -torch.inf), dim=1)
    same = (labels == labels.T) & ~self_pair
    found = same.any(1)
    each = torch.where(same, logs, 0.0).sum(1) / same.sum(1).clamp_min(1)
    return -each[found].mean()
