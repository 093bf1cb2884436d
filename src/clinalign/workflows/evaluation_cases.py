"""Which cases an evaluation looks at, and what it may judge them on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from clinalign.core.errors import UserError, nearest
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.data.prompts import ARTIFACTS
from clinalign.workflows.prompt_table import read_table

MINIMUM_CASES = 12  # the floor halves the real images, and each half needs more than the 5 neighbours of recall


def select_cases(cases: Sequence[Case], count: int, seed: int, attributes: Sequence[str] = ()) -> list[Case]:
    """Choose cases so that rare prompts are all there: one case of each text, then a second of each, and so on.

    Args:
        cases: To choose from.
        count: Most cases to take.
        seed: Of the order of texts, and of the cases of one text.
        attributes: Only cases for which all of these are known are taken.

    Returns:
        At most ``count`` cases, none twice. A shorter choice with the same seed is the beginning of a longer one.

    Raises:
        UserError: When no case knows all of ``attributes``.
    """
    known = [case for case in cases if all(case.attributes.get(name) is not None for name in attributes)]
    if not known:
        raise UserError(
            f"none of {len(cases)} cases knows all of {', '.join(attributes)}: judge fewer attributes with --attribute"
        )
    by_text: dict[str, list[Case]] = defaultdict(list)
    for case in _shuffled(known, derive_seed(seed, "cases")):
        by_text[case.text].append(case)
    rounds = max(len(members) for members in by_text.values())
    order = [members[turn] for turn in range(rounds) for members in by_text.values() if turn < len(members)]
    return order[:count]


def _shuffled(cases: Sequence[Case], seed: int) -> list[Case]:
    """Put cases into a random order that depends on the seed alone."""
    order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(seed))
    return [cases[index] for index in order.tolist()]


def judged_attributes(
    dataset: PreparedDataset, evaluator_names: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Decide which attributes an image is judged on: those that its text speaks of and that the evaluator sees.

    Args:
        dataset: Where the texts come from.
        evaluator_names: What the evaluator sees.
        wanted: The user's own choice, which replaces the texts'.

    Returns:
        The attributes in the dataset's order, and name to reason of those that are left out.

    Raises:
        UserError: For a name that dataset or evaluator do not know, or when nothing is left to judge.
    """
    for name in wanted:
        if name not in dataset.attribute_names:
            raise UserError(f"{dataset.path}: no attribute '{name}'; {nearest(name, dataset.attribute_names)}")
        if name not in evaluator_names:
            raise UserError(f"the evaluator does not see attribute '{name}': {nearest(name, evaluator_names)}")
    asked = tuple(wanted) or dataset.prompt_attributes
    left_out = {}
    for name in dataset.attribute_names:
        if name not in asked:
            left_out[name] = "not asked for" if wanted else "the texts do not speak of it"
        elif name not in evaluator_names:
            left_out[name] = "the evaluator does not see it"
    judged = tuple(name for name in dataset.attribute_names if name not in left_out)
    if not judged:
        raise UserError(
            f"nothing to judge: the texts of {dataset.path} speak of {', '.join(asked) or 'no attribute'} and the "
            f"evaluator sees {', '.join(evaluator_names)}; train an evaluator on this dataset's split 'judge'"
        )
    return judged, left_out


def artifact_attributes(judged: Sequence[str]) -> tuple[str, ...]:
    """Return those of the judged attributes that count for the artifact prevalence rate (RL4Med-DDPO)."""
    return tuple(name for name in judged if name in ARTIFACTS or name == "dark_corner")


def as_request(case: Case, judged: Sequence[str]) -> Case:
    """Return the case with the judged attributes only: no picture is blamed for what nobody asked of it."""
    return replace(case, attributes={name: case.attributes.get(name) for name in judged})


def picture_files(table: Path, rows: Sequence[Mapping[str, str]]) -> list[Path]:
    """Return the pictures that a table beside them names in its column ``file_name``.

    Raises:
        UserError: When a name leaves the table's folder, or a file is missing.
    """
    names = [row["file_name"] for row in rows]
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise UserError(f"{table}: file_name '{outside[0]}' leaves the folder; write names relative to it")
    missing = [name for name in names if not (table.parent / name).is_file()]
    if missing:
        raise UserError(f"{table}: {len(missing)} of {len(names)} image files are missing, first '{missing[0]}'")
    return [table.parent / name for name in names]


def cases_of_folder(folder: Path, cases: Sequence[Case]) -> tuple[list[Path], list[Case]]:
    """Find the case of each image in a folder with a ``metadata.csv``, as `sample` and `evaluate` write it.

    A row names its case by ``case_id``, or by ``text``: the images of one text go to the cases of that text in turn.

    Args:
        folder: Holds ``metadata.csv`` and the files of its column ``file_name``.
        cases: The cases that may be meant.

    Returns:
        Paths and cases, one for each row.

    Raises:
        UserError: When the table is missing or lacks a column, a file is missing, or a row fits no case.
    """
    if not folder.is_dir():
        raise UserError(f"image folder {folder} does not exist: give the output of `clinalign sample`")
    table = folder / "metadata.csv"
    if not table.is_file():
        raise UserError(f"{folder} has no metadata.csv: give one with the columns file_name and case_id (or text)")
    rows = read_table(table, "file_name")
    by_key = "case_id" if rows[0].get("case_id") else "text"
    if by_key not in rows[0]:
        raise UserError(f"{table} has neither a column case_id nor text: it cannot be told what the images show")
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[case.case_id if by_key == "case_id" else case.text].append(case)
    strangers = [row[by_key] for row in rows if row[by_key] not in found]
    if strangers:
        raise UserError(
            f"{table}: {len(strangers)} of {len(rows)} rows have a {by_key} that is in no case of the split, first "
            f"'{strangers[0]}': sample from the prompts of this dataset"
        )
    paths = picture_files(table, rows)
    turns: dict[str, int] = defaultdict(int)
    matched = []
    for row in rows:
        members, turn = found[row[by_key]], turns[row[by_key]]
        matched.append(members[turn % len(members)])
        turns[row[by_key]] += 1
    return paths, matched
