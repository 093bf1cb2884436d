"""The check from the outside: folders, names, the file it leaves, and the gate that reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.data.prepared import PreparedDataset
from clinalign.networks.classifier import AttributeClassifier
from clinalign.rewards import load_reward
from clinalign.workflows.check_reward import CHECK_FILE, check_reward, require_check
from clinalign.workflows.prepare import prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "data"
    prepare("phantom-skin", out, image_size=16, cases=120)
    return out


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    AttributeClassifier(["hair", "ink"], 16, "test_byobnet").save(tmp_path / "reward")
    return tmp_path / "reward"


def test_an_untrained_reward_fails_and_the_file_says_why(data: Path, untrained: Path) -> None:
    report = check_reward(untrained, data, settings={"score": "probability"})
    assert not report["passed"]
    assert json.loads((untrained / CHECK_FILE).read_text()) == report
    assert report["dataset"] == PreparedDataset.open(data).fingerprint
    assert report["model"] == AttributeClassifier.load(untrained).identity
    with pytest.raises(UserError, match=r"did not pass its check: .*does not tell right labels from wrong"):
        require_check(load_reward("attributes", untrained), untrained)


def test_a_sanity_reward_is_checked_by_name_and_needs_no_pass(data: Path) -> None:
    report = check_reward("brightness", data)
    assert report["passed"], report["reasons"]
    assert "a sanity reward" in report["warnings"][0]
    require_check(load_reward("brightness"), None)


def test_a_reward_without_a_folder_must_be_vouched_for() -> None:
    reward = load_reward("brightness")
    vars(reward)["sanity"] = False  # a plug-in that is meant to be a reward
    with pytest.raises(UserError, match=r"no folder that could hold the proof of its check: .* require_check to false"):
        require_check(reward, None)


def test_a_pass_holds_for_the_weights_that_were_checked(untrained: Path) -> None:
    reward = load_reward("attributes", untrained)
    with pytest.raises(UserError, match="was never checked: run 'clinalign reward check"):
        require_check(reward, untrained)
    passed = {"passed": True, "model": AttributeClassifier.load(untrained).identity, "reasons": []}
    (untrained / CHECK_FILE).write_text(json.dumps(passed))
    require_check(reward, untrained)
    require_check(load_reward("attributes", untrained, {"score": "probability"}), untrained)  # the same weights
    (untrained / CHECK_FILE).write_text(json.dumps({**passed, "model": "classifier:other:0"}))
    with pytest.raises(UserError, match="is about other weights"):
        require_check(reward, untrained)
    (untrained / CHECK_FILE).write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        require_check(reward, untrained)


def test_a_reward_object_of_ones_own(data: Path) -> None:
    class Whole:
        name = identity = "whole"

        def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
            return RewardResult(torch.arange(len(images)), torch.ones(len(images)).bool())

    report = check_reward(Whole(), data)
    assert "integers truncate the advantages" in report["reasons"][0]


def test_messages(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown reward 'brightnes': did you mean 'brightness'"):
        check_reward("brightnes", data)
    with pytest.raises(UserError, match="no reward folder at"):
        check_reward(tmp_path / "none", data)
    with pytest.raises(UserError, match="is not a trained network"):
        check_reward(tmp_path, data)


def test_a_weights_file_of_another_library_is_checked_by_its_backend(tmp_path: Path) -> None:
    xrv = pytest.importorskip("torchxrayvision")
    films = tmp_path / "films"
    prepare("phantom-cxr", films, image_size=32, cases=60)
    torch.manual_seed(0)
    file = tmp_path / "densenet.safetensors"
    save_file(
        {name: value.contiguous() for name, value in xrv.models.DenseNet(num_classes=18).state_dict().items()}, file
    )
    settings = {"backend": "torchxrayvision", "findings": {"cardiomegaly": "Cardiomegaly", "effusion": "Effusion"}}
    report = check_reward(file, films, count=16, settings=settings)
    assert not report["passed"]  # random weights
    assert json.loads((tmp_path / "densenet.safetensors.check.json").read_text()) == report
    with pytest.raises(UserError, match="did not pass its check"):
        require_check(load_reward("diagnostic", file, settings), file)
    with pytest.raises(UserError, match="is a file: say whose weights it holds with --set backend=torchxrayvision"):
        check_reward(file, films)
    with pytest.raises(UserError, match="unknown backend 'torchxray': did you mean 'torchxrayvision'"):
        check_reward(file, films, settings={"backend": "torchxray"})
