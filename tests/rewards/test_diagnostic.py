"""The diagnostic reward: minus the cross-entropy of the labelled findings, by our classifier or torchxrayvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.networks.xrv import WEIGHTS, XrvClassifier, labels_of, to_xrv
from clinalign.rewards import load_reward

xrv = pytest.importorskip("torchxrayvision")
FINDINGS = {"effusion": "Effusion", "device_free": "Pneumothorax", "big_heart": "Cardiomegaly"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DenseNet-121 with random weights in the library's layout, and operating thresholds that are not 0.5."""
    torch.manual_seed(0)
    state = xrv.models.DenseNet(num_classes=18).state_dict()
    state["classifier.weight"] *= 0.01  # random logits are so large that the reward's clip would stop all gradients
    state["op_threshs"] = torch.linspace(0.1, 0.9, 18)
    file = tmp_path_factory.mktemp("xrv") / "densenet.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, file)
    return file


def films(count: int = 2) -> torch.Tensor:
    grey = torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    return grey.expand(-1, 3, -1, -1).contiguous()


def test_the_score_is_minus_the_cross_entropy_of_the_known_findings(tiny: Any) -> None:
    reward = load_reward("diagnostic", tiny.reward, {"clip": 1e-4})
    names = reward.attributes  # type: ignore[attr-defined]
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = [1, None, 0] + [None] * (len(names) - 3)  # uncertain and missing ones are masked
    found = reward(images, [Case("a", "", dict(zip(names, labels)))])
    logits = reward.classifier(images)[0, [0, 2]]  # type: ignore[attr-defined]
    wanted = -F.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(found.values, wanted[None])
    nothing = reward(images, [Case("b", "", dict.fromkeys(names))])
    assert not nothing.valid.any()


def test_films_arrive_in_the_range_and_size_of_the_library() -> None:
    images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    there = to_xrv(images)
    assert there.shape == (2, 1, 224, 224)
    assert (float(there.min()), float(there.max())) == (-1024.0, 1024.0)


def test_the_logits_are_the_librarys_own_at_its_own_thresholds(weights: Path) -> None:
    classifier = XrvClassifier(weights, FINDINGS)
    theirs = xrv.models.DenseNet(num_classes=18)
    from safetensors.torch import load_file

    state = load_file(weights)
    theirs.op_threshs = state.pop("op_threshs")
    theirs.load_state_dict(state, strict=False)
    theirs.eval()
    images = films()
    ours = classifier(images)
    order = labels_of(WEIGHTS)
    columns = [order.index(name) for name in FINDINGS.values()]
    there = theirs(to_xrv(images))[:, columns]  # 0.5 at the operating threshold
    assert torch.equal(ours > 0, there > 0.5)
    assert classifier.attribute_names == tuple(FINDINGS)


def test_it_rewards_by_torchxrayvision(weights: Path) -> None:
    settings = {"backend": "torchxrayvision", "findings": FINDINGS}
    reward = load_reward("diagnostic", weights, settings)
    case = Case("a", "", {"effusion": 1, "device_free": None, "big_heart": 0})
    right, wrong = (reward(films(1), [Case("a", "", labels)]).values for labels in (
        case.attributes, {"effusion": 0, "device_free": None, "big_heart": 1}))  # fmt: skip
    assert right.shape == (1,)
    assert not torch.equal(right, wrong)
    assert reward.identity.startswith("diagnostic:log_likelihood:")
    images = films(1).requires_grad_()
    reward(images, [case]).values.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_messages(weights: Path, tiny: Any, tmp_path: Path) -> None:
    own = {"backend": "torchxrayvision"}
    with pytest.raises(UserError, match="values from 0 to 255: give"):
        XrvClassifier(weights)(torch.linspace(0, 255, 3 * 64).reshape(1, 3, 8, 8))
    with pytest.raises(UserError, match=r"has no finding 'Efusion' \(for 'effusion'\): did you mean 'Effusion'"):
        load_reward("diagnostic", weights, {**own, "findings": {"effusion": "Efusion"}})
    with pytest.raises(UserError, match="no weights called 'densenet121-res224-al'"):
        load_reward("diagnostic", weights, {**own, "weights": "densenet121-res224-al"})
    state = xrv.models.DenseNet(num_classes=5).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "5.safetensors")
    with pytest.raises(UserError, match="has 5 outputs and its weights' name promises 18"):
        load_reward("diagnostic", tmp_path / "5.safetensors", own)
    with pytest.raises(UserError, match="unknown backend 'xrv' of reward 'diagnostic'"):
        load_reward("diagnostic", weights, {"backend": "xrv"})
    with pytest.raises(UserError, match="setting 'findings' of reward 'diagnostic' is for backend torchxrayvision"):
        load_reward("diagnostic", tiny.reward, {"findings": {}})
    with pytest.raises(UserError, match="does not see 'Effusin'"):
        load_reward("diagnostic", weights, {**own, "attributes": ["Effusin"]})
