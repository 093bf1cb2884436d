"""LPIPS against torchmetrics, with the same random AlexNet, and what its files may be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clinalign.core.errors import UserError
from clinalign.networks.lpips import Lpips, load_lpips


def pictures(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AlexNet of random weights under torchvision's names, with a layer of its classifier that is not needed."""
    torch.manual_seed(0)
    state = {name: weight for name, weight in Lpips().state_dict().items() if name.startswith("features")}
    file = tmp_path_factory.mktemp("lpips") / "alexnet.safetensors"
    save_file({**state, "classifier.6.bias": torch.zeros(3)}, file)
    return file


def test_agrees_with_torchmetrics_on_the_same_weights(alexnet: Path) -> None:
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips")
    ours = load_lpips(alexnet)
    network = theirs._LPIPS(pretrained=False, net="alex", pnet_rand=True).eval()
    state = network.state_dict()
    weights = ours.state_dict()
    for name in state:
        if name.startswith("net.slice"):
            state[name] = weights["features." + name.split(".", 2)[2]]
        elif name.startswith("lin") and name[3].isdigit():
            state[name] = weights[f"linear.{name[3]}"].reshape(state[name].shape)
    network.load_state_dict(state)
    first, second = pictures(4, 64, 1), pictures(4, 64, 2)
    with torch.no_grad():
        expected = network(first * 2 - 1, second * 2 - 1).flatten()
        torch.testing.assert_close(ours(first, second), expected, rtol=1e-4, atol=1e-6)


def test_the_same_picture_is_at_zero_and_noise_moves_it_away(alexnet: Path) -> None:
    model, images = load_lpips(alexnet), pictures(2, 64, 1)
    assert model(images, images).tolist() == [0.0, 0.0]
    near = model(images, (images + 0.02 * pictures(2, 64, 3)).clamp(0, 1))
    far = model(images, (images + 0.5 * pictures(2, 64, 3)).clamp(0, 1))
    assert bool((near > 0).all())
    assert bool((far > near).all())


def test_small_pictures_are_enlarged_and_the_identity_says_so(alexnet: Path) -> None:
    model = load_lpips(alexnet)
    assert model(pictures(1, 32, 0), pictures(1, 32, 1)).shape == (1,)
    assert model.identity(32).endswith(":size=64")
    assert model.identity(128).endswith(":size=128")


def test_a_file_of_the_lpips_package_brings_its_own_linear_layers(alexnet: Path, tmp_path: Path) -> None:
    plain = load_lpips(alexnet)
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    state = {}
    for name, weight in plain.state_dict().items():
        kind, number, *rest = name.split(".")
        if kind == "features":
            state[f"net.slice{slices[int(number)]}.{number}.{rest[0]}"] = weight
        else:
            state[f"lin{number}.model.1.weight"] = 2 * weight.reshape(1, -1, 1, 1)
    torch.save(state, tmp_path / "lpips.pth")
    doubled = load_lpips(tmp_path / "lpips.pth")
    images = pictures(1, 64, 0), pictures(1, 64, 1)
    torch.testing.assert_close(doubled(*images), 2 * plain(*images))


def test_files_that_are_not_alexnet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no AlexNet"):
        load_lpips(tmp_path / "none.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match="do not fit AlexNet"):
        load_lpips(tmp_path / "wrong.pth")
    torch.save(Lpips(), tmp_path / "module.pth")  # a whole object: a pickle that could run code
    with pytest.raises(UserError, match="not a plain state dict"):
        load_lpips(tmp_path / "module.pth")
