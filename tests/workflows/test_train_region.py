"""From a prepared dataset with masks to a region reward, on a few phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.segmenter import Segmenter
from clinalign.rewards import load_reward
from clinalign.workflows.prepare import prepare
from clinalign.workflows.region_metrics import dice, soft_dice
from clinalign.workflows.train_region import train_region
from clinalign.workflows.train_reward import train_reward

QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 16, "backbone": "test_byobnet"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "data"
    prepare("phantom-cxr", out, image_size=16, cases=120)
    return out


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "region"
    train_reward("region", data, out, **QUICK)
    return out


def test_the_folder_holds_weights_rules_and_metrics(data: Path, trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == ["card.json", "metrics.json", "model.safetensors"]
    model, dataset = Segmenter.load(trained), PreparedDataset.open(data)
    metrics = json.loads((trained / "metrics.json").read_text())
    assert model.regions == dataset.mask_names
    assert model.card["dataset"] == dataset.fingerprint
    assert model.card["split"] == "train"
    assert model.rules.chest
    assert set(model.rules.floors) == set(dataset.mask_names)
    assert metrics["identity"] == model.identity
    heart = metrics["regions"]["heart"]
    assert heart["dice"]["n"] == len(dataset.cases("test"))
    assert heart["false_alarms"] is None  # every chest has a heart
    assert set(metrics["agreement"]) <= {"side", "zone", "size"}
    assert metrics["agreement"]["side"]["n"] > 0
    assert metrics["summary"].endswith("1 epochs")


def test_the_folder_is_a_reward_that_scores_cases_with_places(data: Path, trained: Path) -> None:
    dataset = PreparedDataset.open(data)
    cases = dataset.cases("test")
    result = load_reward("region", trained)(dataset.images(cases), cases)
    placed = [any(word in case.text for word in (" left", " right", "Left", "Right")) for case in cases]
    assert result.valid.tolist() == placed
    assert 0 < sum(placed) < len(placed)


def test_same_seed_same_segmenter_and_the_judge_is_another(data: Path, trained: Path, tmp_path: Path) -> None:
    again = train_region(data, tmp_path / "train", **QUICK)
    judge = train_region(data, tmp_path / "judge", "judge", **QUICK)
    assert again["identity"] == Segmenter.load(trained).identity != judge["identity"]
    assert Segmenter.load(tmp_path / "judge").card["split"] == "judge"


def test_skin_learns_the_lesion_and_is_measured_against_its_masks(tmp_path: Path) -> None:
    prepare("phantom-skin", tmp_path / "data", image_size=16, cases=80)
    metrics = train_region(tmp_path / "data", tmp_path / "r", **QUICK)
    assert list(metrics["regions"]) == ["lesion"]
    assert {kind: entry["n"] for kind, entry in metrics["agreement"].items()} == dict.fromkeys(
        ("side", "zone", "size"), 12
    )
    chosen = train_region(tmp_path / "data", tmp_path / "r", regions=["hair", "lesion"], image_size=32, **QUICK)
    assert list(chosen["regions"]) == ["hair", "lesion"]
    assert Segmenter.load(tmp_path / "r").image_size == 32


def test_dice_by_hand() -> None:
    found, mask = torch.zeros(3, 1, 2, 2, dtype=torch.bool), torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    found[0, 0, 0] = True
    mask[:2, 0, 0, 0] = True
    values = dice(found, mask, torch.tensor([[True], [True], [True]]))
    assert values[0].item() == pytest.approx(2 / 3)
    assert values[1].item() == 0.0  # missed
    assert values[2].isnan()  # nothing to find
    assert dice(found, mask, torch.zeros(3, 1, dtype=torch.bool)).isnan().all()
    logits = torch.where(mask, 30.0, -30.0)
    assert soft_dice(logits, mask, torch.ones(3, 1, dtype=torch.bool)) == pytest.approx(1.0)
    assert soft_dice(-logits, mask, torch.ones(3, 1, dtype=torch.bool)) == pytest.approx(0.0)


def test_messages(data: Path, tmp_path: Path, make_folder_without_masks: Path) -> None:
    with pytest.raises(UserError, match="has no masks: a segmenter cannot learn"):
        train_region(make_folder_without_masks, tmp_path / "r")
    with pytest.raises(UserError, match="no masks called 'hart'; did you mean 'heart'"):
        train_region(data, tmp_path / "r", regions=["hart"])
    with pytest.raises(UserError, match=r"regions is 'heart': write a list, for example \[lesion\]"):
        train_region(data, tmp_path / "r", regions="heart")
    with pytest.raises(UserError, match="no setting 'epoch': did you mean 'epochs'"):
        train_region(data, tmp_path / "r", epoch=3)
    with pytest.raises(UserError, match="cannot train on split 'test'"):
        train_region(data, tmp_path / "r", split="test")
    with pytest.raises(UserError, match="cannot give feature maps of 20 px images"):
        train_region(data, tmp_path / "r", image_size=20)
    rare = {f"prevalence.{name}": 0.0 for name in ("nodule", "device")}
    prepare("phantom-cxr", tmp_path / "rare", image_size=16, cases=60, settings=rare)
    info = json.loads((tmp_path / "rare" / "dataset.json").read_text())
    info["mask_names"] = [*info["mask_names"], "nodule"]
    (tmp_path / "rare" / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="no mask of 'nodule' in split 'train'"):
        train_region(tmp_path / "rare", tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.fixture
def make_folder_without_masks(data: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(data, tmp_path / "maskless")
    path = tmp_path / "maskless" / "dataset.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "mask_names": []}))
    return tmp_path / "maskless"


@pytest.mark.slow
def test_it_reads_where_the_findings_of_phantoms_lie(tmp_path: Path) -> None:
    # 400 cases, two minutes: effusions and lungs are learnt by then, nodules need more
    prepare("phantom-cxr", tmp_path / "data", image_size=32, cases=400)
    metrics = train_region(tmp_path / "data", tmp_path / "r", epochs=40)
    assert metrics["regions"]["lung_left"]["dice"]["value"] > 0.9
    assert metrics["by_region"]["effusion"]["side"]["value"] > 0.9  # half by chance
    assert metrics["agreement"]["side"]["value"] > 0.75
    assert metrics["agreement"]["zone"]["value"] > 0.55  # a third by chance
