"""torchxrayvision's DenseNet-121 through one door that knows its range, size and label order.

Its films are one channel of 224 px with values in ``[-1024, 1024]``; ours are three channels in ``[0, 1]``. Which
output is which finding stands in the library, by the name of the weights, and is compared with the file's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clinalign.core.errors import UserError, nearest
from clinalign.core.images import resize
from clinalign.networks.classifier import check_image_batch
from clinalign.networks.foreign_weights import misfit, read_state_dict
from clinalign.networks.network_folder import hash_weights

XRV_SIZE = 224  # pixels: the size that the DenseNet-121 was trained at
WEIGHTS = "densenet121-res224-all"
WHAT = "torchxrayvision's DenseNet-121"
TOLERANCE = 1e-3  # of the range [0, 1]: a decoder may overshoot by rounding


def to_xrv(images: torch.Tensor) -> torch.Tensor:
    """Convert ``(N, 3, H, W)`` in ``[0, 1]`` to ``(N, 1, 224, 224)`` in ``[-1024, 1024]``."""
    grey = resize(images.float(), XRV_SIZE).mean(1, keepdim=True)
    return (2 * grey - 1) * 1024


def open_densenet(file: Path, outputs: int | None = None) -> tuple[Any, torch.Tensor | None]:
    """Open a state dict of the DenseNet-121.

    Args:
        file: ``.safetensors``, or a plain state dict as ``.pth``. The library's own downloads are pickles of whole
            modules; convert one where you trust it with ``save_file(model.state_dict(), "xrv.safetensors")``.
        outputs: Number of findings that it must have; whatever the file has when ``None``.

    Returns:
        The network in evaluation mode, and the operating threshold of each output if the file holds them.

    Raises:
        UserError: When the library is missing, or the file cannot be used.
    """
    try:
        from torchxrayvision.models import DenseNet
    except ImportError as error:
        raise UserError(f"{WHAT} needs torchxrayvision: install it with pip install 'clinalign[cxr]'") from error
    state = read_state_dict(file, "torchxrayvision DenseNet")
    thresholds = state.pop("op_threshs", None)
    found = len(state["classifier.weight"]) if "classifier.weight" in state else 0
    if outputs is not None and found != outputs:
        raise UserError(f"{file} has {found} outputs and its weights' name promises {outputs}: give the right name")
    model = DenseNet(num_classes=found or 18)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise misfit(file, WHAT, error) from error
    return model.eval().requires_grad_(False), thresholds


class XrvClassifier(nn.Module):
    """Findings by torchxrayvision, with the face of :class:`~clinalign.networks.classifier.AttributeClassifier`.

    Args:
        file: See :func:`open_densenet`.
        findings: Our attribute name to the library's, for example ``{"effusion": "Effusion"}``; all findings under
            the library's own names when ``None``.
        weights: Name of the weights in the library, which tells the order of the outputs.

    Raises:
        UserError: For an unknown name of weights or finding, or a file that does not fit.
    """

    thresholds: torch.Tensor

    def __init__(self, file: Path, findings: Mapping[str, str] | None = None, weights: str = WEIGHTS) -> None:
        super().__init__()
        self.labels = labels_of(weights)
        named = {label: label for label in self.labels if label}
        chosen = dict(findings) if findings is not None else named
        for ours, theirs in chosen.items():
            if theirs not in named:
                raise UserError(f"{weights} has no finding '{theirs}' (for '{ours}'): {nearest(theirs, named)}")
        self.attribute_names = tuple(chosen)
        self.columns = [self.labels.index(theirs) for theirs in chosen.values()]
        self.model, thresholds = open_densenet(file, len(self.labels))
        known = thresholds if thresholds is not None else torch.full((len(self.labels),), 0.5)
        self.register_buffer("thresholds", known.float())
        self.identity = f"xrv:{weights}:{hash_weights(self)}"
        self.card: dict[str, Any] = {
            "kind": "torchxrayvision", "backbone": "densenet121", "weights_hash": hash_weights(self),
            "dataset": weights, "split": "published",
        }  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.thresholds.device

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``images`` ``(N, 3, H, W)`` in ``[0, 1]`` to logits ``(N, K)``: 0 at the finding's operating threshold.

        Raises:
            UserError: For images outside the contract.
        """
        check_image_batch(images)
        low, high = float(images.detach().min()), float(images.detach().max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise UserError(f"images for torchxrayvision have values from {low:.3g} to {high:.3g}: give [0, 1]")
        with torch.autocast(images.device.type, enabled=False):
            logits: torch.Tensor = self.model.classifier(self.model.features2(to_xrv(images)))[:, self.columns]
        shift: torch.Tensor = self.thresholds[self.columns].logit(eps=1e-6).nan_to_num(0.0)
        return logits - shift


def labels_of(weights: str) -> list[str]:
    """Return the library's findings in the order of the outputs; an output that was not trained has no name.

    Raises:
        UserError: When the library is missing or does not know the weights.
    """
    try:
        from torchxrayvision.models import model_urls
    except ImportError as error:
        raise UserError(f"{WHAT} needs torchxrayvision: install it with pip install 'clinalign[cxr]'") from error
    known = [name for name in model_urls if name.startswith("densenet121")]
    if weights not in known:
        raise UserError(f"torchxrayvision has no weights called '{weights}': {nearest(weights, known)}")
    return list(model_urls[weights]["labels"])
