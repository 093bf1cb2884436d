"""Prompts in, pictures out, each of which says what it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.data.prepared import PreparedDataset
from clinalign.generation.generator import Generator
from clinalign.workflows.drawing import default_batch
from clinalign.workflows.sample import sample
from clinalign.workflows.synthetic_images import saving

TEXTS = ("a dermoscopic image with melanoma (MEL) showing hair, ruler", "a dermoscopic image")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.csv", ["text"], *([text] for text in TEXTS))


def write(path: Path, *rows: list[str]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "metadata.csv").open()))


def test_every_picture_says_where_it_comes_from(tiny: Any, prompts: Path, tmp_path: Path) -> None:
    card = sample(tiny.run, prompts, tmp_path / "o", seed=7, count=2)
    rows, identity = rows_of(tmp_path / "o"), Generator.load(tiny.run).identity
    assert [row["file_name"] for row in rows] == ["000000.png", "000001.png", "000002.png", "000003.png"]
    assert [row["text"] for row in rows] == [TEXTS[0], TEXTS[0], TEXTS[1], TEXTS[1]]
    assert rows[3]["seed"] == str(derive_seed(7, "sample", "1", 1))
    assert {row["model"] for row in rows} == {identity}
    with Image.open(tmp_path / "o" / "000003.png") as picture:
        assert picture.size == (16, 16)
        assert {key: picture.text[key] for key in ("synthetic", "model", "seed")} == {
            "synthetic": "true", "model": identity, "seed": rows[3]["seed"],
        }  # fmt: skip
    assert card == json.loads((tmp_path / "o" / "sampling.json").read_text())
    assert card["sampler"] == {"name": "ddim", "steps": 2, "guidance": 1.5, "eta": 0.5}  # the run's own
    assert (card["images"], card["network_evaluations"]) == (4, 4 * 2 * 2)


def test_a_picture_depends_on_its_prompt_and_seed_alone(tiny: Any, prompts: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 2, "seed": 1}
    sample(tiny.model, prompts, tmp_path / "both", **settings)
    second = write(tmp_path / "second.csv", ["text", "prompt_id"], [TEXTS[1], "1"])
    sample(tiny.model, second, tmp_path / "one", **settings)
    with Image.open(tmp_path / "both" / "000001.png") as one, Image.open(tmp_path / "one" / "000000.png") as other:
        # another batch adds up in another order: at most one 8-bit level, at a rounding border
        assert max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes())) <= 1


def test_the_same_sampling_is_left_alone_and_another_is_refused(tiny: Any, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    first = sample(tiny.model, prompts, out, steps=1)
    before = (out / "000000.png").stat().st_mtime_ns
    assert sample(tiny.model, prompts, out, steps=1) == first
    assert (out / "000000.png").stat().st_mtime_ns == before
    for other in ({"steps": 2}, {"steps": 1, "seed": 1}, {"steps": 1, "count": 2}):
        with pytest.raises(UserError, match="holds another sampling"):
            sample(tiny.model, prompts, out, **other)


def test_prompts_that_lose_their_end_are_counted_and_kept_by_id(tiny: Any, prompts: Path, tmp_path: Path) -> None:
    generator = Generator.load(tiny.model)
    generator.tokenizer.model_max_length = 8
    card = sample(generator, prompts, tmp_path / "o", steps=1)
    assert card["truncated_prompts"] == ["0"]
    assert [row["truncated"] for row in rows_of(tmp_path / "o")] == ["1", "0"]


def test_the_case_of_a_prompt_travels_with_its_picture(tiny: Any, tmp_path: Path) -> None:
    case = PreparedDataset.open(tiny.data).cases("test")[0]
    table = write(tmp_path / "p.csv", ["case_id", "text"], [case.case_id, case.text])
    sample(tiny.model, table, tmp_path / "o", steps=1)
    row = rows_of(tmp_path / "o")[0]
    assert row["case_id"] == row["prompt_id"] == case.case_id


def test_large_pictures_are_drawn_few_at_a_time() -> None:
    assert [default_batch(size) for size in (32, 128, 256, 512, 1024)] == [64, 64, 16, 4, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"prompt,id\nx,1\n", "has no column `text`, only prompt, id: "),
        (b"texts\nx\n", "did you mean 'texts'"),
        (b"", "has no column `text`, only nothing: it is empty"),
        (b"text\n", "has a header and no row"),
        (b"text,n\n ,1\n", "line 2: the column `text` is empty"),
        (b"text\nx, with hair\n", "line 2 has more cells than the header: put texts with commas into quotes"),
        (b"text\n\xff\xfe\n", "cannot be read as CSV in UTF-8"),
        (b"text,prompt_id\nx,1\ny,1\n", "prompt_id '1' is given twice"),
    ],
)
def test_mistakes_in_the_table(tiny: Any, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        sample(tiny.model, tmp_path / "p.csv", tmp_path / "o", steps=1)
    assert not (tmp_path / "o").exists()


def test_other_mistakes(tiny: Any, prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.csv does not exist: give a CSV file with a column `text`"):
        sample(tiny.model, tmp_path / "none.csv", tmp_path / "o")
    with pytest.raises(UserError, match="--count 0"):
        sample(tiny.model, prompts, tmp_path / "o", count=0)
    with pytest.raises(UserError, match="--batch-size 0"):
        sample(tiny.model, prompts, tmp_path / "o", batch_size=0)
    with pytest.raises(UserError, match="is a file: choose a folder"):
        sample(tiny.model, prompts, prompts)
    with pytest.raises(UserError, match="is not empty and holds no sampling"):
        sample(tiny.model, prompts, tmp_path)
    with pytest.raises(UserError, match="does not exist: give a diffusers pipeline folder"):
        sample(tmp_path / "no" / "model", prompts, tmp_path / "o")


def test_nothing_is_written_where_nothing_is_kept(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8)
    rows = [{"model": "m", "seed": number} for number in range(2)]
    passed = list(saving([images], tmp_path / "none", rows, limit=0))
    assert torch.equal(passed[0], images)
    assert list((tmp_path / "none").iterdir()) == []
    list(saving([images], tmp_path / "one", rows, limit=1))
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["000000.png", "metadata.csv"]
