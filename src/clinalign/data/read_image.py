"""Reads any image file that a medical archive may hold, or says in one line why it cannot.

The contract of what comes out: 8-bit, upright, square, of the size asked for, RGB or grey. The largest centred square
is cut out and resized with an antialiased bicubic filter.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from clinalign.core.errors import UserError

MAX_PIXELS = 100_000_000
"""Pictures above 100 megapixels are refused before they are decoded: they fill the memory."""

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of grey pixels with more than 8 bits."""

Pixels = npt.NDArray[np.uint8]


def read_image(path: Path, size: int, channels: int = 3) -> Pixels:
    """Read the image in ``path`` as 8-bit pixels, ``size`` by ``size``.

    The orientation in EXIF is applied. Grey images deeper than 8 bits are stretched from their own darkest to their own
    brightest value (12 bits in a 16-bit file would else come out black). Transparent pixels are laid on black, the
    colour of what lies outside a dermoscope's or a film's field. CMYK becomes RGB. Of several frames the first is read.

    Args:
        path: The file.
        size: Side of the result in pixels.
        channels: 3 for RGB, 1 for grey.

    Returns:
        ``uint8`` pixels, ``(size, size, 3)``, or ``(size, size)`` for one channel.

    Raises:
        UserError: When the file is missing, empty, no image, truncated, or larger than ``MAX_PIXELS``.
    """
    picture = _open(path, size)
    picture = _eight_bits(picture, path).convert("RGB" if channels == 3 else "L")
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=_square(picture)))


def read_mask(path: Path, size: int) -> npt.NDArray[np.bool_]:
    """Read a mask with the geometry of :func:`read_image`; pixels of at least half the largest value are inside.

    Args:
        path: The mask, as large as its image.
        size: Side of the result in pixels.

    Returns:
        ``(size, size)`` bool.

    Raises:
        UserError: As :func:`read_image`.
    """
    picture = _eight_bits(_open(path, None), path).convert("L")
    # The mean over each target pixel, not its nearest source pixel: a thin structure must not vanish by chance.
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.BOX, box=_square(picture)))
    top = int(np.asarray(picture).max())
    return (pixels >= (top + 1) // 2) & (pixels > 0)


def _open(path: Path, size: int | None) -> Image.Image:
    """Open and decode ``path``, upright; a JPEG is decoded at reduced size where at least twice ``size`` remains."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty (0 bytes); copy it again")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such image") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours
            picture = Image.open(path)
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_large(path, f"{picture.width} x {picture.height} pixels")
            if size is not None and picture.format == "JPEG":
                picture.draft(None, (2 * size, 2 * size))
            picture.load()
            return ImageOps.exif_transpose(picture)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(path, "more than twice that") from None
    except Exception as error:  # Pillow's decoders fail with many types on damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image that Pillow can read"
        raise UserError(f"{path}: unreadable ({reason}); copy it again or convert it to PNG") from error


def _too_large(path: Path, found: str) -> UserError:
    """The refusal of a huge picture."""
    return UserError(f"{path}: larger than {MAX_PIXELS // 1_000_000} megapixels ({found}); shrink it first")


def _eight_bits(picture: Image.Image, path: Path) -> Image.Image:
    """Bring deep grey to 8 bits by its real range, and lay transparency on black."""
    if picture.mode in DEEP_MODES:
        values = np.asarray(picture).astype(np.float64)
        if not np.isfinite(values).all():
            raise UserError(f"{path}: holds values that are not finite; convert it to PNG")
        low, high = values.min(), values.max()
        scaled = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(scaled.round().astype(np.uint8))
    if picture.has_transparency_data:
        solid = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", solid.size, (0, 0, 0, 255)), solid).convert("RGB")
    return picture


def _square(picture: Image.Image) -> tuple[float, float, float, float]:
    """The largest centred square: left, upper, right, lower."""
    side = min(picture.size)
    left, upper = (picture.width - side) / 2, (picture.height - side) / 2
    return (left, upper, left + side, upper + side)
