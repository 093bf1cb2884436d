from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clinalign.data.read_image as module
from clinalign.core.errors import UserError
from clinalign.data.read_image import read_image, read_mask


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def test_the_largest_centred_square_is_cut_out(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = (10, 200, 30)
    out = read_image(saved(tmp_path / "a.png", Image.fromarray(pixels)), 20)
    assert out.shape == (20, 20, 3)
    assert (out == (10, 200, 30)).all()


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    # A one-pixel chequerboard has mean 127.5 everywhere; picking single pixels would give 0 or 255.
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    out = read_image(saved(tmp_path / "a.png", Image.fromarray(board)), 16, channels=1)
    assert out.shape == (16, 16)
    assert np.abs(out.astype(float) - 127.5).max() < 8  # edges of the filter's support


@pytest.mark.parametrize("top", [4095, 65535])
def test_16_bit_grey_is_scaled_by_its_real_range_not_wrapped(tmp_path: Path, top: int) -> None:
    ramp = np.linspace(0, top, 64).round().astype(np.uint16)
    out = read_image(saved(tmp_path / "a.png", Image.fromarray(np.tile(ramp, (64, 1)))), 64, channels=1)
    assert out[0, 0] == 0
    assert out[0, -1] == 255
    assert (np.diff(out[0].astype(int)) >= 0).all()  # a wrapped ramp falls back to black
    assert abs(int(out[0, 31]) - 125) <= 1  # a clipped ramp is white long before its middle (31 / 63 * 255 = 125.5)


def test_a_constant_16_bit_image_is_black_and_no_division_by_zero(tmp_path: Path) -> None:
    out = read_image(saved(tmp_path / "a.png", Image.fromarray(np.full((8, 8), 900, np.uint16))), 8, channels=1)
    assert (out == 0).all()


def test_float_images_with_nan_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", Image.fromarray(np.full((8, 8), np.nan, np.float32)))
    with pytest.raises(UserError, match="not finite"):
        read_image(path, 8)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    red, green, blue = read_image(path, 16)[8, 8]
    assert (red > 200, green < 60, blue < 60) == (True, True, True)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_on_black(tmp_path: Path, mode: str) -> None:
    clear = (255,) * (len(mode) - 1) + (0,)
    path = saved(tmp_path / "a.png", Image.new(mode, (8, 8), clear))
    assert (read_image(path, 8) == 0).all()


def test_palettes_with_a_transparent_colour_lie_on_black(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([255, 255, 255] * 2)
    assert (read_image(saved(tmp_path / "a.png", picture, transparency=1), 8) == 0).all()


def test_the_orientation_of_exif_is_applied(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # stored with the bright half on top; orientation 6 turns it to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    out = read_image(saved(tmp_path / "a.jpg", Image.fromarray(pixels), exif=exif, quality=95), 32)
    assert out[:, 24].mean() > 240
    assert out[:, 8].mean() < 15


def test_a_large_jpeg_read_at_reduced_size_looks_as_if_read_whole(tmp_path: Path) -> None:
    y, x = np.mgrid[:512, :512]
    pixels = np.stack([x / 2, y / 2, (x + y) / 4], -1).astype(np.uint8)
    jpeg = read_image(saved(tmp_path / "a.jpg", Image.fromarray(pixels), quality=95), 32)
    png = read_image(saved(tmp_path / "a.png", Image.fromarray(pixels)), 32)
    # 4 of 255: what JPEG itself loses on a smooth picture, with a margin
    assert np.abs(jpeg.astype(int) - png.astype(int)).max() <= 4


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such image"):
        read_image(tmp_path / "a.png", 8)


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match=r"empty \(0 bytes\)"):
        read_image(tmp_path / "a.png", 8)


def test_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello, I am a text of some length")
    with pytest.raises(UserError, match="not an image that Pillow can read"):
        read_image(tmp_path / "a.png", 8)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="unreadable"):
        read_image(path, 64)


def test_huge_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (101, 100)))
    monkeypatch.setattr(module, "MAX_PIXELS", 10_000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(UserError, match="101 x 100 pixels"):
        read_image(path, 8)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("1", (20_000, 10_000)))
    with pytest.raises(UserError, match="larger than 100 megapixels"):
        read_image(path, 8)


def test_masks_have_the_geometry_of_their_images(tmp_path: Path) -> None:
    pixels = np.zeros((30, 40), np.uint8)
    pixels[:, :20] = 255
    out = read_mask(saved(tmp_path / "a.png", Image.fromarray(pixels)), 30)
    assert out.dtype == bool
    assert out[:, :15].all()
    assert not out[:, 15:].any()


def test_masks_of_zeros_and_ones_are_read_as_well_and_empty_ones_stay_empty(tmp_path: Path) -> None:
    ones = np.zeros((8, 8), np.uint8)
    ones[:4] = 1
    assert read_mask(saved(tmp_path / "a.png", Image.fromarray(ones)), 8).sum() == 32
    assert read_mask(saved(tmp_path / "b.png", Image.fromarray(ones * 0)), 8).sum() == 0
