"""Dermoscopy phantoms: pictures of skin lesions of our own making, with every attribute known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from clinalign.core.errors import UserError
from clinalign.data.phantoms import drawing
from clinalign.data.phantoms.skin_artifacts import LAYERS
from clinalign.data.phantoms.skin_lesion import draw_lesion
from clinalign.data.phantoms.skin_settings import DEFAULT_SETTINGS, SkinSettings, draw_labels
from clinalign.data.phantoms.skin_surface import draw_surface
from clinalign.data.phantoms.types import BoolImage, Box, Phantom, box_of

__all__ = ["SkinSettings", "draw_skin"]

# One random stream a part, so that switching one part on or off leaves the others as they are.
_STREAMS = {name: number for number, name in enumerate(("labels", "surface", "lesion", *sorted(LAYERS)))}
_TOUCHED = 0.08  # a pixel belongs to an artifact when more than this share of it is covered


def draw_skin(
    seed: int,
    size: int,
    attributes: Mapping[str, int] | None = None,
    settings: SkinSettings = DEFAULT_SETTINGS,
    *,
    subgroups: Mapping[str, str] | None = None,
) -> Phantom:
    """Draw one dermoscopy phantom.

    The same seed gives the same scene at every size, and the same scene apart from what ``attributes`` changes: with
    ``{"hair": 1}`` and ``{"hair": 0}`` it gives a pair of pictures that differ by the hair alone.

    Args:
        seed: 0 or more.
        size: Pixels a side, at least 16.
        attributes: Values to honour, 0 or 1; the others are drawn from ``settings``. Names are
            ``settings.attribute_names``; at most one diagnosis may be 1.
        settings: Prevalences, shares and correlations of the population.
        subgroups: Values to honour for ``skin_tone``, ``age_band``, ``sex`` or ``site``.

    Returns:
        The phantom. Its masks are ``lesion`` (opacity above one half, before artifacts) and one for each artifact that
        is present (the pixels that it touches and that the dark corner does not hide); its parameters are ``lesion_x``,
        ``lesion_y``, ``lesion_radius`` (unit coordinates), ``lesion_aspect``, ``lesion_angle`` (degrees) and
        ``lesion_irregularity`` (relative).

    Raises:
        UserError: On an unknown or contradictory attribute, an unknown subgroup, a negative seed, or a size below 16.
    """
    if seed < 0:
        raise UserError(f"seed of a skin phantom is {seed}: give 0 or more")
    if size < 16:
        raise UserError(f"size of a skin phantom is {size}: give at least 16 pixels")

    def stream(name: str) -> np.random.Generator:
        return np.random.default_rng((seed, _STREAMS[name]))

    labels, groups, diagnosis = draw_labels(stream("labels"), attributes or {}, settings, subgroups or {})
    n = size * drawing.SUPERSAMPLING
    picture = draw_surface(stream("surface"), n, groups["skin_tone"], groups["age_band"])
    lesion = draw_lesion(stream("lesion"), n, picture, diagnosis)
    masks: dict[str, BoolImage] = {"lesion": drawing.to_mask(lesion.alpha, 0.5)}
    layers = {name: draw(stream(name), n, picture, lesion) for name, draw in LAYERS.items() if labels[name]}
    visible = 1.0 - layers["dark_corner"] if labels["dark_corner"] else np.float32(1.0)
    for name, alpha in layers.items():
        masks[name] = drawing.to_mask(alpha if name == "dark_corner" else alpha * visible, _TOUCHED)
    boxes: dict[str, Box] = {name: box for name, mask in masks.items() if (box := box_of(mask)) is not None}
    return Phantom(
        image=drawing.to_picture(picture),
        attributes=labels,
        subgroups=groups,
        masks=masks,
        boxes=boxes,
        parameters={
            "lesion_x": lesion.x,
            "lesion_y": lesion.y,
            "lesion_radius": lesion.radius,
            "lesion_aspect": lesion.aspect,
            "lesion_angle": float(np.degrees(lesion.angle)),
            "lesion_irregularity": lesion.irregularity,
        },
    )
