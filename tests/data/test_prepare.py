from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.data.prepared import PreparedDataset
from clinalign.data.splits import SPLITS
from clinalign.workflows.prepare import check, prepare

Row = dict[str, str]


def test_ham10000_from_end_to_end(make_ham: Callable[..., Path], tmp_path: Path) -> None:
    dataset = prepare("ham10000", tmp_path / "out", root=make_ham(), image_size=16)
    assert sum(dataset.info["counts"].values()) == 28
    assert set(dataset.info["counts"]) == set(SPLITS)
    assert dataset.info["attribute_groups"]["diagnosis"] == ["MEL", "NV", "BKL", "BCC", "AKIEC", "DF", "VASC"]
    assert dataset.info["licence"] == "CC BY-NC 4.0"
    sides = {}
    for case in dataset.cases():
        assert sides.setdefault(case.group_id, case.split) == case.split
    assert check(tmp_path / "out").errors == ()
    # Nothing of the user's machine is written into the dataset.
    assert str(tmp_path) not in (tmp_path / "out" / "dataset.json").read_text()


def test_the_same_seed_gives_the_same_dataset_and_may_replace_it(tmp_path: Path) -> None:
    first = prepare("phantom-skin", tmp_path / "out", image_size=16, cases=12, seed=1).fingerprint
    assert prepare("phantom-skin", tmp_path / "out", image_size=16, cases=12, seed=1).fingerprint == first
    assert prepare("phantom-skin", tmp_path / "out", image_size=16, cases=12, seed=2).fingerprint != first


def test_grey_films_are_stored_with_one_channel_and_read_as_three(tmp_path: Path) -> None:
    dataset = prepare("phantom-cxr", tmp_path / "out", image_size=16, cases=8)
    case = dataset.cases()[0]
    with Image.open(case.image) as picture:
        assert picture.mode == "L"
    image = dataset.images([case])
    assert torch.equal(image[:, 0], image[:, 2])
    assert set(dataset.boxes(case)) <= set(dataset.mask_names)
    assert all(0 <= side <= 1 for box in dataset.boxes(case).values() for side in box)
    assert "rotation" in dataset.parameters(case)


def test_given_splits_are_kept(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    def give(rows: list[Row]) -> None:
        for number, row in enumerate(rows):
            row["split"] = "test" if number < 2 else "train"

    dataset = prepare("folder", tmp_path / "out", root=make_folder(give), image_size=16)
    assert dataset.info["counts"] == {"test": 2, "train": 10}


def test_missing_images_are_counted_and_may_be_left_out(make_ham: Callable[..., Path], tmp_path: Path) -> None:
    root = make_ham()
    for number in (3, 4):
        (root / "images" / f"ISIC_{number:07d}.jpg").unlink()
    with pytest.raises(UserError, match="2 of 28 images are missing, first 'ISIC_0000003'"):
        prepare("ham10000", tmp_path / "out", root=root, image_size=16)
    assert not (tmp_path / "out").exists()
    dataset = prepare("ham10000", tmp_path / "out", root=root, image_size=16, skip_unreadable=True)
    assert dataset.info["left_out"] == {"ISIC_0000003": "missing", "ISIC_0000004": "missing"}
    assert len(dataset.cases()) == 26
    assert any("2 cases of the source were left out" in line for line in check(tmp_path / "out").warnings)


def test_unreadable_images_are_counted_and_may_be_left_out(
    make_ham: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("clinalign.workflows.prepare.say", said.append)
    root = make_ham()
    (root / "images" / "ISIC_0000003.jpg").write_bytes(b"")
    whole = (root / "images" / "ISIC_0000009.jpg").read_bytes()
    (root / "images" / "ISIC_0000009.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"2 of 28 images cannot be read, first 'ISIC_0000003': .*empty"):
        prepare("ham10000", tmp_path / "out", root=root, image_size=16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ham"]  # nothing half-written is left
    dataset = prepare("ham10000", tmp_path / "out", root=root, image_size=16, skip_unreadable=True)
    assert list(dataset.info["left_out"]) == ["ISIC_0000003", "ISIC_0000009"]
    assert str(tmp_path) not in json.dumps(dataset.info)
    assert len(said) == 1
    assert said[0].startswith("left out 2 of 28 cases: ISIC_0000003 (the file is empty")


def test_nothing_readable_at_all(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder()
    for path in (root / "pictures").iterdir():
        path.write_text("no picture")
    with pytest.raises(UserError, match="not one image could be read"):
        prepare("folder", tmp_path / "out", root=root, image_size=16, skip_unreadable=True)


@pytest.mark.parametrize("size", [0, -64, 7, 65, 100_000])
def test_nonsense_image_sizes(tmp_path: Path, size: int) -> None:
    with pytest.raises(UserError, match=f"--image-size {size}: must be a multiple of 8 from 16 to 2048; did you mean"):
        prepare("phantom-skin", tmp_path / "out", image_size=size)


def test_nonsense_numbers_of_cases(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cases 0"):
        prepare("phantom-skin", tmp_path / "out", cases=0)
    with pytest.raises(UserError, match=r"2 groups .* cannot fill 4 splits"):
        prepare("phantom-skin", tmp_path / "out", image_size=16, cases=2)


def test_an_output_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    prepare("phantom-skin", out, image_size=16, cases=8)  # an empty folder is fine
    with pytest.raises(UserError, match="holds a dataset prepared from 'phantom-skin', not 'phantom-cxr'"):
        prepare("phantom-cxr", out, image_size=16, cases=8)
    (out / "chapter1.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds something else \('chapter1.tex'\)"):
        prepare("phantom-skin", out, image_size=16, cases=8)
    assert (out / "chapter1.tex").read_text() == "years of work"


def test_a_folder_of_images_that_is_no_dataset_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out" / "images").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds something else \('images'\)"):
        prepare("phantom-skin", tmp_path / "out", image_size=16, cases=8)


def test_an_output_that_is_a_file_or_the_data_itself_is_refused(make_ham: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file; choose a folder"):
        prepare("phantom-skin", tmp_path / "file", image_size=16, cases=8)
    root = make_ham()
    for out in (root, root / "prepared", root.parent):
        with pytest.raises(UserError, match="choose a folder apart from your data"):
            prepare("ham10000", out, root=root, image_size=16)


def test_datasets_opens_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    ours = prepare("phantom-skin", tmp_path / "out", image_size=16, cases=10)
    cache = str(tmp_path / "cache")
    table = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=cache)["train"]
    assert len(table) == 10  # masks are no rows of their own
    for row, case in zip(table, ours.cases(), strict=True):
        assert (row["text"], row["case_id"], row["split"]) == (case.text, case.case_id, case.split)
        assert row["attr_hair"] == case.attributes["hair"]
        assert row["image"].size == row["mask"].size == (16, 16)


def test_datasets_opens_a_folder_where_some_masks_and_labels_are_unknown(
    make_ham: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    prepare("ham10000", tmp_path / "out", root=make_ham(), image_size=16)
    cache = str(tmp_path / "cache")
    table = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=cache)["train"]
    assert [row["mask"] is None for row in table] == [number % 2 == 1 for number in range(28)]
    assert [row["attr_hair"] for row in table][7:9] == [1, None]


def test_open_refuses_what_is_no_prepared_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        PreparedDataset.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"not a prepared dataset \(no dataset.json\)"):
        PreparedDataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json: not JSON"):
        PreparedDataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match="has no 'source'"):
        PreparedDataset.open(tmp_path)
