"""HAM10000: 10,015 dermoscopic images of pigmented lesions, seven diagnoses, with the official csv columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clinalign.core.errors import UserError, nearest
from clinalign.data.prompts import ARTIFACTS, DIAGNOSES, PromptSettings, age_band, skin_prompt
from clinalign.data.read_image import read_image, read_mask
from clinalign.data.sources.base import Item, Picture, SourceInfo, SourceOptions
from clinalign.data.sources.settings import apply_settings, refuse_settings, split_settings
from clinalign.data.sources.tables import (
    check_unique,
    choose_groups,
    find_file,
    index_images,
    parse_bit,
    read_table,
    require_root,
)

ARTIFACT_NAMES = (*ARTIFACTS, "dark_corner")
COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex", "localization")
METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata")
MASK_SUFFIX = "_segmentation"
SEXES = {"male": "male", "female": "female", "unknown": None, "": None}


class Ham10000:
    """The user's copy of HAM10000.

    ``root`` holds ``HAM10000_metadata.csv`` and, anywhere below it, the images and (optional) the lesion masks
    ``<image_id>_segmentation.png``; ``artifacts.csv`` (optional: ``image`` and one 0/1 column an artifact) gives the
    artifacts of the images that it lists, those of all others are unknown. The group is ``lesion_id``. Settings:
    ``prompt.*`` (:class:`~clinalign.data.prompts.PromptSettings`).

    Args:
        options: Root, size, number of cases, settings.

    Raises:
        UserError: When the folder, a file, a column or a label is not as it must be.
    """

    info = SourceInfo(
        name="ham10000",
        modality="dermoscopy",
        licence="CC BY-NC 4.0",
        citation="Tschandl, Rosendahl, Kittler: The HAM10000 dataset, Scientific Data 5, 180161 (2018)",
        channels=3,
        attribute_names=(*ARTIFACT_NAMES, *DIAGNOSES),
        subgroup_names=("age_band", "sex", "site"),
        attribute_groups={"diagnosis": tuple(DIAGNOSES)},
    )

    def __init__(self, options: SourceOptions) -> None:
        prompt, others = split_settings(options.settings, "prompt")
        self._prompt = apply_settings(PromptSettings(), prompt, self.info.name, "prompt.")
        self.info = replace(self.info, prompt_attributes=self._prompt.named(self.info.attribute_names))
        refuse_settings(others, self.info.name, [f"prompt.{name}" for name in vars(PromptSettings())])
        root = require_root(options.root, self.info.name)
        table = find_file(root, METADATA)
        rows = read_table(table, COLUMNS)
        check_unique([row["image_id"] for row in rows], table, "image_id")
        for number, row in enumerate(rows, start=2):
            self._check(row, f"{table} line {number}")
        groups = [row["lesion_id"] for row in rows]
        self._rows = [rows[index] for index in choose_groups(groups, options.cases, options.seed)]
        self._artifacts = _read_artifacts(root / "artifacts.csv")
        self._files = index_images(root)
        self._size = options.image_size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._rows)

    def missing(self) -> Sequence[str]:
        """Return the ids of the images that are not in the folder."""
        return [row["image_id"] for row in self._rows if row["image_id"] not in self._files]

    def items(self) -> Iterator[Item]:
        """Go through the images in the order of the table."""
        for row in self._rows:
            name = row["image_id"]
            attributes: dict[str, int | None] = dict(self._artifacts.get(name, dict.fromkeys(ARTIFACT_NAMES)))
            attributes |= {diagnosis: int(diagnosis == row["dx"].upper()) for diagnosis in DIAGNOSES}
            subgroups = {
                "age_band": age_band(float(row["age"]) if row["age"] else None),
                "sex": SEXES[row["sex"]],
                "site": None if row["localization"] in {"", "unknown"} else row["localization"],
            }
            text = skin_prompt(attributes, subgroups, self._prompt, self._lesion(name) if self._prompt.lesion else None)
            yield Item(name, row["lesion_id"], text, attributes, subgroups, partial(self._read, name))

    def _read(self, name: str) -> Picture:
        """Read one image and, where there is one, its mask."""
        image = read_image(self._files[name], self._size)
        mask = self._files.get(name + MASK_SUFFIX)
        return Picture(image, {"lesion": read_mask(mask, self._size)} if mask else {})

    def _lesion(self, name: str) -> npt.NDArray[np.bool_] | None:
        """Return the lesion's mask for the text; ``None`` where there is none, or where :meth:`_read` will complain."""
        mask = self._files.get(name + MASK_SUFFIX)
        try:
            return read_mask(mask, self._size) if mask else None
        except UserError:
            return None

    @staticmethod
    def _check(row: dict[str, str], place: str) -> None:
        """Raise :class:`UserError` when a value is outside its vocabulary."""
        known = [name.lower() for name in DIAGNOSES]
        if row["dx"] not in known:
            raise UserError(f"{place}: unknown dx '{row['dx']}'; {nearest(row['dx'], known)}")
        if row["sex"] not in SEXES:
            raise UserError(f"{place}: unknown sex '{row['sex']}'; {nearest(row['sex'], [s for s in SEXES if s])}")
        try:
            float(row["age"] or 0)
        except ValueError:
            raise UserError(f"{place}: age '{row['age']}' is not a number; write years or nothing") from None


def _read_artifacts(path: Path) -> dict[str, dict[str, int | None]]:
    """Read the artifact table where there is one: image to artifact to 1, 0 or ``None``."""
    if not path.is_file():
        return {}
    rows = read_table(path, ("image", *ARTIFACT_NAMES))
    check_unique([row["image"] for row in rows], path, "image")
    return {
        row["image"]: {name: parse_bit(row[name], f"{path} line {number}, column {name}") for name in ARTIFACT_NAMES}
        for number, row in enumerate(rows, start=2)
    }
