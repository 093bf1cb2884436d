"""Writes a prepared dataset case by case, holding one picture at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinalign import __version__
from clinalign.core.errors import UserError
from clinalign.core.files import write_json
from clinalign.data.manifest import (
    DATASET,
    IMAGES,
    MASKS,
    METADATA,
    Row,
    count_rows,
    manifest_hash,
    to_json,
    write_manifest,
)
from clinalign.data.masks import MAX_MASKS, encode_masks
from clinalign.data.read_image import Pixels
from clinalign.data.sources.base import Item, Picture, SourceInfo


class DatasetWriter:
    """Fills an empty folder with images, masks and, at the end, the two tables.

    The files are numbered, not named after the case: names such as ``patient_test_3.png`` would tell who is shown, and
    the ``imagefolder`` builder would read them as splits.

    Args:
        folder: Where to write.
        info: What the source is.
    """

    def __init__(self, folder: Path, info: SourceInfo) -> None:
        self._folder = folder
        self._info = info
        self._mask_names: list[str] = []
        self.rows: list[Row] = []
        (folder / IMAGES).mkdir()

    def add(self, item: Item, picture: Picture) -> None:
        """Write the picture of ``item`` and remember its row (without a split yet).

        Raises:
            UserError: When the dataset would have more than ``MAX_MASKS`` kinds of masks.
        """
        number = f"{len(self.rows):07d}.png"
        Image.fromarray(picture.image).save(self._folder / IMAGES / number, compress_level=1)
        row: Row = {
            "file_name": f"{IMAGES}/{number}",
            "text": item.text,
            "split": item.split,
            "case_id": item.case_id,
            "group_id": item.group_id,
            "image_hash": hash_pixels(picture.image),
            "mask_file_name": self._add_masks(number, picture),
            "boxes": to_json(picture.boxes),
            "parameters": to_json(picture.parameters),
        }
        row |= {f"attr_{name}": item.attributes[name] for name in self._info.attribute_names}
        row |= {f"sub_{name}": item.subgroups[name] for name in self._info.subgroup_names}
        self.rows.append(row)

    def _add_masks(self, number: str, picture: Picture) -> str | None:
        """Write the masks of a picture, if it has any, and return the file's name in the dataset."""
        if not picture.masks:
            return None
        self._mask_names += [name for name in picture.masks if name not in self._mask_names]
        if len(self._mask_names) > MAX_MASKS:
            raise UserError(f"more than {MAX_MASKS} kinds of masks ({', '.join(self._mask_names)}): leave some out")
        (self._folder / MASKS).mkdir(exist_ok=True)
        (self._folder / MASKS / number).write_bytes(encode_masks(picture.masks, self._mask_names))
        return f"{MASKS}/{number}"

    def finish(self, splits: Sequence[str], image_size: int, extra: Mapping[str, Any]) -> None:
        """Write ``metadata.parquet`` and ``dataset.json``.

        Args:
            splits: Split of each case, in the order of :meth:`add`.
            image_size: Side of the images in pixels.
            extra: Further entries of ``dataset.json`` (seed, fractions, what was left out, ...).
        """
        for row, split in zip(self.rows, splits, strict=True):
            row["split"] = split
        names, subgroups = self._info.attribute_names, self._info.subgroup_names
        write_manifest(self._folder / METADATA, self.rows, names, subgroups)
        content = {
            "source": self._info.name,
            "modality": self._info.modality,
            "licence": self._info.licence,
            "citation": self._info.citation,
            "image_size": image_size,
            "channels": self._info.channels,
            "attribute_names": list(names),
            "prompt_attributes": list(self._info.prompt_attributes or names),
            "attribute_groups": {name: list(group) for name, group in self._info.attribute_groups.items()},
            "subgroup_names": list(subgroups),
            "mask_names": self._mask_names,
            **count_rows(self.rows, names),
            **extra,
            "clinalign_version": __version__,
            "manifest_hash": manifest_hash(self.rows),
        }
        write_json(self._folder / DATASET, content)


def hash_pixels(pixels: Pixels) -> str:
    """Return 16 hexadecimal digits that depend on the pixels alone, not on how the file compresses them."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]
