"""Feature extractors, each the real class with random weights from a local folder."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clinalign.core.errors import UserError
from clinalign.core.types import Extractor
from clinalign.evaluation.extractors import EXTRACTORS, load_extractor
from clinalign.networks.classifier import AttributeClassifier


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def domain_folder(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    AttributeClassifier(["hair", "ink"], image_size=32, backbone="resnet10t").save(path)
    return path


def dino_folder(path: Path) -> Path:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(path)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(path)
    return path


def densenet_state() -> dict[str, torch.Tensor]:
    models = pytest.importorskip("torchxrayvision.models", reason="torchxrayvision is an extra")
    torch.manual_seed(0)
    return dict(models.DenseNet().state_dict())


def densenet_file(path: Path) -> Path:
    save_file(densenet_state(), str(path))
    return path


def inception_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch-fidelity builds its network only around weights, so the load is skipped to get random ones."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is an extra")
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        model = module.FeatureExtractorInceptionV3("random", ["2048"])
    # torch's default scale shrinks the signal by sqrt(6) a layer; He's keeps it alive through the whole network
    torch.save({k: v * 6**0.5 if v.ndim == 4 else v for k, v in model.state_dict().items()}, path)
    return path


def check(extractor: Extractor, images: torch.Tensor, width: int) -> None:
    features = extractor(images)
    assert isinstance(extractor, Extractor)
    assert features.shape == (len(images), width)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    scale = features.abs().max().item()
    assert (features[0] - features[1]).abs().max() > 1e-2 * scale
    # alone or in company: float32 convolutions may sum in another order
    torch.testing.assert_close(extractor(images[:1]), features[:1], rtol=1e-4, atol=1e-4 * scale)


def test_domain(tmp_path: Path, images: torch.Tensor) -> None:
    extractor = load_extractor(f"domain:{domain_folder(tmp_path / 'evaluator')}")
    check(extractor, images, 512)
    assert extractor.identity.startswith("domain:classifier:resnet10t:")
    other = load_extractor(f"domain:{domain_folder(tmp_path / 'other', seed=1)}")
    assert extractor.identity != other.identity


def test_dino(tmp_path: Path, images: torch.Tensor) -> None:
    from transformers import AutoImageProcessor, AutoModel

    folder = dino_folder(tmp_path / "dino")
    extractor = load_extractor(f"dino:{folder}")
    check(extractor, images, 16)
    assert extractor.identity.startswith("dino:dinov2:")
    assert "crop_size=28x28" in extractor.identity
    # what a user of transformers gets
    pixels = AutoImageProcessor.from_pretrained(folder)(images=images, do_rescale=False, return_tensors="pt")
    expected = AutoModel.from_pretrained(folder).eval()(**pixels).pooler_output
    torch.testing.assert_close(extractor(images), expected.detach(), rtol=1e-4, atol=1e-5)


def test_xrv_densenet(tmp_path: Path, images: torch.Tensor) -> None:
    extractor = load_extractor(f"xrv-densenet:{densenet_file(tmp_path / 'densenet.safetensors')}")
    check(extractor, images, 1024)
    # the same weights as a plain state dict, with the operating points that the published files carry
    torch.save(densenet_state() | {"op_threshs": torch.zeros(18)}, tmp_path / "densenet.pt")
    assert load_extractor(f"xrv-densenet:{tmp_path / 'densenet.pt'}").identity == extractor.identity


def test_xrv_densenet_sees_one_channel_in_its_own_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = densenet_file(tmp_path / "densenet.safetensors")
    from torchxrayvision.models import DenseNet

    seen: list[torch.Tensor] = []
    monkeypatch.setattr(DenseNet, "features2", lambda _, x: seen.append(x) or torch.zeros(len(x), 4))
    white_then_black = torch.stack([torch.ones(3, 64, 64), torch.zeros(3, 64, 64)])
    load_extractor(f"xrv-densenet:{file}")(white_then_black)
    assert seen[0].shape == (2, 1, 224, 224)
    assert seen[0].amax(dim=(1, 2, 3)).tolist() == [1024, -1024]


def test_inception(tmp_path: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    file = inception_file(tmp_path / "inception.pth", monkeypatch)
    extractor = load_extractor(f"inception:{file}")
    check(extractor, images, 2048)
    save_file(torch.load(file, weights_only=True), str(tmp_path / "inception.safetensors"))
    assert load_extractor(f"inception:{tmp_path / 'inception.safetensors'}").identity == extractor.identity
    densenet = densenet_file(tmp_path / "densenet.safetensors")
    with pytest.raises(UserError, match="do not fit torch-fidelity's Inception"):
        load_extractor(f"inception:{densenet}")


def test_inception_sees_white_as_255(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiplying by 256 would wrap white to black (methods 3.7)."""
    file = inception_file(tmp_path / "inception.pth", monkeypatch)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        FeatureExtractorInceptionV3, "forward", lambda _, x: seen.append(x) or (torch.zeros(len(x), 4),)
    )
    load_extractor(f"inception:{file}")(torch.ones(1, 3, 8, 8))
    assert seen[0].dtype == torch.uint8
    assert seen[0].unique().tolist() == [255]


class Bomb:
    """Its pickle would call a function when opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("name", ["inception", "xrv-densenet"])
def test_a_pickle_with_code_is_refused_and_does_not_run(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(UserError, match="a pickle can run code"):
        load_extractor(f"{name}:{tmp_path / 'weights.pt'}")
    assert not (tmp_path / "exploded").exists()


def test_mistakes_are_told(tmp_path: Path, images: torch.Tensor) -> None:
    assert EXTRACTORS.names() == ["dino", "domain", "inception", "radiomics", "xrv-densenet"]
    with pytest.raises(UserError, match="unknown feature extractor 'domane': did you mean 'domain'"):
        load_extractor("domane:x")
    with pytest.raises(UserError, match="has no path: write it as inception:PATH"):
        load_extractor("inception")
    with pytest.raises(UserError, match=r"no Inception .* weights at .*none\.pth: download them yourself"):
        load_extractor(f"inception:{tmp_path / 'none.pth'}")
    with pytest.raises(UserError, match="no torchxrayvision DenseNet weights"):
        load_extractor(f"xrv-densenet:{tmp_path / 'none.pt'}")
    with pytest.raises(UserError, match="no network in"):
        load_extractor(f"domain:{tmp_path / 'none'}")
    with pytest.raises(UserError, match="cannot open the dino model"):
        load_extractor(f"dino:{tmp_path / 'none'}")
    save_file({"one": torch.zeros(1)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(UserError, match="do not fit torchxrayvision's DenseNet-121"):
        load_extractor(f"xrv-densenet:{tmp_path / 'other.safetensors'}")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="is damaged"):
        load_extractor(f"xrv-densenet:{tmp_path / 'torn.safetensors'}")
    torch.save({"epoch": 3}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="not a plain state dict"):
        load_extractor(f"xrv-densenet:{tmp_path / 'checkpoint.pt'}")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="holds a bert model"):
        load_extractor(f"dino:{tmp_path / 'bert'}")
    extractor = load_extractor(f"domain:{domain_folder(tmp_path / 'evaluator')}")
    with pytest.raises(UserError, match="images must be float"):
        extractor((images * 255).to(torch.uint8))


def test_a_dino_folder_with_only_a_pickle_is_refused(tmp_path: Path) -> None:
    folder = dino_folder(tmp_path / "dino")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_extractor(f"dino:{folder}")


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("inception", "torch_fidelity", "fidelity"), ("xrv-densenet", "torchxrayvision", "cxr")],
)
def test_a_missing_library_names_its_extra(
    name: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {"inception": "torch_fidelity.feature_extractor_inceptionv3", "xrv-densenet": "torchxrayvision.models"}
    monkeypatch.setitem(__import__("sys").modules, modules[name], None)  # as if it were not installed
    with pytest.raises(UserError, match=rf"pip install 'clinalign\[{extra}\]'"):
        load_extractor(f"{name}:{tmp_path / 'weights.pt'}")
