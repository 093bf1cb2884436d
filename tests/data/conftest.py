from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Row = dict[str, str]


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_picture(path: Path, number: int, width: int = 40, height: int = 30) -> None:
    """A picture that no other number has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


HAM_DIAGNOSES = ("mel", "nv", "bkl", "bcc", "akiec", "df", "vasc")


@pytest.fixture
def ham_rows() -> list[Row]:
    """28 images of 14 lesions, two of each lesion, every diagnosis on two lesions."""
    return [
        {
            "lesion_id": f"HAM_{number // 2:07d}",
            "image_id": f"ISIC_{number:07d}",
            "dx": HAM_DIAGNOSES[number // 2 % 7],
            "dx_type": "histo",
            "age": ["", "0.0", "45.0", "70.0"][number % 4],
            "sex": ["male", "female", "unknown"][number % 3],
            "localization": ["back", "unknown"][number % 2],
        }
        for number in range(28)
    ]


@pytest.fixture
def make_ham(tmp_path: Path, ham_rows: list[Row]) -> Callable[..., Path]:
    """Write a small HAM10000: images, masks of the even ones, artifacts of the first eight."""

    def make(rows: Sequence[Mapping[str, str]] = ham_rows) -> Path:
        root = tmp_path / "ham"
        for number, row in enumerate(ham_rows):
            write_picture(root / "images" / f"{row['image_id']}.jpg", number)
            if number % 2 == 0:
                mask = np.zeros((30, 40), np.uint8)
                mask[:, :20] = 255
                (root / "masks").mkdir(exist_ok=True)
                Image.fromarray(mask).save(root / "masks" / f"{row['image_id']}_segmentation.png")
        write_csv(root / "HAM10000_metadata.csv", rows)
        names = ("dark_corner", "hair", "gel_border", "gel_bubble", "ruler", "ink", "patches")
        artifacts = [
            {"image": row["image_id"], **{name: str(int(name in {"hair", "ruler"} and number % 2)) for name in names}}
            for number, row in enumerate(ham_rows[:8])
        ]
        write_csv(root / "artifacts.csv", artifacts)
        return root

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of twelve images of six patients; ``change`` edits the rows before they are written."""

    def make(change: Callable[[list[Row]], object] = lambda rows: None) -> Path:
        root = tmp_path / "mine"
        rows = [
            {
                "file_name": f"pictures/test_{number}.png",
                "text": f"picture {number}",
                "group_id": f"patient {number // 2}",
                "attr_hair": ["1", "0", ""][number % 3],
                "sub_sex": ["male", ""][number % 2],
            }
            for number in range(12)
        ]
        for number, row in enumerate(rows):
            write_picture(root / row["file_name"], number)
        change(rows)
        write_csv(root / "metadata.csv", rows)
        return root

    return make
