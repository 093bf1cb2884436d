"""Validates a prepared dataset: what a person may have edited, lost or mixed up since it was made."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.core.progress import track
from clinalign.data.manifest import METADATA, Row, count_rows, manifest_hash, read_manifest
from clinalign.data.prepared import inside, read_info
from clinalign.data.splits import SPLITS, torn_groups
from clinalign.data.writer import hash_pixels


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Attributes:
        path: The dataset.
        cases: How many cases were looked at.
        errors: One line a problem that makes results wrong.
        warnings: One line a thing that one should know.
    """

    path: str
    cases: int
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors


def check_dataset(folder: Path) -> CheckReport:
    """Look at every row and every file of the prepared dataset ``folder``.

    Args:
        folder: The dataset.

    Returns:
        The report; problems of the same kind are one line with their number and the first case.

    Raises:
        UserError: When ``folder`` is not a prepared dataset at all.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    info = read_info(folder)
    rows = read_manifest(folder / METADATA)
    if not rows:
        return CheckReport(str(folder), 0, (f"{METADATA} has no rows",), ())
    problems: dict[str, list[str]] = defaultdict(list)
    for case_id, problem in _row_problems(rows, info):
        problems[problem].append(case_id)
    for row in track(rows, "checking images"):
        for problem in _file_problems(folder, row, info):
            problems[problem].append(str(row["case_id"]))
    errors = [_line(problem, cases) for problem, cases in problems.items()]
    errors += _table_errors(rows, info)
    return CheckReport(str(folder), len(rows), tuple(errors), tuple(_warnings(rows, info)))


def _line(problem: str, cases: Sequence[str]) -> str:
    """One line for all cases with the same problem."""
    first = f"case '{cases[0]}'"
    return f"{problem}: {first}" if len(cases) == 1 else f"{problem}: {len(cases)} cases, first {first}"


def _row_problems(rows: Sequence[Row], info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield case id and problem of everything wrong within one row, and of ids used twice."""
    ids = Counter(row["case_id"] for row in rows)
    for row in rows:
        name = str(row["case_id"])
        if not row["case_id"]:
            yield name, "case_id is empty"
        elif ids[row["case_id"]] > 1:
            yield name, "case_id occurs twice"
        if not (row["text"] or "").strip():
            yield name, "text is empty"
        if not row["group_id"]:
            yield name, "group_id (patient or lesion) is empty"
        if row["split"] not in SPLITS:
            yield name, f"split '{row['split']}' is not one of {', '.join(SPLITS)}"
        for attribute in info["attribute_names"]:
            value = row.get(f"attr_{attribute}")
            if value not in (0, 1, None):
                yield name, f"attr_{attribute} is {value}, not 0, 1 or null"
        for group, members in info["attribute_groups"].items():
            values = [row.get(f"attr_{member}") for member in members]
            if values.count(1) > 1:
                yield name, f"more than one '{group}' is present"
            elif values.count(1) == 0 and None not in values:
                yield name, f"no '{group}' is present, though all are known"


def _file_problems(folder: Path, row: Row, info: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the image and the mask of ``row``."""
    size = int(info["image_size"])
    image, problem = _load(folder, row["file_name"], size)
    mode = "L" if info["channels"] == 1 else "RGB"
    if problem is not None:
        yield f"image {problem}"
    elif image is not None and image.mode != mode:
        yield f"image has mode {image.mode}, not {mode}"
    elif image is not None and hash_pixels(np.asarray(image)) != row["image_hash"]:
        yield "image has changed since it was prepared"
    if row.get("mask_file_name") is not None:
        problem = _load(folder, row["mask_file_name"], size)[1]
        if problem is not None:
            yield f"mask {problem}"


def _load(folder: Path, file_name: str | None, size: int) -> tuple[Image.Image | None, str | None]:
    """Return the decoded picture, or ``None`` and what is wrong with it."""
    try:
        path = folder / inside(file_name or "", folder)
    except UserError:
        return None, f"'{file_name}' lies outside the dataset"
    if not path.is_file():
        return None, "is missing"
    try:
        with Image.open(path) as picture:
            if picture.size != (size, size):
                return None, f"is {picture.width} x {picture.height} pixels, not {size} x {size}"
            picture.load()
            return picture, None
    except Exception:  # Pillow's decoders fail with many types on damaged bytes
        return None, "is unreadable"


def _table_errors(rows: Sequence[Row], info: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the table as a whole."""
    for kind, names in (("attr", info["attribute_names"]), ("sub", info["subgroup_names"])):
        for name in names:
            if f"{kind}_{name}" not in rows[0]:
                yield f"{METADATA} has no column '{kind}_{name}' that dataset.json names"
    torn = torn_groups([str(row["group_id"]) for row in rows], [str(row["split"]) for row in rows])
    if torn:
        group, sides = next(iter(torn.items()))
        yield f"{len(torn)} groups lie on two sides, first '{group}' in {' and '.join(sorted(sides))}"
    found = count_rows(rows, info["attribute_names"]) if all(row["split"] for row in rows) else {}
    for key, value in found.items():
        if key in info and info[key] != value:
            yield f"'{key}' in dataset.json does not agree with {METADATA}"
    if "manifest_hash" in info and info["manifest_hash"] != manifest_hash(rows):
        yield f"{METADATA} has changed since it was prepared (its hash differs from dataset.json)"


def _warnings(rows: Sequence[Row], info: dict[str, Any]) -> Iterator[str]:
    """Yield what one should know though nothing is broken."""
    sides: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        sides[row["image_hash"]].setdefault(str(row["split"]), str(row["case_id"]))
    shared = [found for found in sides.values() if len(found) > 1]
    if shared:
        pair = " and ".join(f"'{case}' ({split})" for split, case in shared[0].items())
        yield f"{len(shared)} images lie in more than one split under different groups, first {pair}"
    for split in ("train", "test"):
        for name in info["attribute_names"]:
            column = [row.get(f"attr_{name}") for row in rows if row["split"] == split]
            if column and 1 not in column:
                yield f"attribute '{name}' is never present in split '{split}': it cannot be learned or measured"
    if info.get("left_out"):
        yield f"{len(info['left_out'])} cases of the source were left out (named in dataset.json)"
