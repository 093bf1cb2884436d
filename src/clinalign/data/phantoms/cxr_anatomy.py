"""The chest as continuous geometry: where lungs, diaphragm and heart lie, at any point and thus at any resolution.

Everything is measured in picture widths in the patient's own frame: ``u`` grows to the right of the picture (the
patient's left), ``v`` downwards, and the origin is the middle of an upright, centred film.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clinalign.data.phantoms.types import BoolImage, FloatImage

_WIDEST = 0.8  # of the way from lung apex to costophrenic angle


def ramp(distance: FloatImage, softness: float) -> FloatImage:
    """Turn a signed distance into a coverage in ``[0, 1]`` that rises from outside to inside over ``softness``."""
    coverage: FloatImage = np.clip(distance * np.float32(1.0 / softness) + np.float32(0.5), 0.0, 1.0)
    return coverage


def smooth_max(a: FloatImage, b: FloatImage, radius: float) -> FloatImage:
    """Return the maximum of two signed distances, with the corner between them rounded by about ``radius``."""
    overlap = np.maximum(np.float32(radius) - np.abs(a - b), 0)
    rounded: FloatImage = np.maximum(a, b) + overlap * overlap * np.float32(0.25 / radius)
    return rounded


@dataclass(frozen=True)
class Anatomy:
    """One patient's chest and how the film was taken. Lengths in picture widths, levels ``v`` downwards.

    Attributes:
        sex: ``female`` or ``male``.
        age_band: ``18-39``, ``40-64`` or ``65+``.
        view: ``PA`` or ``AP``.
        chest: Half the inner width of the chest at its widest.
        apex: Level of the lung apices, and ``apex_u`` their distance from the midline.
        apex_u: See ``apex``.
        base: Level of the costophrenic angles.
        dome_right: Level of the right diaphragm's dome.
        dome_left: Level of the left dome, usually lower.
        ratio: Cardiothoracic ratio: heart width over inner chest width.
        heart_offset: Heart centre's distance to the patient's left, as a share of the heart's width.
        heart_tilt: Tilt of the heart's long axis in radians.
        heart_aspect: Short over long axis.
        pedicle: Half the width of the upper mediastinum.
        wall: Thickness of chest wall and soft tissue outside the ribs.
        shoulder: Level of the shoulders, and ``slope`` how steeply they fall.
        slope: See ``shoulder``.
        arm_gap: Air between trunk and arms; arms leave the picture where it is large.
        ribs: Spacing, offset and strength of the ribs.
        clavicle: Level of the clavicles' inner ends and slope of their rise.
        hila: Strength of the vessels around the hila and the phase of their branching.
        breast: Strength and level of the breast shadows.
        aorta: How far the aortic knob stands out.
        bubble: Strength of the gastric air under the left dome.
        exposure: Black level, white level and gamma of the film, and depth of the lungs' darkness.
        noise: Standard deviation of the grain, on a scale where white is 1.
        marker: Whether a side marker is visible beside the left shoulder.
    """

    sex: str
    age_band: str
    view: str
    chest: float
    apex: float
    apex_u: float
    base: float
    dome_right: float
    dome_left: float
    ratio: float
    heart_offset: float
    heart_tilt: float
    heart_aspect: float
    pedicle: float
    wall: float
    shoulder: float
    slope: float
    arm_gap: float
    ribs: tuple[float, float, float]
    clavicle: tuple[float, float]
    hila: tuple[float, float]
    breast: tuple[float, float]
    aorta: float
    bubble: float
    exposure: tuple[float, float, float, float]
    noise: float
    marker: bool

    @property
    def heart_half_width(self) -> float:
        """Half the heart's width, from the cardiothoracic ratio."""
        return self.ratio * self.chest

    @property
    def heart_axes(self) -> tuple[float, float]:
        """Half lengths of the heart's long and short axes."""
        cos, sin = np.cos(self.heart_tilt), np.sin(self.heart_tilt)
        long = self.heart_half_width / float(np.hypot(cos, self.heart_aspect * sin))
        return long, long * self.heart_aspect

    @property
    def heart_center(self) -> tuple[float, float]:
        """Heart centre ``(u, v)``; the heart rests on the left dome and sinks a little behind it."""
        long, short = self.heart_axes
        half_height = float(np.hypot(long * np.sin(self.heart_tilt), short * np.cos(self.heart_tilt)))
        return 2 * self.heart_half_width * self.heart_offset, self.dome_left + 0.035 - half_height

    def dome(self, u: FloatImage) -> FloatImage:
        """Return the level of the diaphragm at ``u``."""
        across = np.abs(u) * np.float32(1 / self.chest)
        lefts = np.clip(u * np.float32(1 / 0.12) + np.float32(0.5), 0, 1)  # the domes meet under the heart
        top = np.float32(self.dome_right) + np.float32(self.dome_left - self.dome_right) * lefts
        outside = np.maximum(across - np.float32(0.42), 0) * np.float32(1 / 0.58)
        inside = np.maximum(np.float32(0.42) - across, 0) * np.float32(1 / 0.42)
        level: FloatImage = top + (np.float32(self.base) - top) * outside * outside + np.float32(0.02) * inside * inside
        return level

    def wall_at(self, v: FloatImage) -> FloatImage:
        """Return the inner chest wall's distance from the midline at level ``v``; negative above the apices."""
        t = (v - np.float32(self.apex)) * np.float32(1 / (self.base - self.apex))
        rise = np.clip(1 - t * np.float32(1 / _WIDEST), 0, 1)
        # A superellipse from the apex to the widest level, then slightly inwards down to the angle.
        shape = (1 - rise * rise * np.sqrt(rise)) ** np.float32(0.62)
        fall = np.clip((t - np.float32(_WIDEST)) * np.float32(1 / (1 - _WIDEST)), 0, 2)
        width = np.float32(self.apex_u) + np.float32(self.chest - self.apex_u) * shape
        width = width * (1 - np.float32(0.05) * fall * fall)
        reach: FloatImage = np.where(t < 0, np.float32(-1.0), width)
        return reach

    def mediastinum_at(self, u: FloatImage, v: FloatImage) -> FloatImage:
        """Return the mediastinum's half width at level ``v`` on the side of ``u``, without the heart."""
        t = np.clip((v - np.float32(self.apex)) * np.float32(1 / 0.11), 0, 1)
        # Above the aortic arch the lungs' inner borders run from the apices down to the pedicle.
        taper = np.float32(self.apex_u - self.pedicle) * (1 - np.sqrt(t * (2 - t)))
        knob = (v - np.float32(self.apex + 0.22)) * np.float32(1 / 0.045)
        side = np.where(u < 0, np.float32(0.0), np.float32(self.aorta))
        # Towards the heart the great vessels widen it, but never beyond the heart's own borders.
        arch, (center_u, center_v) = self.apex + 0.24, self.heart_center
        down = np.clip((v - np.float32(arch)) * np.float32(1 / (center_v - arch)), 0, 1)
        edge = self.heart_half_width + np.where(u < 0, np.float32(-center_u), np.float32(center_u))
        flare = np.maximum(np.float32(0.72) * edge - np.float32(self.pedicle), 0) * down * down
        width: FloatImage = np.float32(self.pedicle) + taper + side * np.exp(-knob * knob) + flare
        return width

    def heart(self, u: FloatImage, v: FloatImage) -> FloatImage:
        """Return the signed distance to the heart's outline, positive inside, to first order."""
        (center_u, center_v), (long, short) = self.heart_center, self.heart_axes
        cos, sin = np.float32(np.cos(self.heart_tilt)), np.float32(np.sin(self.heart_tilt))
        du, dv = u - np.float32(center_u), v - np.float32(center_v)
        along, across = (du * cos + dv * sin) * np.float32(1 / long), (dv * cos - du * sin) * np.float32(1 / short)
        distance: FloatImage = (1 - np.sqrt(along * along + across * across)) * np.float32(short)
        return distance


@dataclass(frozen=True)
class Regions:
    """Signed distances of the main regions at every point, positive inside, in picture widths.

    Attributes:
        u: Patient's frame, to the right of the picture.
        v: Patient's frame, downwards.
        inside: To the inner chest wall.
        above: To the diaphragm, positive above it.
        heart: To the heart's outline.
        center: To the outline of heart and mediastinum together.
        lung: To the lungs' outline, both sides.
    """

    u: FloatImage
    v: FloatImage
    inside: FloatImage
    above: FloatImage
    heart: FloatImage
    center: FloatImage
    lung: FloatImage

    def lung_mask(self, side: float) -> BoolImage:
        """Return where the lung of ``side`` lies (-1 the patient's right, on the picture's left; +1 the left)."""
        mask: BoolImage = (self.lung > 0) & (self.u * np.float32(side) > 0)
        return mask


def regions_of(anatomy: Anatomy, u: FloatImage, v: FloatImage) -> Regions:
    """Measure the regions of ``anatomy`` at points ``(u, v)``, any equal shapes."""
    distance = np.abs(u)
    inside = anatomy.wall_at(v) - distance
    above = anatomy.dome(u) - v
    heart = anatomy.heart(u, v)
    center = smooth_max(anatomy.mediastinum_at(u, v) - distance, heart, 0.03)
    lung = np.minimum(np.minimum(inside, above), -center)
    return Regions(u, v, inside, above, heart, center, lung)
