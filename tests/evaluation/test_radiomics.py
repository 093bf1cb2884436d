"""Radiomics features against scikit-image and scipy, and the distance that they give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.evaluation.extractors import load_extractor
from clinalign.evaluation.feature_entries import frd_entries
from clinalign.evaluation.fidelity import fid
from clinalign.evaluation.radiomics import (
    DISTANCES,
    FIRST_ORDER,
    GLCM,
    LEVELS,
    NAMES,
    Radiomics,
    first_order,
    glcm,
    glcm_features,
    grey,
    haar,
    normalise,
    quantise,
)


def pictures(count: int, seed: int = 0, size: int = 24, roughness: float = 0.1) -> torch.Tensor:
    """Smooth blobs with noise on them, each picture darker or brighter than the next."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (smooth + roughness * torch.randn(count, 3, size, size, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("distance", DISTANCES)
def test_co_occurrence_agrees_with_scikit_image(distance: int) -> None:
    feature = pytest.importorskip("skimage.feature", reason="scikit-image comes with torchxrayvision")
    levels = quantise(grey(pictures(3)), 0.0, 1.0)
    ours = glcm(levels, distance)
    found = glcm_features(ours)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    for row, picture in enumerate(levels.numpy().astype(np.uint8)):
        theirs = feature.graycomatrix(picture, [distance], angles, LEVELS, symmetric=True, normed=True)
        # skimage's 135 degrees point up and to the left, ours down and to the left: the same pairs
        for angle in range(4):
            np.testing.assert_allclose(ours[row, angle].numpy(), theirs[:, :, 0, angle], atol=1e-12)
        for column, name in enumerate(GLCM[:-1]):
            expected = feature.graycoprops(theirs, name).mean()
            assert float(found[row, column]) == pytest.approx(expected, rel=1e-6), name
        shares = theirs[:, :, 0, :]
        entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum((0, 1)).mean()
        assert float(found[row, -1]) == pytest.approx(entropy, rel=1e-9)


def test_first_order_statistics_agree_with_scipy_and_numpy() -> None:
    stats = pytest.importorskip("scipy.stats")
    band = grey(pictures(2))
    found = first_order(band, quantise(band, 0.0, 1.0))
    for row, picture in enumerate(band.double().numpy()):
        flat = picture.ravel()
        counts = np.histogram(flat, LEVELS, (0, 1))[0] / flat.size
        expected = {
            "minimum": flat.min(), "median": np.median(flat), "percentile_90": np.percentile(flat, 90),
            "interquartile_range": stats.iqr(flat), "mean_absolute_deviation": np.abs(flat - flat.mean()).mean(),
            "root_mean_square": np.sqrt((flat**2).mean()), "standard_deviation": flat.std(),
            "skewness": stats.skew(flat), "kurtosis": stats.kurtosis(flat, fisher=False),
            "entropy": stats.entropy(counts), "uniformity": (counts**2).sum(),
        }  # fmt: skip
        for name, value in expected.items():
            assert float(found[row, FIRST_ORDER.index(name)]) == pytest.approx(value, rel=1e-6), name


def test_a_haar_step_by_hand() -> None:
    low, lh, hl, hh = haar(torch.tensor([[[1.0, 0.0, 9.0], [0.5, 0.25, 9.0]]]))  # an odd last column is left out
    assert [float(band) for band in (low, lh, hl, hh)] == [1.75 / 4, 0.25 / 4, 1.25 / 4, 0.75 / 4]
    stripes = torch.tensor([[1.0, 1.0], [0.0, 0.0]])[None]
    assert float(haar(stripes)[1]) == 0.5  # LH changes from row to row
    assert float(haar(stripes)[2]) == 0.0


def test_a_flat_picture_has_defined_features() -> None:
    features = Radiomics(16)(torch.full((1, 3, 16, 16), 0.5))[0]
    table = dict(zip(NAMES, features.tolist(), strict=True))
    assert all(math.isfinite(value) for value in table.values())
    assert table["original/glcm_1_correlation"] == 1.0
    assert table["original/skewness"] == table["original/entropy"] == 0.0


def test_the_batch_is_no_result_and_the_size_is_part_of_the_identity() -> None:
    images = pictures(5)
    torch.testing.assert_close(Radiomics(24, batch_size=2)(images), Radiomics(24)(images), rtol=0, atol=0)
    assert Radiomics(24).identity == "radiomics:v1:features=135:levels=32:distances=1+3:haar=1:size=24"
    assert load_extractor("radiomics:32")(images).shape == (5, len(NAMES))
    with pytest.raises(UserError, match="write the side in pixels"):
        load_extractor("radiomics:big")
    with pytest.raises(UserError, match="at least 16 px, got 8"):
        load_extractor("radiomics:8")


def frd(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    names = [[f"{side}{row}" for row in range(len(rows))] for side, rows in (("r", x), ("g", y))]
    return frd_entries(x, y, "radiomics:test", groups_x=names[0], groups_y=names[1], replicates=50)["fidelity/frd"]


def test_frd_of_a_shift_is_its_length_in_standard_deviations() -> None:
    """All features move by two of the reference's deviations, 4 for each; their units do not matter."""
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1000.0, 0.01])
    entry = frd(x, x + 2 * x.std(0))
    assert entry["value"] == pytest.approx(12.0, rel=1e-4)
    assert entry["log"] == pytest.approx(math.log(entry["value"]))
    constant = torch.cat([x, torch.ones(60, 1)], dim=1)  # has no scale: left out
    assert normalise(constant, constant)[0].shape == (60, 3)
    assert frd(constant, constant + 2 * constant.std(0))["features"] == 3


def test_frd_is_at_its_floor_for_equal_sets_and_sees_texture_that_keeps_the_mean() -> None:
    """Enough pictures for few features: half the reference against the other half, and rougher pictures."""
    extractor = Radiomics(24)
    columns = [NAMES.index(name) for name in ("original/mean", "original/glcm_1_contrast", "wavelet_HH/entropy")]
    x, same, rough = (
        extractor(pictures(80, seed, roughness=r))[:, columns] for seed, r in ((0, 0.1), (1, 0.1), (2, 0.15))
    )
    null, moved = frd(x, same), frd(x, rough)
    assert null["at_floor_n"] < 4 * null["floor"]
    assert moved["ci95"][0] > null["ci95"][1]
    assert moved["at_floor_n"] > 10 * moved["floor"]
    assert fid(x[:, :1], rough[:, :1]) < 0.01  # the mean alone would have seen nothing
