"""Watch metrics: how far the pictures of fixed prompts lie from real ones, in ways that no reward looks at.

A reward can rise while edges, textures or variety leave what real images show, outside of what it measures. Each
deviation here is 0 or more and grows when pictures become less like real ones:

- ``intensity``: Wasserstein-1 distance between the intensity histograms, mean over channels, in ``[0, 1]``;
- ``edges``: |log| of the ratio of mean edge densities;
- ``fine_detail``: |log| of the ratio of mean shares of high-frequency power, a detector of grids and of blur;
- ``layout``: root mean square difference of the mean pictures on an 8 x 8 raster, in ``[0, 1]``;
- ``features``: the maximum mean discrepancy with the kernel of KID, in an extractor's features. Not the unbiased KID:
  sets that hold every prompt equally often are more alike than its arithmetic expects, which leaves it without scale.

They are told in *real ranges*: the unit is what 95 of 100 sets of so many real images stay below, against other real
images of the same prompts. 1 is the edge of the real range, at this number of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Extractor
from clinalign.evaluation.fidelity import squared_mmd
from clinalign.evaluation.intervals import Estimate, Statistic, bootstrap, weighted_mean
from clinalign.evaluation.picture_statistics import (
    BINS,
    edge_density,
    fine_detail,
    intensity_histograms,
    tile_means,
)

REPLICATES = 200  # resamples of prompts behind a standard error
DRAWS = 200  # sets of real images behind a real range
QUANTILE = 0.95
_NOTHING = 1e-6  # added to both sides of a ratio, so that a picture without any edge has a finite deviation
_SIGMAS = 2 * 1.959964  # standard errors in a 95 % interval


@dataclass(frozen=True)
class Pictures:
    """What is kept of N pictures.

    Attributes:
        histograms: ``(N, 3, BINS)``, see :func:`~clinalign.evaluation.picture_statistics.intensity_histograms`.
        edges: ``(N,)``.
        fine: ``(N,)``.
        tiles: ``(N, 3 * 64)``.
        features: ``(N, D)`` where an extractor looked.
    """

    histograms: torch.Tensor
    edges: torch.Tensor
    fine: torch.Tensor
    tiles: torch.Tensor
    features: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return N."""
        return len(self.edges)

    def take(self, rows: Sequence[int]) -> Pictures:
        """Return the pictures ``rows``, which may repeat."""
        index = torch.tensor(rows, dtype=torch.long)
        features = None if self.features is None else self.features[index]
        return Pictures(self.histograms[index], self.edges[index], self.fine[index], self.tiles[index], features)


def describe(images: torch.Tensor, extractor: Extractor | None = None, batch_size: int = 32) -> Pictures:
    """Look at ``images`` ``(N, 3, H, W)`` in ``[0, 1]``; what is kept lies on the CPU.

    Args:
        images: N pictures.
        extractor: Gives features too.
        batch_size: Pictures at once; does not change the result.
    """
    return join(
        [
            Pictures(
                intensity_histograms(part).cpu(),
                edge_density(part).cpu(),
                fine_detail(part).cpu(),
                tile_means(part).cpu(),
                None if extractor is None else extractor(part),
            )
            for part in torch.split(images.detach(), batch_size)
        ]
    )


def join(parts: Sequence[Pictures]) -> Pictures:
    """Return several sets as one; features where all have them."""
    features = [part.features for part in parts if part.features is not None]
    return Pictures(
        torch.cat([part.histograms for part in parts]),
        torch.cat([part.edges for part in parts]),
        torch.cat([part.fine for part in parts]),
        torch.cat([part.tiles for part in parts]),
        torch.cat(features) if len(features) == len(parts) else None,
    )


def deviations(
    shown: Pictures,
    real: Pictures,
    weights: torch.Tensor | None = None,
    weights_real: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Return each deviation of ``shown`` from ``real``, see the head of this file.

    Args:
        shown: N pictures.
        real: M real ones, with features of the same extractor or none.
        weights: ``(B, N)`` resampling counts, ones by default.
        weights_real: ``(B, M)``.

    Returns:
        Name to ``(B,)`` float64; ``features`` only where both sides have some.
    """
    w = torch.ones(1, len(shown), dtype=torch.float64) if weights is None else weights
    v = torch.ones(1, len(real), dtype=torch.float64) if weights_real is None else weights_real

    def means(rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        return counts @ rows.flatten(1) / counts.sum(1, keepdim=True)

    def ratio(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        mine, theirs = means(one[:, None], w)[:, 0], means(other[:, None], v)[:, 0]
        return ((mine + _NOTHING) / (theirs + _NOTHING)).log().abs()

    apart = means(shown.histograms, w) - means(real.histograms, v)
    cumulated = apart.reshape(len(apart), -1, BINS).cumsum(2).abs().sum(2) / BINS
    found = {
        "intensity": cumulated.mean(1),
        "edges": ratio(shown.edges, real.edges),
        "fine_detail": ratio(shown.fine, real.fine),
        "layout": (means(shown.tiles, w) - means(real.tiles, v)).square().mean(1).sqrt(),
    }
    if shown.features is not None and real.features is not None and min(len(shown), len(real)) > 1:
        count = max(len(v), len(w))
        found["features"] = squared_mmd(real.features, shown.features, v.expand(count, -1), w.expand(count, -1)).sqrt()
    return found


@dataclass(frozen=True)
class RealRange:
    """Real images of the prompts that are watched, and how far sets of them lie from one another.

    Attributes:
        real: The real images.
        limits: Deviation to the value that 95 of 100 sets of real images stay below: the unit of that deviation.
    """

    real: Pictures
    limits: Mapping[str, float]

    @classmethod
    def of(cls, real: Pictures, prompts: Sequence[int], images_per_prompt: int, seed: int = 0) -> RealRange:
        """Measure the range: draw sets of real images as generated ones are drawn, and compare each with the others.

        Args:
            real: M real images.
            prompts: ``(M,)`` which prompt each stands for.
            images_per_prompt: Pictures drawn of each prompt; of a prompt with fewer than twice as many real images,
                half of these are drawn.
            seed: Of the draws.

        Raises:
            UserError: When no prompt has two real images.
        """
        members = {prompt: [row for row, other in enumerate(prompts) if other == prompt] for prompt in set(prompts)}
        chance = torch.Generator().manual_seed(derive_seed(seed, "real range"))
        drawn = torch.zeros(DRAWS, len(real), dtype=torch.float64)
        for rows in members.values():
            count = min(images_per_prompt, len(rows) // 2)
            for draw in drawn:
                draw[[rows[i] for i in torch.randperm(len(rows), generator=chance)[:count].tolist()]] = 1.0
        if not drawn[0].any():
            raise UserError("a real range needs a prompt with two real images or more")
        spread = deviations(real, real, drawn, 1.0 - drawn)
        limits = {name: float(values.nanquantile(QUANTILE)) for name, values in spread.items()}
        return cls(real, {name: limit for name, limit in limits.items() if limit > 0})  # a limit of NaN is left out too

    def levels(self, shown: Pictures) -> dict[str, float]:
        """Return each deviation of ``shown``, in real ranges."""
        found = deviations(shown, self.real)
        return {name: float(found[name][0]) / limit for name, limit in self.limits.items() if name in found}

    def changes(
        self, shown: Pictures, before: Pictures, prompts: Sequence[str] | None, seed: int = 0
    ) -> dict[str, Estimate]:
        """Estimate how much further than ``before`` the pictures lie from real ones, in real ranges.

        Args:
            shown: N pictures.
            before: The anchor's, of the same prompts and noise in the same order.
            prompts: Ids of the prompts, which the bootstrap draws; ``None`` draws pictures.
            seed: Of the resamples.
        """

        def change(name: str) -> Statistic:
            def statistic(weights: torch.Tensor) -> torch.Tensor:
                now, then = (deviations(pictures, self.real, weights)[name] for pictures in (shown, before))
                return (now - then) / self.limits[name]

            return statistic

        names = [name for name in deviations(shown, self.real) if name in self.limits]
        return {
            name: bootstrap(change(name), len(shown), groups=prompts, replicates=REPLICATES, seed=seed)
            for name in names
        }


def distance_to_real(levels: Mapping[str, float]) -> float:
    """Return one number for all: the feature distance where there is one, else the root mean square of the others.

    NaN where nothing was compared with real images.
    """
    if "features" in levels:
        return levels["features"]
    return math.sqrt(sum(level**2 for level in levels.values()) / len(levels)) if levels else math.nan


def share_lost(now: torch.Tensor, before: torch.Tensor, seed: int = 0) -> Estimate:
    """Estimate the share of diversity that was lost, 1 - mean(now) / mean(before); negative where it grew.

    Args:
        now: ``(G,)`` mean distance between the pictures of each prompt.
        before: The anchor's, in the same order.
        seed: Of the resamples, which draw prompts.

    Raises:
        UserError: With fewer than two prompts.
    """

    def statistic(weights: torch.Tensor) -> torch.Tensor:
        whole = weights @ before.double()
        return torch.where(whole > 0, 1.0 - weights @ now.double() / whole, torch.nan)

    return bootstrap(statistic, len(now), replicates=REPLICATES, seed=seed)


def mean_change(now: torch.Tensor, before: torch.Tensor, prompts: Sequence[str] | None, seed: int = 0) -> Estimate:
    """Estimate the mean of ``now - before``, ``(N,)`` each and paired; NaN is unknown and left out of both."""
    change = now.double() - before.double()
    return bootstrap(
        lambda weights: weighted_mean(change, weights), len(now), groups=prompts, replicates=REPLICATES, seed=seed
    )


def standard_error(estimate: Estimate) -> float:
    """Return the standard error behind a 95 % interval."""
    return (estimate.ci95[1] - estimate.ci95[0]) / _SIGMAS
