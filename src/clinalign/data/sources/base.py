"""What a data source gives: who it is, and its cases one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from clinalign.data.read_image import Pixels

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """The image of one case at the size asked for.

    Attributes:
        image: ``uint8`` ``(size, size, 3)``, or ``(size, size)`` where the source is grey.
        masks: Region name to ``(size, size)`` bool; may be empty.
        boxes: Region name to ``(left, top, right, bottom)`` as fractions of the side in ``[0, 1]``; may be empty.
        parameters: Continuous truth of a phantom (rotation, zoom, ...); may be empty.
    """

    image: Pixels
    masks: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    boxes: Mapping[str, Box] = field(default_factory=dict)
    parameters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One case of a source before it has a split.

    Attributes:
        case_id: Unique in the source.
        group_id: Patient or lesion; empty where unknown, which is refused when the splits are made.
        text: Prompt or report.
        attributes: Name to 1, 0 or ``None`` (unknown).
        subgroups: Name to value or ``None`` (unknown).
        read: Draws or reads the picture; raises :class:`UserError` where it cannot.
        split: Split that the source fixes; ``None`` to have one assigned.
    """

    case_id: str
    group_id: str
    text: str
    attributes: Mapping[str, int | None]
    subgroups: Mapping[str, str | None]
    read: Callable[[], Picture]
    split: str | None = None


@dataclass(frozen=True)
class SourceInfo:
    """What a source is, for ``dataset.json``.

    Attributes:
        name: Name in the registry.
        modality: ``dermoscopy`` or ``chest x-ray``.
        licence: Licence of the images.
        citation: What to cite.
        channels: 3 for colour, 1 for grey.
        attribute_names: Ordered names of the attributes.
        subgroup_names: Ordered names of the subgroup columns.
        attribute_groups: Sets of mutually exclusive attributes, by name.
        prompt_attributes: The attributes that the texts speak of: what a picture can be asked to keep. ``None``: all.
    """

    name: str
    modality: str
    licence: str
    citation: str
    channels: int
    attribute_names: tuple[str, ...]
    subgroup_names: tuple[str, ...]
    attribute_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompt_attributes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SourceOptions:
    """What a user can say to a source.

    Attributes:
        root: Folder with the user's own copy; not needed for phantoms.
        image_size: Side of the pictures in pixels.
        seed: Seed of the phantoms and of the choice of ``cases``.
        cases: How many cases to take (whole groups, drawn at random), or to draw; ``None`` for all, or the default.
        group_column: Name of the patient or lesion column (source ``folder``).
        settings: Further settings by dotted name, for example ``prompt.sex`` or ``prevalence.hair``.
    """

    root: Path | None = None
    image_size: int = 64
    seed: int = 0
    cases: int | None = None
    group_column: str = "group_id"
    settings: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A data source. Its constructor takes :class:`SourceOptions` and checks the tables, but reads no image."""

    info: SourceInfo

    def __len__(self) -> int:
        """Return the number of cases."""
        ...

    def items(self) -> Iterator[Item]:
        """Go through the cases in a fixed order."""
        ...

    def missing(self) -> Sequence[str]:
        """Return the case ids whose image file is not there; found without reading an image."""
        ...
