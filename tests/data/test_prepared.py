from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.data.manifest import METADATA, read_manifest, write_manifest
from clinalign.data.prepared import PreparedDataset
from clinalign.workflows.prepare import prepare


@pytest.fixture
def dataset(make_ham: Callable[..., Path], tmp_path: Path) -> PreparedDataset:
    return prepare("ham10000", tmp_path / "out", root=make_ham(), image_size=16)


def test_cases_of_a_split(dataset: PreparedDataset) -> None:
    counted = {split: len(dataset.cases(split)) for split in dataset.info["counts"]}
    assert counted == dataset.info["counts"]
    assert {case.split for case in dataset.cases("judge")} == {"judge"}
    with pytest.raises(UserError, match=r"no case in split 'tset'; did you mean 'test'\?"):
        dataset.cases("tset")


def test_images_are_the_stored_pixels_between_0_and_1(dataset: PreparedDataset) -> None:
    cases = dataset.cases("train")[:3]
    images = dataset.images(cases)
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == torch.float32
    stored = np.asarray(Image.open(cases[1].image))
    assert torch.equal(images[1] * 255, torch.from_numpy(stored.copy()).permute(2, 0, 1).float())


def test_images_can_be_asked_for_at_another_size(dataset: PreparedDataset) -> None:
    cases = dataset.cases("train")[:2]
    small = dataset.images(cases, size=8)
    assert small.shape == (2, 3, 8, 8)
    assert small.min() >= 0
    assert small.max() <= 1
    # Antialiased shrinking keeps the mean; 0.02 is what the filter's edges may move it on 64 noisy pixels.
    assert torch.allclose(small.mean((2, 3)), dataset.images(cases).mean((2, 3)), atol=0.02)


def test_unknown_labels_are_told_apart_from_absent_ones(dataset: PreparedDataset) -> None:
    cases = dataset.cases()
    labels, known = dataset.labels(cases)
    hair = dataset.attribute_names.index("hair")
    assert labels.shape == known.shape == (28, 12)
    assert labels[:10, hair].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    assert known[:10, hair].tolist() == [True] * 8 + [False] * 2
    assert dataset.labels([])[0].shape == (0, 12)


def test_masks_of_cases_with_and_without_one(dataset: PreparedDataset) -> None:
    masks, known = dataset.masks(dataset.cases()[:2], "lesion")
    assert known.tolist() == [True, False]
    assert masks[0, :, :8].all()
    assert not masks[0, :, 8:].any()
    assert not masks[1].any()
    with pytest.raises(UserError, match=r"no masks called 'leison'; did you mean 'lesion'\?"):
        dataset.masks([], "leison")


def test_a_case_without_an_image_or_with_a_damaged_one(dataset: PreparedDataset) -> None:
    with pytest.raises(UserError, match="a case without an image"):
        dataset.images([Case("prompt only", "a text")])
    case = dataset.cases()[0]
    assert case.image is not None
    case.image.write_bytes(b"")
    with pytest.raises(UserError, match="missing or unreadable"):
        dataset.images([case])


def test_the_fingerprint_follows_the_manifest(dataset: PreparedDataset) -> None:
    assert PreparedDataset.open(dataset.path).fingerprint == dataset.fingerprint == dataset.info["manifest_hash"]
    rows = read_manifest(dataset.path / METADATA)
    rows[0]["attr_hair"] = 1
    write_manifest(dataset.path / METADATA, rows, dataset.attribute_names, dataset.subgroup_names)
    assert PreparedDataset.open(dataset.path).fingerprint != dataset.fingerprint


def test_a_file_name_that_leaves_the_dataset_is_refused(dataset: PreparedDataset) -> None:
    rows = read_manifest(dataset.path / METADATA)
    rows[0]["file_name"] = "../../secret.png"
    write_manifest(dataset.path / METADATA, rows, dataset.attribute_names, dataset.subgroup_names)
    with pytest.raises(UserError, match="leaves the dataset"):
        PreparedDataset.open(dataset.path).cases()


def test_a_damaged_or_missing_manifest(dataset: PreparedDataset) -> None:
    (dataset.path / METADATA).write_bytes(b"no")
    with pytest.raises(UserError, match="not a parquet file"):
        PreparedDataset.open(dataset.path)
    (dataset.path / METADATA).unlink()
    with pytest.raises(UserError, match=r"metadata.parquet: no such file"):
        PreparedDataset.open(dataset.path)
