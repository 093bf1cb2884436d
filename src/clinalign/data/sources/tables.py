"""What every source that reads a folder does: find its files, read its table, read its labels, choose its cases."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from clinalign.core.errors import UserError, nearest
from clinalign.core.seeds import derive_seed

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})


def require_root(root: Path | None, source: str) -> Path:
    """Return ``root`` when it is a folder with something in it; raise :class:`UserError` otherwise."""
    if root is None:
        raise UserError(f"source '{source}' reads your own copy of the data: say where it is with --root DIR")
    if not root.exists():
        raise UserError(f"--root {root}: no such folder")
    if not root.is_dir():
        raise UserError(f"--root {root}: not a folder")
    if not any(root.iterdir()):
        raise UserError(f"--root {root}: the folder is empty")
    return root


def find_file(root: Path, names: Sequence[str]) -> Path:
    """Return the first of ``names`` that is a file in ``root``; raise :class:`UserError` when none is."""
    for name in names:
        if (root / name).is_file():
            return root / name
    raise UserError(f"{root}: has no {names[0]}; --root must be the folder that holds it")


def read_table(path: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """Read a csv file with a header as one dict a row.

    Args:
        path: The file; UTF-8, with or without a byte-order mark.
        columns: Columns that must be there.

    Raises:
        UserError: When the file is not text, has no rows, lacks a column, or a row is cut short.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            header = list(reader.fieldnames or [])
            require_columns(path, header, columns)
            rows = []
            for row in reader:
                if any(row[column] is None for column in columns):
                    raise UserError(f"{path} line {reader.line_num}: has fewer fields than the header; the file is cut")
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a csv file in UTF-8 ({error})") from error
    if not rows:
        raise UserError(f"{path}: has a header but no rows")
    return rows


def require_columns(path: Path, header: Collection[str], columns: Collection[str]) -> None:
    """Raise :class:`UserError` when one of ``columns`` is not in ``header``, the columns of ``path``."""
    for column in columns:
        if column not in header:
            raise UserError(f"{path}: has no column '{column}'; {nearest(column, header) if header else 'it is empty'}")


def index_images(root: Path) -> dict[str, Path]:
    """Map the stem of each image file anywhere under ``root`` to its path; the first one found is kept."""
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(stem, Path(folder, name))
    return found


def parse_bit(value: str, place: str) -> int | None:
    """Read a label: ``1``, ``0`` (also ``1.0``, ``0.0``) or nothing, which is unknown.

    Args:
        value: The cell.
        place: File, row and column for the message.

    Raises:
        UserError: For anything else.
    """
    text = value.strip()
    if text == "":
        return None
    if text in {"0", "1", "0.0", "1.0"}:
        return int(text[0])
    raise UserError(f"{place}: '{value}' is not a label; write 1 (present), 0 (absent) or nothing (unknown)")


def check_unique(ids: Sequence[str], path: Path, column: str) -> None:
    """Raise :class:`UserError` when an id occurs twice."""
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise UserError(f"{path}: {column} '{name}' occurs twice; keep one row a case")
        seen.add(name)


def choose_groups(groups: Sequence[str], cases: int | None, seed: int) -> list[int]:
    """Return the indices of about ``cases`` cases, in order: whole groups at random until that many are reached.

    Args:
        groups: Group of each case.
        cases: How many; ``None`` for all.
        seed: Decides which groups.
    """
    if cases is None or cases >= len(groups):
        return list(range(len(groups)))
    names = sorted(set(groups))
    np.random.default_rng(derive_seed("choose", seed)).shuffle(names)
    counts: dict[str, int] = {}
    for group in groups:
        counts[group] = counts.get(group, 0) + 1
    taken: set[str] = set()
    total = 0
    for name in names:
        if total + counts[name] <= cases:
            taken.add(name)
            total += counts[name]
    return [index for index, group in enumerate(groups) if group in taken]
