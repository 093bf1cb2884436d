"""Frontal chest-film phantoms of our own: an adult chest with six findings whose truth is known to the pixel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from clinalign.core.errors import UserError
from clinalign.data.phantoms.cxr_anatomy import Regions, ramp, regions_of
from clinalign.data.phantoms.cxr_film import healthy_film
from clinalign.data.phantoms.cxr_findings import consolidation, device, effusion, nodule, pneumothorax
from clinalign.data.phantoms.cxr_report import compose_report
from clinalign.data.phantoms.cxr_scene import Scene, draw_scene
from clinalign.data.phantoms.cxr_settings import CXR_ATTRIBUTES, CXR_SUBGROUPS, CxrSettings
from clinalign.data.phantoms.types import BoolImage, FloatImage, Phantom, box_of

__all__ = ["CXR_ATTRIBUTES", "CXR_SUBGROUPS", "CxrSettings", "compose_report", "draw_cxr"]

_SUPERSAMPLING = 2
_SMALLEST, _LARGEST = 16, 1024
_DEFAULT = CxrSettings()  # kept, because its table of combinations is worth computing once


def _patient_frame(scene: Scene, size: int) -> tuple[FloatImage, FloatImage]:
    """Return the patient's coordinates ``(u, v)`` of every supersampled pixel, each ``(2 size, 2 size)``."""
    numbers = scene.parameters
    centers = ((np.arange(_SUPERSAMPLING * size) + 0.5) / (_SUPERSAMPLING * size) - 0.5).astype(np.float32)
    x = centers[None, :] - np.float32(numbers["shift_x"])
    y = centers[:, None] - np.float32(numbers["shift_y"])
    angle = np.radians(numbers["rotation"])
    cos, sin = np.float32(np.cos(angle) / numbers["zoom"]), np.float32(np.sin(angle) / numbers["zoom"])
    return x * cos + y * sin, y * cos - x * sin


def _findings(scene: Scene, regions: Regions, film: FloatImage) -> tuple[FloatImage, dict[str, BoolImage]]:
    """Add the findings that are present to ``film``; return it and their masks."""
    anatomy, numbers, masks = scene.anatomy, scene.parameters, dict[str, BoolImage]()
    if scene.attributes["pneumothorax"]:
        added, masks["pneumothorax"] = pneumothorax(anatomy, regions, numbers)
        film = film + added
    if scene.attributes["consolidation"]:
        added, masks["consolidation"] = consolidation(anatomy, regions, numbers)
        film = film + added
    if scene.attributes["nodule"]:
        added, masks["nodule"] = nodule(regions, numbers)
        film = film + added
    if scene.attributes["effusion"]:
        added, masks["effusion"] = effusion(anatomy, regions, numbers, film)
        film = film + added
    if scene.attributes["device"]:
        added, masks["device"] = device(anatomy, regions, numbers)
        film = film + added
    if scene.attributes["cardiomegaly"]:
        masks["cardiomegaly"] = regions.heart > 0
    return film, masks


def _expose(scene: Scene, film: FloatImage, body: FloatImage, noise: np.random.Generator) -> FloatImage:
    """Turn whiteness into grey on ``[0, 1]``: saturation of dense parts, exposure, marker and grain; at final size."""
    black, white, gamma, _ = scene.anatomy.exposure
    size = film.shape[0]
    film = np.maximum(film * body, 0)
    # Above 0.75 the film saturates towards white instead of clipping, so that the heart's border stays visible.
    film = np.where(film > 0.75, np.float32(0.75) + np.float32(0.25) * np.tanh((film - np.float32(0.75)) * 4), film)
    grey = np.float32(black) + np.float32(white - black) * film ** np.float32(gamma)
    tilt = noise.uniform(-0.05, 0.05, 2)
    ramp_x = np.linspace(-1, 1, size, dtype=np.float32)
    grey = grey + (np.float32(tilt[0]) * ramp_x[None, :] + np.float32(tilt[1]) * ramp_x[:, None]) * body
    grain = noise.standard_normal((size, size), dtype=np.float32)
    return grey + np.float32(scene.anatomy.noise) * grain


def _pool(image: FloatImage) -> FloatImage:
    """Average blocks of supersampled pixels: ``(2 size, 2 size)`` to ``(size, size)``."""
    pooled: FloatImage = 0.25 * (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2])
    return pooled


def _touched(mask: BoolImage) -> BoolImage:
    """Return the pixels of which any supersampled part lies in ``mask``."""
    return mask[::2, ::2] | mask[1::2, ::2] | mask[::2, 1::2] | mask[1::2, 1::2]


def draw_cxr(
    seed: int, size: int, attributes: Mapping[str, int] | None = None, settings: CxrSettings | None = None
) -> Phantom:
    """Draw one frontal chest film.

    The patient's left is on the picture's right. All numbers are drawn before rendering, so a seed shows the same scene
    at every size (only the grain differs), and the same patient and posture whichever attributes are asked for.

    Args:
        seed: Any integer of at least 0; the same seed and arguments give the same picture.
        size: Side in pixels, 16 to 1024.
        attributes: Attributes of ``CXR_ATTRIBUTES`` to honour exactly; the rest is drawn given these.
        settings: Distribution of what is drawn; ``None`` for the default one.

    Returns:
        The phantom. ``subgroups`` has ``sex``, ``age_band`` and ``view``. ``masks`` has ``lung_left``, ``lung_right``
        (the lung fields, opacities included), ``heart``, and each finding that is present (for cardiomegaly the heart);
        a mask holds every pixel that its structure touches, and ``boxes`` the tight box around each. ``parameters`` has
        ``rotation`` (degrees, clockwise), ``zoom``, ``shift_x``, ``shift_y`` (fractions of the width, right and down),
        ``cardiothoracic_ratio``, and for each finding present its numbers: ``_side`` (-1 the patient's right, +1 left),
        ``_zone`` (0 upper, 1 middle, 2 lower), ``_extent`` (0 small, 1 moderate, 2 large), ``device_kind`` (0
        pacemaker, 1 chest port, 2 central venous catheter).

    Raises:
        UserError: For a seed or size out of range, an unknown attribute or a value other than 0 and 1.
    """
    if seed < 0:
        raise UserError(f"phantom seed is {seed}: give an integer of at least 0")
    if not _SMALLEST <= size <= _LARGEST:
        raise UserError(f"phantom size is {size}: give {_SMALLEST} to {_LARGEST} pixels")
    settings = settings or _DEFAULT
    scene = draw_scene(seed, attributes or {}, settings)
    anatomy = scene.anatomy
    regions = regions_of(anatomy, *_patient_frame(scene, size))
    film, body = healthy_film(anatomy, regions)
    film, found = _findings(scene, regions, film)
    if anatomy.marker:
        # A lead letter beside the left shoulder, as on real films; no finding ever lies there.
        wide, high = np.abs(regions.u - np.float32(0.43)), np.abs(regions.v + np.float32(0.42))
        letter = np.maximum(wide - np.float32(0.008), high - np.float32(0.018))
        mark = ramp(-letter, 0.008)
        film, body = film + np.float32(0.5) * mark, np.maximum(body, mark)
    grey = _expose(scene, _pool(film), _pool(body), np.random.default_rng([seed, 4]))
    masks = {
        "lung_left": _touched(regions.lung_mask(1.0)),
        "lung_right": _touched(regions.lung_mask(-1.0)),
        "heart": _touched(regions.heart > 0),
        **{name: _touched(mask) for name, mask in found.items()},
    }
    pixels = np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
    boxes = {name: box for name, mask in masks.items() if (box := box_of(mask)) is not None}
    return Phantom(
        image=np.repeat(pixels[:, :, None], 3, axis=2),
        attributes=scene.attributes,
        subgroups=scene.subgroups,
        masks=masks,
        boxes=boxes,
        report=compose_report(scene.attributes, scene.parameters, settings.report_negatives),
        parameters=scene.parameters,
    )
