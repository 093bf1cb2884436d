"""The table of a prepared dataset, ``metadata.parquet``: its columns, its types, its hash."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json, write_atomic

METADATA = "metadata.parquet"
DATASET = "dataset.json"
IMAGES = "images"
MASKS = "masks"
REQUIRED = ("file_name", "text", "split", "case_id", "group_id", "image_hash")
OPTIONAL = ("mask_file_name", "boxes", "parameters")
"""Path of the mask file; JSON of region to box; JSON of a phantom's continuous truth. Null where there is none."""

Row = dict[str, Any]


def write_manifest(path: Path, rows: Sequence[Row], attributes: Sequence[str], subgroups: Sequence[str]) -> None:
    """Write ``rows`` to ``path``; ``attr_*`` are nullable 8-bit integers, everything else is nullable text.

    ``file_name`` comes first: the ``imagefolder`` builder of Hugging Face ``datasets`` takes the first for the image
    and ``mask_file_name`` for a second picture called ``mask``.
    """
    columns = {name: pa.string() for name in REQUIRED}
    columns |= {f"attr_{name}": pa.int8() for name in attributes}
    columns |= {f"sub_{name}": pa.string() for name in subgroups}
    columns |= {name: pa.string() for name in OPTIONAL if any(row.get(name) is not None for row in rows)}
    table = pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in columns.items()})
    write_atomic(path, lambda temporary: pq.write_table(table, temporary))


def read_manifest(path: Path) -> list[Row]:
    """Read the rows of ``path``.

    Raises:
        UserError: When the file is missing, damaged, or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make the dataset with `clinalign data prepare`")
    try:
        table = pq.read_table(path)
    except Exception as error:  # pyarrow fails with several types on damaged bytes
        raise UserError(f"{path}: not a parquet file ({str(error).splitlines()[0]}); prepare the data again") from error
    for column in REQUIRED:
        if column not in table.column_names:
            raise UserError(f"{path}: has no column '{column}'; prepare the data again")
    rows: list[Row] = table.to_pylist()
    return rows


def manifest_hash(rows: Sequence[Row]) -> str:
    """Return the hash of the whole manifest: ids, texts, labels, splits, and the hash of each image's pixels."""
    return hash_json([{name: value for name, value in row.items() if value is not None} for row in rows])


def count_rows(rows: Sequence[Row], attributes: Sequence[str]) -> dict[str, Any]:
    """Count what ``dataset.json`` states.

    Returns:
        ``counts`` (split to number of cases), ``groups`` (split to number of patients or lesions) and
        ``attribute_counts`` (split to attribute to ``[present, absent, unknown]``).
    """
    splits = sorted({row["split"] for row in rows})
    inside = {split: [row for row in rows if row["split"] == split] for split in splits}
    return {
        "counts": {split: len(inside[split]) for split in splits},
        "groups": {split: len({row["group_id"] for row in inside[split]}) for split in splits},
        "attribute_counts": {
            split: {name: _tally(inside[split], f"attr_{name}") for name in attributes} for split in splits
        },
    }


def _tally(rows: Sequence[Row], column: str) -> list[int]:
    """Count present, absent, unknown."""
    found = Counter(row.get(column) for row in rows)
    return [found[1], found[0], found[None]]


def to_json(content: Mapping[str, Any]) -> str | None:
    """Return ``content`` as JSON text, ``None`` when it is empty."""
    return json.dumps(content, allow_nan=False) if content else None
