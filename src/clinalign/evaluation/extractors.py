"""Feature extractors by name: what fidelity and diversity are measured with, and exactly which one.

A spec is ``name:path``, for example ``domain:out/evaluator`` or ``inception:weights.pth``. Nothing is downloaded except
a ``dino`` model by its hub id. The identity of an extractor hashes the weights in memory, so that the same weights have
the same identity from a ``.pth`` and from a ``.safetensors`` file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from clinalign.core.errors import UserError
from clinalign.core.images import to_uint8
from clinalign.core.registry import Registry
from clinalign.core.types import Extractor
from clinalign.evaluation.radiomics import Radiomics
from clinalign.networks.classifier import AttributeClassifier, check_image_batch
from clinalign.networks.foreign_weights import misfit, read_state_dict
from clinalign.networks.network_folder import hash_weights
from clinalign.networks.xrv import XRV_SIZE, open_densenet, to_xrv

Device = torch.device | str
EXTRACTORS: Registry[Callable[[str, Device], Extractor]] = Registry("feature extractor", "clinalign.extractors")


class FeatureExtractor:
    """A frozen network behind the :class:`~clinalign.core.types.Extractor` protocol.

    Args:
        identity: Name, weights hash and preprocessing.
        embed: Maps ``(B, 3, H, W)`` in ``[0, 1]`` on ``device`` to ``(B, D)``.
        device: Where the network lies.
        batch_size: Images at once; does not change the result.
    """

    def __init__(
        self, identity: str, embed: Callable[[torch.Tensor], torch.Tensor], device: Device = "cpu", batch_size: int = 32
    ) -> None:
        self.identity = identity
        self._embed, self._device, self._batch_size = embed, device, batch_size

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to ``(N, D)`` float32 features on the CPU.

        Raises:
            UserError: For anything that is not such a batch.
        """
        check_image_batch(images)
        with torch.no_grad():
            parts = [self._embed(part.to(self._device)).float().cpu() for part in torch.split(images, self._batch_size)]
        return torch.cat(parts)


def load_extractor(spec: str, device: Device = "cpu") -> Extractor:
    """Open the extractor that ``spec`` names.

    Args:
        spec: ``domain:FOLDER`` (our attribute classifier's features), ``dino:FOLDER_OR_HUB_ID`` (DINOv2, RAD-DINO,
            ...),
            ``xrv-densenet:FILE``, ``inception:FILE`` (only for comparison with older papers) or ``radiomics:SIZE``
            (no weights).
        device: Where it computes.

    Raises:
        UserError: For an unknown name, a missing path, or weights that cannot be loaded safely.
    """
    name, _, path = spec.partition(":")
    entry = EXTRACTORS.get(name)
    if not path:
        raise UserError(f"feature extractor '{spec}' has no path: write it as {name}:PATH")
    return entry(path, device)


def _domain(path: str, device: Device) -> Extractor:
    """Pooled features of our own attribute classifier, trained on the domain itself."""
    classifier = AttributeClassifier.load(path, device)
    return FeatureExtractor(f"domain:{classifier.identity}:size={classifier.image_size}", classifier.features, device)


def _dino(path: str, device: Device) -> Extractor:
    """Class token of a DINO-style transformer with the preprocessing that its folder states."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    try:
        kind = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
        if not kind.startswith(("dino", "vit")):
            raise UserError(f"'{path}' holds a {kind} model: give a DINO vision transformer such as DINOv2 or RAD-DINO")
        model = AutoModel.from_pretrained(path, use_safetensors=True, trust_remote_code=False)
        processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=False)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot open the dino model '{path}': give a folder with config.json, model.safetensors and "
            "preprocessor_config.json, or a hub id that this machine can reach"
        ) from error
    model = model.float().to(device).eval()
    settings = {key: value for key, value in processor.to_dict().items() if key in ("size", "crop_size", "resample")}
    sizes = ":".join(f"{key}={_flat(value)}" for key, value in sorted(settings.items()))

    def embed(images: torch.Tensor) -> torch.Tensor:
        pixels = processor(images=images.float(), do_rescale=False, return_tensors="pt")["pixel_values"]
        features: torch.Tensor = model(pixel_values=pixels.to(images.device)).last_hidden_state[:, 0]
        return features

    return FeatureExtractor(f"dino:{kind}:{hash_weights(model)}:{sizes}", embed, device)


def _flat(value: object) -> str:
    """Write a size such as ``{"height": 518, "width": 518}`` without blanks."""
    if isinstance(value, dict):
        return "x".join(str(number) for number in value.values() if number is not None)
    return str(value)


def _xrv_densenet(path: str, device: Device) -> Extractor:
    """Pooled features of torchxrayvision's DenseNet-121, as the small FIDs of CXRL imply (methods 2.7)."""
    model, _ = open_densenet(Path(path))  # features do not use the operating points of the findings
    model = model.to(device).eval()

    def embed(images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.features2(to_xrv(images))
        return features

    return FeatureExtractor(f"xrv-densenet:{hash_weights(model)}:size={XRV_SIZE}", embed, device)


def _inception(path: str, device: Device) -> Extractor:
    """The 2048 pooled features of the original FID network, on 8-bit images, by torch-fidelity."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError("inception needs torch-fidelity: install it with pip install 'clinalign[fidelity]'") from error
    file = Path(path)
    state = read_state_dict(file, "Inception (torch-fidelity's pt_inception-2015-12-05 file)")
    # torch-fidelity opens its weights file as an unrestricted pickle, so it is given a file that we have just written
    # ourselves from tensors only.
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "weights.pth"
        torch.save(state, clean)
        try:
            model = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(clean))
        except RuntimeError as error:
            raise misfit(file, "torch-fidelity's Inception", error) from error
    model = model.to(device).eval()

    def embed(images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model(to_uint8(images))[0]
        return features

    return FeatureExtractor(f"inception:{hash_weights(model)}:8bit:size=299", embed, device)


def _radiomics(path: str, device: Device) -> Extractor:
    """First-order, texture and wavelet features of the whole picture, without a network; ``path`` is the side."""
    if not path.isdigit():
        raise UserError(f"radiomics:{path}: write the side in pixels at which pictures are looked at, as radiomics:64")
    return Radiomics(int(path), device)


EXTRACTORS.add("domain", _domain)
EXTRACTORS.add("dino", _dino)
EXTRACTORS.add("xrv-densenet", _xrv_densenet)
EXTRACTORS.add("inception", _inception)
EXTRACTORS.add("radiomics", _radiomics)
