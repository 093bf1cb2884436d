"""From a prepared dataset of chest films to a posture reward, with a tiny backbone on a few phantoms."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.affine import identity
from clinalign.networks.alignment import AlignmentNetwork
from clinalign.networks.fit import Labelled
from clinalign.networks.warps import in_pose
from clinalign.rewards import load_reward
from clinalign.workflows.check_reward import check_reward
from clinalign.workflows.posture_measures import LADDERS
from clinalign.workflows.posture_rounds import mean_film
from clinalign.workflows.prepare import prepare
from clinalign.workflows.train_reward import train_reward

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "backbone": "test_byobnet"}
FRACTIONS = {"train": 0.5, "validation": 0.1, "judge": 0.2, "test": 0.2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "data"
    prepare("phantom-cxr", out, image_size=16, cases=200, fractions=FRACTIONS)
    return out


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "reward"
    train_reward("posture", data, out, **QUICK)
    return out


def test_the_folder_holds_weights_card_and_metrics(data: Path, trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["card.json", "metrics.json", "model.safetensors"]
    model, dataset = AlignmentNetwork.load(trained), PreparedDataset.open(data)
    card = model.card
    assert (card["split"], card["dataset"], card["image_size"]) == ("train", dataset.fingerprint, 16)
    # every setting of ours is on record, and what was found out about real films
    assert {"hidden", "image_weight", "first_round", "usual", "typical", "warps"} == set(card["settings"])
    assert card["settings"]["warps"]["rotation"] == 25.0
    assert card["calibration"]["tolerance"] == pytest.approx(model.tolerance.tolist())
    assert model.canonical.std() > 0.05
    films = dataset.images(dataset.cases("train"))
    with torch.no_grad():  # upright is how the training films stand on average
        assert model.pose(films).mean(dim=0).tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0, 0.0], abs=1e-5)
    assert (model.tolerance > 0).all()
    assert -1 < model.typical < 1


def test_metrics_are_measured_on_the_test_split(data: Path, trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    count = len(PreparedDataset.open(data).cases("test"))
    assert metrics["n"] == metrics["score"]["n"] == count
    for unit in ("degrees", "scale", "shift"):
        entry = metrics["error"][unit]
        assert entry["ci95"][0] <= entry["value"] <= entry["ci95"][1]
    assert set(metrics["ladders"]) == set(LADDERS)
    turned = metrics["ladders"]["turned_clockwise"]
    assert turned["rungs"] == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert turned["scores"][0] == pytest.approx(metrics["score"]["value"], abs=1e-5)
    assert set(metrics["truth"]) == {"rotation", "zoom", "shift_x", "shift_y"}
    assert {"effusion", "cardiomegaly"} <= set(metrics["attribute_differences"])
    assert turned["from_upright"]["steps"]["n"] == count
    assert metrics["summary"].startswith(f"error {metrics['error']['degrees']['value']:.1f} degrees")
    assert sum(metrics["parts"].values()) == pytest.approx(metrics["score"]["value"], abs=1e-5)
    assert metrics["epochs"] == [1, 1]


def test_same_seed_same_reward_and_the_judge_is_another(data: Path, trained: Path, tmp_path: Path) -> None:
    def train(split: str, seed: int = 0) -> str:
        return str(train_reward("posture", data, tmp_path / split, split, seed=seed, **QUICK)["identity"])

    first = AlignmentNetwork.load(trained).identity
    assert train("train") == first
    assert len({first, train("train", 1), train("judge")}) == 3


def test_films_that_are_not_frontal_are_left_out(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = PreparedDataset.cases

    def with_laterals(self: PreparedDataset, split: str | None = None) -> list[Case]:
        views = ("Lateral", "PA", None, "AP")
        return [replace(case, subgroups={"view": views[i % 4]}) for i, case in enumerate(cases(self, split))]

    monkeypatch.setattr(PreparedDataset, "cases", with_laterals)
    with pytest.raises(
        UserError, match=r"has 15 frontal films of 15 patients among 21 cases of split 'validation', .* needs 16"
    ):
        train_reward("posture", data, tmp_path / "r", **QUICK)
    monkeypatch.setattr("clinalign.workflows.train_posture.MINIMUM_FILMS", 15)
    metrics = train_reward("posture", data, tmp_path / "r", **QUICK)
    assert metrics["left_out"] == {"train": 25, "validation": 6, "test": 10}  # an unknown view is kept


def test_the_mean_film_is_sharper_when_films_are_aligned() -> None:
    random = torch.Generator().manual_seed(0)
    centres = (torch.arange(32) + 0.5) / 32 * 2 - 1
    square = ((centres[:, None].abs() < 0.4) & (centres[None, :].abs() < 0.4)).float().expand(64, 3, 32, 32)
    poses = identity(64)
    poses[:, 2:] += 0.4 * (torch.rand((64, 3), generator=random) - 0.5)
    films = Labelled.of(in_pose(square, poses), poses, torch.ones(64, 5)).images
    aligned, raw = mean_film(films, poses), mean_film(films, identity(64))
    error = [(mean - square[:1, :1]).abs().mean().item() for mean in (aligned, raw)]
    assert error[0] < 0.5 * error[1]


def test_messages(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="training posture has no setting 'rotatoin': did you mean 'rotation'"):
        train_reward("posture", data, tmp_path / "r", rotatoin=3)
    with pytest.raises(UserError, match="rotation of the warps must be a number from 0 to 60, got 90"):
        train_reward("posture", data, tmp_path / "r", rotation=90)
    with pytest.raises(UserError, match=r"first_round must be a number from 0\.1 to 0\.9, got 1"):
        train_reward("posture", data, tmp_path / "r", first_round=1)
    with pytest.raises(UserError, match=r"hidden must be a whole number from 1 to 4096, got 1\.5"):
        train_reward("posture", data, tmp_path / "r", hidden=1.5)
    with pytest.raises(UserError, match="cannot train on split 'test'"):
        train_reward("posture", data, tmp_path / "r", split="test")
    prepare("phantom-skin", tmp_path / "skin", image_size=16, cases=40)
    with pytest.raises(UserError, match=r"learnt from chest x-ray films, and .* holds dermoscopy: give other data"):
        train_reward("posture", tmp_path / "skin", tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_it_learns_posture_on_phantoms(tmp_path: Path) -> None:
    prepare(
        "phantom-cxr",
        tmp_path / "data",
        image_size=32,
        cases=400,
        fractions={"train": 0.7, "validation": 0.1, "judge": 0.05, "test": 0.15},
    )
    metrics = train_reward("posture", tmp_path / "data", tmp_path / "r", epochs=40)
    # a network that always answers the identity errs by 12.5 degrees, 16 % of scale and 12.5 % of the width
    assert metrics["error"]["degrees"]["value"] < 4
    assert metrics["error"]["scale"]["value"] < 8
    assert metrics["error"]["shift"]["value"] < 4
    assert metrics["truth"]["rotation"]["correlation"] > 0.6  # without a label it found how films stand
    for name, ladder in metrics["ladders"].items():
        assert ladder["scores"] == sorted(ladder["scores"], reverse=True), name
        assert ladder["spearman"]["value"] < -0.7, name
        assert ladder["from_upright"]["steps"]["value"] > 0.8, name
    report = check_reward(tmp_path / "r", tmp_path / "data")
    assert report["passed"], report["reasons"]
    assert min(report["separation"][name] for name in ("turned", "zoomed", "shifted", "noise", "black")) > 0.8
    # and the way in which it learnt is the way of the truth: a film turned clockwise has a positive angle
    dataset = PreparedDataset.open(tmp_path / "data")
    films = dataset.images(dataset.cases("test"))
    poses = identity(len(films))
    poses[:, 4] = math.radians(10)
    reward = load_reward("posture", tmp_path / "r")
    found = reward.network.pose(in_pose(films, poses))[:, 4] - reward.network.pose(films)[:, 4]  # type: ignore[attr-defined]
    assert np.degrees(found.mean().item()) == pytest.approx(10, abs=3)
