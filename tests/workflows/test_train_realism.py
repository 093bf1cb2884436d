"""From real and generated pictures to a realism reward, on a few phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.core.images import to_pil
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.realism import REAL, RealismClassifier
from clinalign.rewards import load_reward
from clinalign.rewards.check import examine
from clinalign.workflows.prepare import prepare
from clinalign.workflows.train_reward import train_reward

QUICK: dict[str, Any] = {"epochs": 12, "batch_size": 16, "backbone": "test_byobnet", "image_size": 32}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "data"
    prepare("phantom-skin", out, image_size=32, cases=400)
    return out


def write_drawn(data: Path, out: Path, count: int = 96) -> Path:
    """A folder as `sample` leaves it, of a generator that draws everything at a quarter of the resolution."""
    dataset = PreparedDataset.open(data)
    cases = dataset.cases("train")[:count]
    coarse = torch.nn.functional.avg_pool2d(dataset.images(cases), 4)
    out.mkdir(parents=True)
    rows = ["file_name,text,model"]
    for number, picture in enumerate(to_pil(torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear"))):
        picture.save(out / f"{number}.png")
        rows.append(f"{number}.png,a picture,coarse")
    (out / "metadata.csv").write_text("\n".join(rows) + "\n")
    return out


@pytest.mark.slow
def test_it_tells_real_pictures_from_drawn_and_spoilt_ones(data: Path, tmp_path: Path) -> None:
    drawn = write_drawn(data, tmp_path / "drawn")
    out = tmp_path / "realism"
    metrics = train_reward("realism", data, out, generated=drawn, **QUICK)
    assert metrics["auroc"]["generated"] > 0.9
    assert metrics["auroc"]["grainy"] > 0.8
    assert metrics["n"] == {"real": len(PreparedDataset.open(data).cases("test")), "generated": 12}
    model = RealismClassifier.load(out)
    assert model.attribute_names == (REAL,)
    assert (model.card["kind"], model.card["split"]) == ("realism", "train")
    assert model.card["generated"] == {"images": 96, "model": "coarse"}
    assert json.loads((out / "metrics.json").read_text())["identity"] == model.identity

    dataset = PreparedDataset.open(data)
    cases = dataset.cases("judge")
    images = dataset.images(cases)
    coarse = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(images, 4), (32, 32), mode="bilinear")
    reward = load_reward("realism", out)
    assert reward(images, cases).values.mean() > reward(coarse, cases).values.mean() + 0.5
    report = examine(reward, images, cases)
    assert set(report.separation) > {"blurred", "grainy", "mottled", "garish", "torn", "noise"}
    assert report.separation["blurred"] > 0.8


def test_a_photograph_is_not_told_from_itself(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    out.mkdir()
    names = []
    for number, case in enumerate(PreparedDataset.open(data).cases("train")[:80]):
        assert case.image is not None
        Image.open(case.image).save(out / f"{number}.png")
        names.append(f"{number}.png")
    (out / "metadata.csv").write_text("file_name\n" + "\n".join(names) + "\n")
    metrics = train_reward("realism", data, tmp_path / "realism", generated=out, **{**QUICK, "epochs": 2})
    assert 0.2 < metrics["auroc"]["generated"] < 0.8  # ten pictures: a wide chance around 0.5


def test_wrong_input_is_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"realism is learnt against a generator's pictures: .*--set generated=DIR"):
        train_reward("realism", data, tmp_path / "a", **QUICK)
    with pytest.raises(UserError, match=r"generated=.*nowhere has no metadata.csv: give the output of `clinalign sam"):
        train_reward("realism", data, tmp_path / "a", generated=tmp_path / "nowhere", **QUICK)
    few = write_drawn(data, tmp_path / "few", count=10)
    with pytest.raises(UserError, match="holds 10 pictures, at least 40 are needed: sample more"):
        train_reward("realism", data, tmp_path / "a", generated=few, **QUICK)
    (few / "3.png").unlink()
    with pytest.raises(UserError, match=r"metadata.csv: 1 of 10 image files are missing, first '3.png'"):
        train_reward("realism", data, tmp_path / "a", generated=few, **QUICK)
    with pytest.raises(UserError, match="training realism has no setting 'augmentation'"):
        train_reward("realism", data, tmp_path / "a", generated=few, augmentation="none")
    assert not (tmp_path / "a").exists()
