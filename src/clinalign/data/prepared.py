"""A prepared dataset: a folder of equal images, their texts, labels and splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from clinalign.core.errors import UserError, nearest
from clinalign.core.images import resize
from clinalign.core.types import Case
from clinalign.data.manifest import DATASET, METADATA, Row, manifest_hash, read_manifest
from clinalign.data.masks import decode_mask
from clinalign.data.sources.base import Box

INFO_KEYS = (
    "source",
    "image_size",
    "channels",
    "modality",
    "attribute_names",
    "attribute_groups",
    "subgroup_names",
    "counts",
)


class PreparedDataset:
    """A prepared dataset, opened with :meth:`open`.

    Attributes:
        path: The folder.
        info: The content of ``dataset.json``.
        attribute_names: Ordered names of the attributes; the columns of :meth:`labels`.
        image_size: Side of the images in pixels.
        modality: ``dermoscopy`` or ``chest x-ray``.
        mask_names: Ordered names of the regions that masks may show; empty where there are none.
    """

    def __init__(self, path: Path, info: dict[str, Any], rows: list[Row]) -> None:
        self.path = path
        self.info = info
        self.attribute_names: tuple[str, ...] = tuple(info["attribute_names"])
        self.image_size = int(info["image_size"])
        self.modality = str(info["modality"])
        self.mask_names: tuple[str, ...] = tuple(info.get("mask_names", ()))
        self.rows = rows

    @classmethod
    def open(cls, path: Path | str) -> PreparedDataset:
        """Open the folder ``path``.

        Raises:
            UserError: When it is not a prepared dataset.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; make a dataset with `clinalign data prepare`")
        return cls(folder, read_info(folder), read_manifest(folder / METADATA))

    @property
    def subgroup_names(self) -> tuple[str, ...]:
        """Ordered names of the subgroup columns."""
        return tuple(self.info["subgroup_names"])

    @property
    def prompt_attributes(self) -> tuple[str, ...]:
        """The attributes that the texts speak of; a picture is judged on no others."""
        return tuple(self.info.get("prompt_attributes", self.attribute_names))

    def prompts(self, split: str) -> list[Case]:
        """Return the cases of ``split`` as requests for pictures: with the attributes that their texts speak of."""
        named = self.prompt_attributes
        return [
            replace(case, attributes={name: case.attributes.get(name) for name in named}) for case in self.cases(split)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the manifest, pixels included; recorded by everything that is trained on the dataset."""
        return manifest_hash(self.rows)

    @cached_property
    def _all(self) -> list[Case]:
        """Every case, in the order of the manifest."""
        return [self._case(row) for row in self.rows]

    @cached_property
    def _by_id(self) -> dict[str, Row]:
        """Case id to row."""
        return {row["case_id"]: row for row in self.rows}

    def _case(self, row: Row) -> Case:
        """Make the case of a row."""
        return Case(
            case_id=row["case_id"],
            text=row["text"],
            attributes={name: row.get(f"attr_{name}") for name in self.attribute_names},
            group_id=row["group_id"],
            split=row["split"],
            subgroups={name: row.get(f"sub_{name}") for name in self.subgroup_names},
            image=self.path / inside(row["file_name"], self.path),
        )

    def cases(self, split: str | None = None) -> list[Case]:
        """Return the cases of ``split``, or all, in the order of the manifest.

        Raises:
            UserError: When the dataset has no case in ``split``.
        """
        chosen = [case for case in self._all if split is None or case.split == split]
        if not chosen:
            known = sorted({case.split for case in self._all})
            hint = nearest(str(split), known) if known else "it holds no case at all"
            raise UserError(f"{self.path}: no case in split '{split}'; {hint}")
        return chosen

    def images(self, cases: Sequence[Case], size: int | None = None) -> torch.Tensor:
        """Read the images of ``cases``.

        Args:
            cases: Any cases with an image, of this dataset or another.
            size: Side in pixels; ``None`` for the dataset's own.

        Returns:
            ``(N, 3, size, size)`` float32 in ``[0, 1]``; grey films repeat their one channel.

        Raises:
            UserError: When an image is missing or damaged.
        """
        side = size or self.image_size
        out = torch.empty((len(cases), 3, side, side))
        for index, case in enumerate(cases):
            pixels = torch.from_numpy(read_pixels(case.image)).permute(2, 0, 1)
            out[index] = pixels if pixels.shape[-2:] == (side, side) else resize(pixels[None].float(), side)[0]
        return out.div_(255.0)

    def labels(self, cases: Sequence[Case]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attributes of ``cases`` as numbers.

        Returns:
            ``(N, K)`` float32 labels, 0 or 1, and ``(N, K)`` bool telling which are known; an unknown label is 0 there.
        """
        values = [[case.attributes.get(name) for name in self.attribute_names] for case in cases]
        shape = (len(cases), len(self.attribute_names))
        labels = torch.tensor([[float(value or 0) for value in row] for row in values]).reshape(shape)
        known = torch.tensor([[value is not None for value in row] for row in values], dtype=torch.bool).reshape(shape)
        return labels, known

    def masks(self, cases: Sequence[Case], name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the masks of region ``name``.

        Returns:
            ``(N, image_size, image_size)`` bool masks and ``(N,)`` bool telling which cases have a mask file; a case
            without one has an empty mask there.

        Raises:
            UserError: When the dataset has no such region, or a file is missing or damaged.
        """
        if name not in self.mask_names:
            hint = nearest(name, self.mask_names) if self.mask_names else "it has no masks"
            raise UserError(f"{self.path}: no masks called '{name}'; {hint}")
        masks = torch.zeros((len(cases), self.image_size, self.image_size), dtype=torch.bool)
        known = torch.zeros(len(cases), dtype=torch.bool)
        for index, case in enumerate(cases):
            file_name = self._by_id[case.case_id].get("mask_file_name")
            if file_name is not None:
                pixels = read_pixels(self.path / inside(file_name, self.path))
                masks[index] = torch.from_numpy(decode_mask(pixels, self.mask_names.index(name)))
                known[index] = True
        return masks, known

    def boxes(self, case: Case) -> dict[str, Box]:
        """Return region name to ``(left, top, right, bottom)`` as fractions of the side in ``[0, 1]``."""
        found = json.loads(self._by_id[case.case_id].get("boxes") or "{}")
        return {name: (box[0], box[1], box[2], box[3]) for name, box in found.items()}

    def parameters(self, case: Case) -> dict[str, float]:
        """Return a phantom's continuous truth (rotation, zoom, ...); empty for real images."""
        found: dict[str, float] = json.loads(self._by_id[case.case_id].get("parameters") or "{}")
        return found


def read_info(folder: Path) -> dict[str, Any]:
    """Read ``dataset.json`` of ``folder``; raise :class:`UserError` when it is not a prepared dataset."""
    path = folder / DATASET
    if not path.is_file():
        raise UserError(f"{folder}: not a prepared dataset (no {DATASET}); make one with `clinalign data prepare`")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); prepare the data again") from error
    missing = [key for key in INFO_KEYS if not isinstance(info, dict) or key not in info]
    if missing:
        raise UserError(f"{path}: has no '{missing[0]}'; prepare the data again")
    content: dict[str, Any] = info
    return content


def inside(file_name: str, folder: Path) -> str:
    """Return ``file_name`` when it lies in its dataset; raise :class:`UserError` when it points out of it."""
    name = PurePosixPath(file_name)
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"{folder / METADATA}: file_name '{file_name}' leaves the dataset; prepare the data again")
    return file_name


def read_pixels(path: Path | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read a prepared image or mask file as ``(H, W, 3)`` uint8; raise :class:`UserError` where it cannot be read."""
    if path is None:
        raise UserError("a case without an image was asked for its image; use cases of a prepared dataset")
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except Exception as error:  # Pillow's decoders fail with many types on damaged bytes
        raise UserError(f"{path}: missing or unreadable; check the dataset with `clinalign data check`") from error
