"""LPIPS: how different two pictures look to AlexNet, weighted by people's judgements (Zhang et al., CVPR 2018).

AlexNet's ImageNet weights come from a file of the user's. The five linear layers of the paper (version 0.1) are in that
file too where it was saved from the ``lpips`` package; else they are taken from torchmetrics, which carries them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.images import resize
from clinalign.networks.foreign_weights import misfit, read_state_dict
from clinalign.networks.network_folder import hash_weights

SMALLEST = 64  # pixels: smaller pictures are enlarged, for AlexNet halves four times over
_SLICES = ((0, 2), (2, 5), (5, 8), (8, 10), (10, 12))  # torchvision's layers up to each of the five activations
_WIDTHS = (64, 192, 384, 256, 256)


class Lpips(nn.Module):
    """The distance network; weights are random until :func:`load_lpips` fills them."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.linear = nn.ParameterList([torch.rand(width) for width in _WIDTHS])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    def identity(self, size: int) -> str:
        """Name network, weights and the side at which pictures of ``size`` pixels are compared."""
        return f"lpips-alex:{hash_weights(self)}:size={max(size, SMALLEST)}"

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the ``(P,)`` distances of pictures ``(P, 3, H, W)`` in ``[0, 1]``; 0 is the same picture."""
        one, other = self._activations(first), self._activations(second)
        each = [
            ((a - b).square() * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))
            for a, b, weight in zip(one, other, self.linear, strict=True)
        ]
        return torch.stack(each).sum(0)

    def _activations(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the five activations, each pixel's channels of unit length."""
        images = resize(images.float(), max(images.shape[-1], SMALLEST))
        found, here = [], (images * 2 - 1 - self.shift) / self.scale
        for start, end in _SLICES:
            here = self.features[start:end](here)
            found.append(here / (1e-8 + here.square().sum(1, keepdim=True)).sqrt())
        return found


def load_lpips(file: Path, device: torch.device | str = "cpu") -> Lpips:
    """Fill the network from ``file``.

    Args:
        file: ``.safetensors`` or ``.pth``: torchvision's AlexNet (``alexnet-owt-7be5be79.pth``), or the state of the
            ``lpips`` package's or torchmetrics' network (``net.slice1.0.weight``, ``lin0.model.1.weight``, ...).
        device: Where it computes.

    Raises:
        UserError: When the file is missing, is no plain state dict, or belongs to another network.
    """
    state = read_state_dict(file, "AlexNet (for LPIPS)")
    if not any(name.startswith("lin0.") for name in state):
        state |= _linear_layers()
    model = Lpips()
    try:
        model.load_state_dict({ours: state[theirs].reshape(shape) for ours, theirs, shape in _names(model, state)})
    except (KeyError, RuntimeError) as error:
        raise misfit(file, "AlexNet (features.0.weight, ...)", error) from error
    return model.to(device).eval().requires_grad_(False)


def _names(model: Lpips, state: dict[str, torch.Tensor]) -> list[tuple[str, str, torch.Size]]:
    """Return our name, the file's name and our shape of each weight."""
    found = []
    for ours, weight in model.state_dict().items():
        kind, number, *rest = ours.split(".")
        theirs = f"lin{number}.model.1.weight"
        if kind == "features":
            layer = next(index for index, (start, end) in enumerate(_SLICES, 1) if start <= int(number) < end)
            theirs = f"net.slice{layer}.{number}.{rest[0]}"
            theirs = ours if ours in state else theirs
        found.append((ours, theirs, weight.shape))
    return found


def _linear_layers() -> dict[str, torch.Tensor]:
    """Return the linear layers that torchmetrics carries.

    Raises:
        UserError: When the installed version carries none.
    """
    import torchmetrics

    file = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    if not file.is_file():
        raise UserError("this torchmetrics carries no linear layers of LPIPS: give the lpips package's own state dict")
    return read_state_dict(file, "LPIPS's linear layers")
