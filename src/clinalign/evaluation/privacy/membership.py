"""Membership inference: can a stranger tell from the generator who was in its training set?

Two attackers. Each gives every real image a score, higher for a suspected member, and the area under the ROC curve says
how often a member outscores a non-member: 0.5 is guessing.

- *From pictures alone*: how near the nearest generated image is, for how crowded the place is (the distance to the
  nearest generated image over the mean distance to the ten nearest held-out images; the calibration by difficulty is
  that of Watson et al., ICLR 2022). Chen et al. (GAN-Leaks, CCS 2020) use the plain distance.
- *From the model*: how well it denoises the image, at a few noise levels with the same noises for all (the loss attack
  of Yeom et al., CSF 2018, on diffusion models: Matsumoto, Miura and Yanai 2023). A generator that remembers an image
  denoises it better than one it never saw.

Both know the image that they ask about. Stronger attackers exist (shadow models, LiRA), so an area of 0.5 is no proof.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clinalign.core.neighbours import nearest_neighbours
from clinalign.evaluation.alignment import auroc
from clinalign.evaluation.intervals import Estimate, bootstrap, paired_difference


def picture_scores(real: torch.Tensor, crowded: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
    """Score ``(M, D)`` real images by their nearest of ``(N, D)`` generated ones; higher: nearer than is usual there.

    Args:
        real: Features of members and non-members.
        crowded: ``(M,)`` of :func:`~clinalign.evaluation.privacy.crowding.crowding`.
        generated: Features of generated images.

    Returns:
        ``(M,)`` float64, the negative ratio of the two distances.
    """
    return -nearest_neighbours(real, generated).distance[:, 0] / crowded


def loss_scores(errors: torch.Tensor) -> torch.Tensor:
    """Score real images by their denoising errors ``(M, T)``, one column a noise level; higher: denoised better.

    Each level is brought to mean 0 and standard deviation 1 over all images, members or not, so that no level decides
    alone; the score is the negative mean.
    """
    errors = errors.double()
    spread = errors.std(0).clamp_min(1e-12)
    return -((errors - errors.mean(0)) / spread).mean(1)


def auc_estimate(
    scores: torch.Tensor,
    member: torch.Tensor,
    groups: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
    counts: torch.Tensor | None = None,
) -> Estimate:
    """Estimate the chance that a member outscores a non-member, ties half; intervals resample patients or lesions.

    Args:
        scores: ``(M,)``.
        member: ``(M,)`` bool.
        groups: M patients or lesions.
        replicates: Resamples.
        seed: Same seed, same interval.
        counts: ``(M,)`` how much each image counts, so that members and others are of the same kinds; 1 without.
    """
    counts = torch.ones(len(scores), dtype=torch.float64) if counts is None else counts
    known = torch.ones_like(member)
    return bootstrap(
        lambda weights: auroc(scores, member, known, weights * counts),
        len(scores),
        groups=groups,
        replicates=replicates,
        seed=seed,
    )


def auc_change(
    before: torch.Tensor,
    after: torch.Tensor,
    member: torch.Tensor,
    groups: Sequence[str],
    replicates: int = 1000,
    seed: int = 0,
    counts: torch.Tensor | None = None,
) -> Estimate:
    """Estimate the change of that chance, over the same real images and resamples."""
    counts = torch.ones(len(after), dtype=torch.float64) if counts is None else counts
    known = torch.ones_like(member)
    return paired_difference(
        lambda weights: auroc(after, member, known, weights * counts),
        lambda weights: auroc(before, member, known, weights * counts),
        len(after),
        groups=groups,
        replicates=replicates,
        seed=seed,
    )
