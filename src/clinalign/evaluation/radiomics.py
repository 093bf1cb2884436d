"""Radiomics features of whole pictures, for the Frechet radiomic distance (FRD; Konz, Osuala et al., arXiv 2412.01496).

Of the grey picture and of the four bands of one Haar step: first-order statistics and Haralick's texture features of
grey-level co-occurrence matrices (GLCM). No network and no weights: what differs between two sets can be named, feature
by feature (:data:`NAMES`).

R: the paper's features are pyradiomics' (464, with run-length, zone and tone matrices and Laplacians of Gaussians);
these are 135 of the same kinds that are computed for a whole batch at once. Grey levels are fixed bins of ``[0, 1]``
instead of bins of a fixed width in each picture's own range, so that brightness counts. Generated pictures have no
masks, so the features are those of the whole picture.
"""

from __future__ import annotations

import math

import torch

from clinalign.core.errors import UserError
from clinalign.core.images import resize
from clinalign.networks.classifier import check_image_batch

VERSION = 1  # of what is computed; another version is another identity
LEVELS = 32  # grey levels of histograms and co-occurrence matrices
DETAIL = 0.25  # details of the wavelet step beyond this are counted in the outermost levels
DISTANCES = (1, 3)  # pixels between the two of a pair
SMALLEST = 16  # pixels: a band then has 8, and a pair at distance 3 fits
BANDS = ("original", "wavelet_LL", "wavelet_LH", "wavelet_HL", "wavelet_HH")
FIRST_ORDER = (
    "minimum", "percentile_10", "median", "mean", "percentile_90", "maximum", "interquartile_range", "range",
    "mean_absolute_deviation", "root_mean_square", "standard_deviation", "skewness", "kurtosis", "entropy",
    "uniformity",
)  # fmt: skip
GLCM = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
NAMES = tuple(
    f"{band}/{name}"
    for band in BANDS
    for name in (*FIRST_ORDER, *(f"glcm_{distance}_{name}" for distance in DISTANCES for name in GLCM))
)
"""Name of each column, band by band."""


class Radiomics:
    """The feature extractor of FRD.

    Args:
        size: Side in pixels at which pictures are looked at; others are resized. Texture depends on it.
        device: Where it computes.
        batch_size: Pictures at once; does not change the result.

    Raises:
        UserError: For a size below 16.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu", batch_size: int = 64) -> None:
        if size < SMALLEST:
            raise UserError(f"radiomics needs pictures of at least {SMALLEST} px, got {size}")
        self._size, self._device, self._batch_size = size, device, batch_size
        self.identity = (
            f"radiomics:v{VERSION}:features={len(NAMES)}:levels={LEVELS}:"
            f"distances={'+'.join(map(str, DISTANCES))}:haar=1:size={size}"
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to ``(N, 135)`` float32 features on the CPU; see :data:`NAMES`.

        Raises:
            UserError: For anything that is not such a batch.
        """
        check_image_batch(images)
        parts = [self._features(part.to(self._device)) for part in torch.split(images, self._batch_size)]
        return torch.cat([part.float().cpu() for part in parts])

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        picture = grey(resize(images.float(), self._size).clamp(0, 1))
        found = []
        for number, band in enumerate((picture, *haar(picture))):
            low, high = (-DETAIL, DETAIL) if number > 1 else (0.0, 1.0)
            levels = quantise(band, low, high)
            found.append(first_order(band, levels))
            found += [glcm_features(glcm(levels, distance)) for distance in DISTANCES]
        return torch.cat(found, dim=1)


def is_radiomics(identity: str) -> bool:
    """Tell whether features of this identity are radiomics: they are compared by FRD, not by FID and KID."""
    return identity.startswith("radiomics:")


def grey(images: torch.Tensor) -> torch.Tensor:
    """Return the ``(N, H, W)`` luma (ITU-R BT.601) of ``(N, 3, H, W)``; a grey film stays what it is."""
    red, green, blue = images.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def haar(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the bands LL, LH, HL, HH of one Haar step, each ``(N, H // 2, W // 2)``; an odd last line is left out.

    LL is the mean of four pixels, in the picture's range; the details are half-differences of means, in
    ``[-1/2, 1/2]`` of it. LH changes from row to row, HL from column to column.
    """
    height, width = (side // 2 * 2 for side in picture.shape[-2:])
    a, b = picture[:, 0:height:2, 0:width:2], picture[:, 0:height:2, 1:width:2]
    c, d = picture[:, 1:height:2, 0:width:2], picture[:, 1:height:2, 1:width:2]
    return (a + b + c + d) / 4, (a + b - c - d) / 4, (a - b + c - d) / 4, (a - b - c + d) / 4


def quantise(band: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return the grey level of each pixel, 0 to 31, in equal bins from ``low`` to ``high``; the outermost are open."""
    return ((band - low) / (high - low) * LEVELS).long().clamp(0, LEVELS - 1)


def first_order(band: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return ``(N, 15)`` float64 statistics of the values; see :data:`FIRST_ORDER`.

    Args:
        band: ``(N, H, W)``.
        levels: Its grey levels, for entropy (natural logarithm) and uniformity.
    """
    values = band.flatten(1).double().sort(dim=1).values
    p10, p25, median, p75, p90 = (_percentile(values, share) for share in (0.1, 0.25, 0.5, 0.75, 0.9))
    least, most, mean = values[:, 0], values[:, -1], values.mean(1)
    centred = values - mean[:, None]
    squares = centred.square()
    spread = squares.mean(1).sqrt()
    scale = spread.clamp(min=1e-6)  # a flat picture has no skewness: 0, as in pyradiomics
    shares = _counts(levels.flatten(1), LEVELS) / values.shape[1]
    return torch.stack(
        [
            least, p10, median, mean, p90, most, p75 - p25, most - least,
            centred.abs().mean(1), values.square().mean(1).sqrt(), spread,
            (squares * centred).mean(1) / scale**3, squares.square().mean(1) / scale**4,
            -torch.xlogy(shares, shares).sum(1), shares.square().sum(1),
        ],
        dim=1,
    )  # fmt: skip


def glcm(levels: torch.Tensor, distance: int) -> torch.Tensor:
    """Return ``(N, 4, 32, 32)`` float64 symmetric, normalised co-occurrence matrices at 0, 45, 90 and 135 degrees.

    The offsets are those of scikit-image's ``graycomatrix``: at 45 degrees ``round(distance * sin 45)`` pixels both
    ways.
    """
    slant = round(distance * math.sin(math.pi / 4))
    found = []
    for down, right in ((0, distance), (slant, slant), (distance, 0), (slant, -slant)):
        height, width = levels.shape[1] - down, levels.shape[2] - abs(right)
        left = max(0, -right)
        one = levels[:, :height, left : left + width]
        other = levels[:, down:, left + right : left + right + width]
        counts = _counts((one * LEVELS + other).flatten(1), LEVELS**2).reshape(-1, LEVELS, LEVELS)
        found.append((counts + counts.mT) / (2 * height * width))
    return torch.stack(found, dim=1)


def glcm_features(matrices: torch.Tensor) -> torch.Tensor:
    """Return ``(N, 6)`` texture features of ``(N, 4, L, L)`` matrices, averaged over the angles; see :data:`GLCM`.

    Haralick, Shanmugam and Dinstein (1973), as in scikit-image's ``graycoprops``; correlation is 1 for a flat picture.
    """
    level = torch.arange(matrices.shape[-1], dtype=torch.float64, device=matrices.device)
    apart = level[:, None] - level[None, :]
    margin = matrices.sum(-1)
    mean = (margin * level).sum(-1, keepdim=True)
    variance = (margin * (level - mean).square()).sum(-1)
    centred = level - mean
    product = (matrices * centred[..., :, None] * centred[..., None, :]).sum((-2, -1))
    each = [
        (matrices * apart.square()).sum((-2, -1)),
        (matrices * apart.abs()).sum((-2, -1)),
        (matrices / (1 + apart.square())).sum((-2, -1)),
        matrices.square().sum((-2, -1)).sqrt(),
        torch.where(variance > 1e-12, product / variance.clamp(min=1e-12), 1.0),
        -torch.xlogy(matrices, matrices).sum((-2, -1)),
    ]
    return torch.stack(each, dim=-1).mean(1)


def normalise(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift and scale both sets by mean and standard deviation of the reference ``x`` ``(M, D)``, as FRD does.

    Returns:
        Both in float64 with the features that vary in the reference; one that never does has no scale and is left out.
    """
    mean, spread = x.double().mean(0), x.double().std(0)
    varies = spread > 1e-7 * (1 + mean.abs())
    return (x.double() - mean)[:, varies] / spread[varies], (y.double() - mean)[:, varies] / spread[varies]


def _percentile(values: torch.Tensor, share: float) -> torch.Tensor:
    """Return the ``(N,)`` quantile of sorted ``(N, P)`` values, linear between neighbours."""
    place = share * (values.shape[1] - 1)
    low = int(place)
    high = min(low + 1, values.shape[1] - 1)
    return values[:, low] + (place - low) * (values[:, high] - values[:, low])


def _counts(codes: torch.Tensor, bins: int) -> torch.Tensor:
    """Return how often each code from 0 stands in each row of ``codes`` ``(N, P)``, as ``(N, bins)`` float64."""
    rows = torch.arange(len(codes), device=codes.device)[:, None] * bins
    return torch.bincount((codes + rows).flatten(), minlength=len(codes) * bins).reshape(-1, bins).double()
