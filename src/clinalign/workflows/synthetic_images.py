"""Writing generated images so that each of them says what it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL.PngImagePlugin import PngInfo

from clinalign import __version__
from clinalign.core.files import write_text
from clinalign.core.images import to_pil

TOOL = f"clinalign {__version__}"
METADATA = "metadata.csv"


def save_synthetic(image: torch.Tensor, path: Path, facts: Mapping[str, object]) -> None:
    """Write one image as PNG whose text chunks say that it is synthetic and where it comes from.

    Args:
        image: ``(3, H, W)`` in ``[0, 1]``.
        path: The file.
        facts: Further text chunks, for example ``model`` and ``seed``.
    """
    chunks = PngInfo()
    for name, value in {"synthetic": "true", **facts, "tool": TOOL}.items():
        chunks.add_text(name, str(value))  # tEXt, or iTXt where a name needs more than Latin-1
    to_pil(image[None])[0].save(path, pnginfo=chunks)


def saving(
    batches: Iterable[torch.Tensor], folder: Path, rows: Sequence[Mapping[str, object]], limit: int | None = None
) -> Iterator[torch.Tensor]:
    """Pass images on, writing ``folder/000000.png``, ... and, after the last one, ``folder/metadata.csv``.

    Args:
        batches: ``(B, 3, H, W)`` images in ``[0, 1]``, in the order of ``rows``.
        folder: Created.
        rows: What is known of each image: the columns of the table, of which ``model`` and ``seed`` also go into the
            picture.
        limit: Write only so many; with 0 there is no table either.

    Yields:
        The batches.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = len(rows) if limit is None else min(limit, len(rows))
    number = 0
    for batch in batches:
        for image in batch[: max(0, kept - number)]:
            facts = {name: rows[number][name] for name in ("model", "seed")}
            save_synthetic(image, folder / image_name(number), facts)
            number += 1
        yield batch
    if kept:
        write_metadata(folder / METADATA, rows[:kept])


def image_name(number: int) -> str:
    """Return the file name of image ``number``."""
    return f"{number:06d}.png"


def write_metadata(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the table that goes with numbered images; ``file_name`` comes first and ``tool`` last."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["file_name", *rows[0], "tool"], lineterminator="\n")
    writer.writeheader()
    for number, row in enumerate(rows):
        writer.writerow({"file_name": image_name(number), **row, "tool": TOOL})
    write_text(path, stream.getvalue())
