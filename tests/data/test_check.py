from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.data.check import check_dataset
from clinalign.data.manifest import METADATA, manifest_hash, read_manifest, write_manifest
from clinalign.data.prepared import read_info
from clinalign.workflows.prepare import prepare

Row = dict[str, Any]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check") / "data"
    prepare("phantom-skin", folder, image_size=16, cases=40)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "data"))


def edit(folder: Path, change: Callable[[list[Row]], object]) -> None:
    """Edit the rows, and the hash with them, so that only the mistake under test is left."""
    rows, info = read_manifest(folder / METADATA), read_info(folder)
    change(rows)
    write_manifest(folder / METADATA, rows, info["attribute_names"], info["subgroup_names"])
    info["manifest_hash"] = manifest_hash(read_manifest(folder / METADATA))
    (folder / "dataset.json").write_text(json.dumps(info))


def test_a_dataset_as_it_was_made_has_no_error(folder: Path) -> None:
    report = check_dataset(folder)
    assert report.ok
    assert report.errors == ()
    assert report.cases == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case_id": ""}, "case_id is empty"),
        ({"case_id": "phantom-skin-000001"}, "case_id occurs twice: 2 cases"),
        ({"text": "  "}, "text is empty: case 'phantom-skin-000000'"),
        ({"group_id": None}, "group_id (patient or lesion) is empty"),
        ({"split": "tarin"}, "split 'tarin' is not one of train, validation, judge, test"),
        ({"attr_hair": 2}, "attr_hair is 2, not 0, 1 or null"),
        ({"attr_MEL": 1, "attr_NV": 1}, "more than one 'diagnosis' is present"),
        ({"attr_MEL": 0, "attr_NV": 0}, "no 'diagnosis' is present, though all are known"),
        ({"file_name": "../x.png"}, "image '../x.png' lies outside the dataset"),
    ],
)
def test_bad_rows(folder: Path, changes: Row, message: str) -> None:
    edit(folder, lambda rows: rows[0].update(changes))
    assert any(line.startswith(message) for line in check_dataset(folder).errors)


def test_unknown_labels_are_no_mistake(folder: Path) -> None:
    edit(folder, lambda rows: rows[0].update(attr_MEL=None, attr_NV=None))
    assert all("diagnosis" not in line for line in check_dataset(folder).errors)


def damage_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "image is missing: case 'phantom-skin-000000'"),
        (lambda path: path.write_bytes(b""), "image is unreadable"),
        (damage_half, "image is unreadable"),
        (lambda path: Image.new("RGB", (16, 24)).save(path), "image is 16 x 24 pixels, not 16 x 16"),
        (lambda path: Image.new("L", (16, 16)).save(path), "image has mode L, not RGB"),
        (lambda path: Image.new("RGB", (16, 16)).save(path), "image has changed since it was prepared"),
    ],
)
def test_bad_images(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder / "images" / "0000000.png")
    errors = check_dataset(folder).errors
    assert len(errors) == 1
    assert errors[0].startswith(message)


def test_bad_masks(folder: Path) -> None:
    for number in (0, 1):
        (folder / "masks" / f"{number:07d}.png").unlink()
    assert check_dataset(folder).errors == ("mask is missing: 2 cases, first case 'phantom-skin-000000'",)


def test_a_group_on_two_sides(folder: Path) -> None:
    def tear(rows: list[Row]) -> None:
        one = next(row for row in rows if row["split"] == "train")
        two = next(row for row in rows if row["split"] == "test")
        two["group_id"] = one["group_id"]

    edit(folder, tear)
    assert any(
        "1 groups lie on two sides" in line and "in test and train" in line for line in check_dataset(folder).errors
    )


def test_counts_that_do_not_agree(folder: Path) -> None:
    edit(folder, lambda rows: rows.pop())
    assert any("'counts' in dataset.json does not agree" in line for line in check_dataset(folder).errors)


def test_an_edited_manifest_is_noticed(folder: Path) -> None:
    info = read_info(folder)
    rows = read_manifest(folder / METADATA)
    rows[0]["text"] = "another text"
    write_manifest(folder / METADATA, rows, info["attribute_names"], info["subgroup_names"])
    assert check_dataset(folder).errors == (
        "metadata.parquet has changed since it was prepared (its hash differs from dataset.json)",
    )


def test_a_column_that_is_not_there(folder: Path) -> None:
    info = read_info(folder)
    info["attribute_names"].append("tattoo")
    (folder / "dataset.json").write_text(json.dumps(info))
    assert any("has no column 'attr_tattoo'" in line for line in check_dataset(folder).errors)


def test_the_same_image_in_two_splits_is_a_warning(folder: Path) -> None:
    def copy(rows: list[Row]) -> None:
        one = next(row for row in rows if row["split"] == "train")
        two = next(row for row in rows if row["split"] == "test")
        shutil.copy(folder / one["file_name"], folder / two["file_name"])
        two["image_hash"] = one["image_hash"]

    edit(folder, copy)
    report = check_dataset(folder)
    assert report.ok
    assert any("1 images lie in more than one split" in line for line in report.warnings)


def test_an_attribute_that_is_never_present_is_a_warning(folder: Path) -> None:
    edit(folder, lambda rows: [row.update(attr_ink=0) for row in rows])
    assert (
        "attribute 'ink' is never present in split 'train': it cannot be learned or measured"
        in check_dataset(folder).warnings
    )


def test_an_empty_manifest(folder: Path) -> None:
    edit(folder, lambda rows: rows.clear())
    assert check_dataset(folder).errors == ("metadata.parquet has no rows",)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        check_dataset(tmp_path / "nowhere")
