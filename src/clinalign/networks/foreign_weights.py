"""Other people's weight files, read without running anything that is in them."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from clinalign.core.errors import UserError


def read_state_dict(file: Path, what: str) -> dict[str, torch.Tensor]:
    """Read a plain state dict from ``.safetensors``, or from a ``.pth`` that holds tensors by name and nothing else.

    Args:
        file: The file.
        what: The network, for messages.

    Raises:
        UserError: When the file is missing or damaged, or holds more than tensors by name.
    """
    if not file.is_file():
        raise UserError(f"no {what} weights at {file}: download them yourself and give the path of the file")
    refusal = (
        f"{file} is not a plain state dict of {what} and is not opened, because a pickle can run code: "
        "convert it to .safetensors where you trust it"
    )
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(str(file))
        except SafetensorError as error:
            raise UserError(f"{file} is damaged: {error}; fetch it again") from error
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(refusal) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise UserError(refusal)
    return dict(loaded)


def misfit(file: Path, what: str, error: Exception) -> UserError:
    """Return the error that says that a state dict belongs to another network."""
    return UserError(f"the weights in {file} do not fit {what}: {str(error).splitlines()[-1].strip()}")
