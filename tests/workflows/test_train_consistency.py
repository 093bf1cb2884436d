"""From a prepared dataset to an image-text reward, with a tiny backbone on a few phantoms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.image_text import ImageTextPair
from clinalign.rewards import load_reward
from clinalign.workflows.check_reward import check_reward
from clinalign.workflows.prepare import prepare
from clinalign.workflows.train_reward import train_reward

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16, "backbone": "test_byobnet"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "data"
    prepare("phantom-cxr", out, image_size=32, cases=160)
    return out


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "reward"
    train_reward("consistency", data, out, **QUICK)
    return out


def test_the_folder_holds_all_of_it(data: Path, trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {"card.json", "metrics.json", "model.safetensors", "tokenizer"}
    model, dataset = ImageTextPair.load(trained), PreparedDataset.open(data)
    assert model.card["split"] == "train"
    assert model.card["dataset"] == dataset.fingerprint
    assert model.card["fit"]["augmentation"] == "chest x-ray"
    assert model.settings["image_size"] == 48
    reward = load_reward("consistency", trained)
    cases = dataset.cases("test")[:4]
    assert reward(dataset.images(cases), cases).valid.all()


def test_metrics_are_measured_on_the_test_split(data: Path, trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    scores, count = metrics["scores"], len(PreparedDataset.open(data).cases("test"))
    assert scores["alignment/clip_score"]["n"] == count
    kinds = {key.rpartition("/")[2] for key in scores if key.startswith("alignment/flipped_accuracy/")}
    assert kinds == {"removed", "added", "side", "zone"}
    assert {"alignment/recall_at_1", "alignment/matched_auroc"} < set(scores)
    model = ImageTextPair.load(trained)
    assert metrics["identity"] == model.identity == scores["alignment/clip_score"]["evaluator"]
    assert metrics["summary"].startswith("flipped texts told apart 0.")
    assert metrics["summary"].endswith("2 epochs")


def test_same_seed_same_reward_and_the_judge_is_another(data: Path, trained: Path, tmp_path: Path) -> None:
    first = ImageTextPair.load(trained).identity
    again = train_reward("consistency", data, tmp_path / "again", **QUICK)
    assert again["identity"] == first
    other = {key: value for key, value in QUICK.items() if key != "backbone"}
    train_reward("consistency", data, tmp_path / "judge", "judge", **{**other, "epochs": 1})
    judge = ImageTextPair.load(tmp_path / "judge")
    assert judge.card["split"] == "judge"
    assert judge.backbone_name == "test_byobnet"  # the default of rewards is test_resnet
    assert judge.settings["width"] == 96
    assert judge.identity != first


def test_plain_pairs_and_attributes_as_sameness_can_be_asked_for(data: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "epochs": 1}
    for name, more in {"plain": {"flips": 0}, "same": {"same": "attributes"}}.items():
        train_reward("consistency", data, tmp_path / name, **settings, **more)
        card = ImageTextPair.load(tmp_path / name).card
        assert {key: card[key] for key in more} == more


def test_an_untrained_pair_does_not_pass_the_check(data: Path, trained: Path) -> None:
    report = check_reward(trained, data, count=16)
    assert not report["passed"]
    assert "wrong_case_loses" in report["numbers"]


def test_a_model_of_another_library_is_checked_by_its_backend(data: Path, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from clinalign.generation.architecture import fit_tokenizer

    tokenizer = fit_tokenizer([case.text for case in PreparedDataset.open(data).cases()])
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    vision = {**small, "image_size": 32, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    report = check_reward(tmp_path, data, count=16, settings={"backend": "transformers"})
    assert not report["passed"]  # it was never trained
    assert report["model"].startswith("transformers:clip:")
    assert json.loads((tmp_path / "check.json").read_text())["model"] == report["model"]


def rewritten(data: Path, out: Path, text: str) -> Path:
    """Copy a dataset and give all of its cases one text."""
    shutil.copytree(data, out)
    table = pd.read_parquet(out / "metadata.parquet")
    table["text"] = text
    table.to_parquet(out / "metadata.parquet")
    return out


def test_messages(data: Path, tmp_path: Path) -> None:
    def refused(message: str, folder: Path = data, **settings: Any) -> None:
        with pytest.raises(UserError, match=message):
            train_reward("consistency", folder, tmp_path / "out", **settings)
        assert not (tmp_path / "out").exists()

    refused("no setting 'flip': did you mean 'flips'", flip=3)
    refused("no setting 'epoch': did you mean 'epochs'", epoch=3)
    refused("flips must be a whole number of 0 or more", flips=-1)
    refused("unknown value 'texts' of same: did you mean 'text'", same="texts")
    refused("width must be a whole number of 2 or more", width=0)
    refused("cannot train on split 'test'", split="test")
    refused("text_width that is a multiple of 16", text_width=20)
    refused("fewer than two different texts", rewritten(data, tmp_path / "same", "A chest film."))
    refused("no case of split 'train' has a text", rewritten(data, tmp_path / "empty", " "))
