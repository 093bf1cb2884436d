"""Any folder of images with a table: the source for your own data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from clinalign.core.errors import UserError, nearest
from clinalign.data.read_image import read_image
from clinalign.data.sources.base import Item, Picture, SourceInfo, SourceOptions
from clinalign.data.sources.settings import apply_settings
from clinalign.data.sources.tables import (
    check_unique,
    choose_groups,
    find_file,
    parse_bit,
    read_table,
    require_columns,
    require_root,
)
from clinalign.data.splits import SPLITS, check_groups

TABLES = ("metadata.csv", "metadata.parquet")


@dataclass(frozen=True)
class FolderSettings:
    """What the table cannot say about a folder of images.

    Attributes:
        modality: ``dermoscopy``, ``chest x-ray``, or another short name.
        licence: Licence of the images.
        citation: What to cite.
        channels: 3 for colour, 1 for grey.
        exclusive: Attributes of which exactly one is present, such as ``[MEL, NV]``.
    """

    modality: str = "unknown"
    licence: str = "unknown: the owner of the folder knows"
    citation: str = ""
    channels: int = 3
    exclusive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UserError(f"channels is {self.channels}: write 3 for colour or 1 for grey")


class Folder:
    """A folder with ``metadata.csv`` or ``metadata.parquet`` and the images that it names.

    Columns: ``file_name`` (relative to the folder), ``text``, the patient or lesion column (``--group-column``, by
    default ``group_id``), optional ``case_id`` (else the file name), ``attr_*`` (1, 0 or nothing), ``sub_*`` (any word
    or nothing) and ``split``, which is kept when it is given for every row and no group lies on two sides. Settings:
    :class:`FolderSettings`.

    Args:
        options: Root, size, number of cases, group column, settings.

    Raises:
        UserError: When the folder, the table, a column, a label or a split is not as it must be.
    """

    def __init__(self, options: SourceOptions) -> None:
        settings = apply_settings(FolderSettings(), options.settings, "folder")
        self._root = require_root(options.root, "folder")
        self._table = find_file(self._root, TABLES)
        self._group = options.group_column
        rows = _read(self._table, ("file_name", "text", self._group))
        self._check(rows)
        groups = [row[self._group] for row in rows]
        self._rows = [rows[index] for index in choose_groups(groups, options.cases, options.seed)]
        self._size = options.image_size
        attributes = tuple(name[len("attr_") :] for name in rows[0] if name.startswith("attr_"))
        for name in settings.exclusive:
            if name not in attributes:
                raise UserError(f"--set exclusive: {self._table} has no 'attr_{name}'; {nearest(name, attributes)}")
        self.info = SourceInfo(
            name="folder",
            modality=settings.modality,
            licence=settings.licence,
            citation=settings.citation,
            channels=settings.channels,
            attribute_names=attributes,
            subgroup_names=tuple(name[len("sub_") :] for name in rows[0] if name.startswith("sub_")),
            attribute_groups={"diagnosis": tuple(settings.exclusive)} if settings.exclusive else {},
        )

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def missing(self) -> Sequence[str]:
        """Return the case ids whose file is not there."""
        return [_case_id(row) for row in self._rows if not (self._root / row["file_name"]).is_file()]

    def items(self) -> Iterator[Item]:
        """Go through the rows in order."""
        for row in self._rows:
            yield Item(
                case_id=_case_id(row),
                group_id=row[self._group].strip(),
                text=row["text"].strip(),
                attributes={name: parse_bit(row[f"attr_{name}"], "") for name in self.info.attribute_names},
                subgroups={name: row[f"sub_{name}"].strip() or None for name in self.info.subgroup_names},
                read=partial(self._read_picture, self._root / row["file_name"]),
                split=row.get("split") or None,
            )

    def _read_picture(self, path: Path) -> Picture:
        """Read one image."""
        return Picture(read_image(path, self._size, self.info.channels))

    def _check(self, rows: Sequence[dict[str, str]]) -> None:
        """Raise :class:`UserError` when a row is not as it must be."""
        check_unique([_case_id(row) for row in rows], self._table, "case_id" if "case_id" in rows[0] else "file_name")
        for number, row in enumerate(rows, start=2):
            place = f"{self._table} line {number}"
            name = PurePosixPath(row["file_name"])
            if not row["file_name"] or name.is_absolute() or ".." in name.parts:
                raise UserError(f"{place}: file_name '{row['file_name']}' must be a path inside {self._root}")
            if not row["text"].strip():
                raise UserError(f"{place}: the text is empty; give every image a prompt or report")
            if not row[self._group].strip():
                raise UserError(f"{place}: '{self._group}' is empty; give every image its patient or lesion")
            for column in row:
                if column.startswith("attr_"):
                    parse_bit(row[column], f"{place}, column {column}")
        splits = [row.get("split", "") for row in rows]
        if any(splits):
            for number, split in enumerate(splits, start=2):
                if split not in SPLITS:
                    raise UserError(f"{self._table} line {number}: unknown split '{split}'; {nearest(split, SPLITS)}")
            check_groups([row[self._group] for row in rows], splits)


def _case_id(row: dict[str, str]) -> str:
    """The case id of a row."""
    return row.get("case_id") or row["file_name"]


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the csv or parquet table, every cell as text and nothing for a null."""
    if path.suffix == ".csv":
        return read_table(path, columns)
    try:
        frame = pd.read_parquet(path)
    except Exception as error:  # pyarrow fails with several types on damaged bytes
        raise UserError(f"{path}: not a parquet file ({str(error).splitlines()[0]})") from error
    require_columns(path, [str(name) for name in frame.columns], columns)
    if frame.empty:
        raise UserError(f"{path}: has no rows")
    return [{str(name): _text(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _text(value: object) -> str:
    """A cell as text: nothing for a null, ``1`` and ``0`` for truth values."""
    if value is None or value is pd.NA or value != value:
        return ""
    return str(int(value)) if isinstance(value, (bool, np.bool_)) else str(value)
