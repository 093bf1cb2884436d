"""Prepares a dataset from a source: read or draw, cut square, resize, split by patient or lesion, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign.core.errors import UserError
from clinalign.core.files import folder_in_progress
from clinalign.core.progress import say, track
from clinalign.data.check import CheckReport, check_dataset
from clinalign.data.manifest import DATASET, IMAGES, MASKS, METADATA, Row
from clinalign.data.prepared import PreparedDataset, read_info
from clinalign.data.sources import SOURCES
from clinalign.data.sources.base import Source, SourceInfo, SourceOptions
from clinalign.data.splits import DEFAULT_FRACTIONS, assign_splits, check_fractions, check_groups
from clinalign.data.writer import DatasetWriter

OWN_FILES = frozenset({IMAGES, MASKS, METADATA, DATASET})
MIN_SIZE, MAX_SIZE = 16, 2048
SHOWN = 3  # left-out cases named on the screen; dataset.json names all


def prepare(
    source: str,
    out: Path | str,
    root: Path | str | None = None,
    image_size: int = 64,
    seed: int = 0,
    cases: int | None = None,
    group_column: str = "group_id",
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    skip_unreadable: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> PreparedDataset:
    """Prepare a dataset and write it to ``out``, whole or not at all.

    Args:
        source: Name of a data source, for example ``ham10000``.
        out: Output folder; empty, new, or an earlier preparation of the same source, which is replaced.
        root: The user's own copy of the data; not needed for phantoms.
        image_size: Side of the square images in pixels, a multiple of 8 (the networks halve it up to three times).
        seed: Seed of the splits, of the choice of ``cases`` and of the phantoms.
        cases: Take only about this many cases (whole groups), or draw this many phantoms.
        group_column: Patient or lesion column of the source ``folder``.
        fractions: Share of each split; the shares sum to 1.
        skip_unreadable: Leave out images that are missing or unreadable, and record them, instead of stopping.
        settings: Settings of the source by dotted name.

    Returns:
        The dataset, opened.

    Raises:
        UserError: For every mistake in what was given or found, before anything is written or with nothing left behind.
    """
    make = SOURCES.get(source)
    check_size(image_size)
    check_fractions(fractions)
    if cases is not None and cases < 1:
        raise UserError(f"--cases {cases}: write a number of at least 1")
    target, origin = Path(out), None if root is None else Path(root)
    check_output(target, source, origin)
    options = SourceOptions(origin, image_size, seed, cases, group_column, dict(settings or {}))
    stream = make(options)
    absent = _check_missing(stream, skip_unreadable)
    with folder_in_progress(target) as folder:
        writer = DatasetWriter(folder, stream.info)
        left_out = _copy(stream, writer, absent, skip_unreadable)
        if not writer.rows:
            raise UserError(f"{root}: not one image could be read; nothing was written to {target}")
        extra = {
            "seed": seed,
            "fractions": dict(fractions),
            "settings": dict(settings or {}),
            "left_out": left_out,
        }
        writer.finish(_splits(writer.rows, stream.info, fractions, seed), image_size, extra)
    if left_out:
        named = "; ".join(f"{name} ({reason})" for name, reason in list(left_out.items())[:SHOWN])
        say(f"left out {len(left_out)} of {len(stream)} cases: {named}{'; ...' if len(left_out) > SHOWN else ''}")
    return PreparedDataset.open(target)


def check(path: Path | str) -> CheckReport:
    """Validate the prepared dataset ``path``; see :func:`~clinalign.data.check.check_dataset`."""
    return check_dataset(Path(path))


def _check_missing(stream: Source, skip: bool) -> set[str]:
    """Return the ids of missing images; raise :class:`UserError` when there are some that may not be skipped."""
    missing = stream.missing()
    if missing and not skip:
        raise UserError(
            f"{len(missing)} of {len(stream)} images are missing, first '{missing[0]}': complete the folder, or leave "
            "them out with --skip-unreadable"
        )
    return set(missing)


def _copy(stream: Source, writer: DatasetWriter, absent: set[str], skip: bool) -> dict[str, str]:
    """Write every case that can be read; return case id to reason of those left out."""
    left_out: dict[str, str] = {}
    unreadable = 0
    for item in track(stream.items(), "preparing images", total=len(stream)):
        if item.case_id in absent:
            left_out[item.case_id] = "missing"
            continue
        try:
            picture = item.read()
        except UserError as error:
            left_out[item.case_id] = _reason(str(error))
            unreadable += 1
            continue
        if skip or not unreadable:  # after the first failure the rest is only read, to count the failures
            writer.add(item, picture)
    if unreadable and not skip:
        name, reason = next(iter(left_out.items()))
        raise UserError(
            f"{unreadable} of {len(stream)} images cannot be read, first '{name}': {reason}; or leave them out with "
            "--skip-unreadable"
        )
    return left_out


def _reason(message: str) -> str:
    """The message of a failed read without the absolute path before it, which is nobody else's business."""
    return message.split(": ", 1)[-1]


def _splits(rows: Sequence[Row], info: SourceInfo, fractions: Mapping[str, float], seed: int) -> list[str]:
    """Return the splits that the source fixed, or assign them."""
    groups = [row["group_id"] for row in rows]
    fixed = [row["split"] for row in rows]
    if all(fixed):
        check_groups(groups, fixed)
        return fixed
    return assign_splits(groups, [_labels(row, info) for row in rows], fractions, seed)


def _labels(row: Row, info: SourceInfo) -> list[str]:
    """What is spread evenly: attributes present, and each diagnosis within each subgroup (young melanoma is rare)."""
    present = [name for name in info.attribute_names if row[f"attr_{name}"] == 1]
    subgroups = [f"{name}={row[f'sub_{name}']}" for name in info.subgroup_names]
    exclusive = {name for group in info.attribute_groups.values() for name in group}
    return [*present, *subgroups, *(f"{name} {word}" for name in present if name in exclusive for word in subgroups)]


def check_size(size: int) -> None:
    """Raise :class:`UserError` unless ``size`` is a multiple of 8 between ``MIN_SIZE`` and ``MAX_SIZE``."""
    if not MIN_SIZE <= size <= MAX_SIZE or size % 8:
        near = min(max(8 * round(size / 8), MIN_SIZE), MAX_SIZE)
        span = f"a multiple of 8 from {MIN_SIZE} to {MAX_SIZE}"
        raise UserError(f"--image-size {size}: must be {span}; did you mean {near}?")


def check_output(out: Path, source: str, root: Path | None) -> None:
    """Raise :class:`UserError` when ``out`` holds something that a preparation of ``source`` must not replace."""
    if root is not None and (_within(out, root) or _within(root, out)):
        raise UserError(f"--out {out}: lies in --root {root} or around it; choose a folder apart from your data")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out}: is a file; choose a folder")
    found = sorted(path.name for path in out.iterdir())
    foreign = [name for name in found if name not in OWN_FILES]
    if foreign or (found and not (out / DATASET).is_file()):
        raise UserError(f"--out {out}: holds something else ('{(foreign or found)[0]}'); choose a new or empty folder")
    if found and (held := read_info(out)["source"]) != source:
        raise UserError(f"--out {out}: holds a dataset prepared from '{held}', not '{source}'; choose another folder")


def _within(inner: Path, outer: Path) -> bool:
    """Whether ``inner`` is ``outer`` or lies in it."""
    return inner.resolve().is_relative_to(outer.resolve())
