"""Adaptive condition embeddings (ACE) of CXRL (Han et al., MICCAI 2024): learnable tokens behind the text's own.

The network's condition becomes ``[c_p ; c_s]``: what the text encoder says of the prompt, then K free vectors that are
the same for every prompt and are learnt by the same gradient as the denoiser. The anchor never sees them (P). How many,
how they start and whether the empty branch of guidance gets them too is not published (R).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.files import write_atomic
from clinalign.core.seeds import seeded_noise

ACE_FILE = "ace.safetensors"
TOKENS, UNCONDITIONAL = "tokens", "unconditional"


class AdaptiveConditionEmbedding(nn.Module):
    """K learnable tokens that are appended to a sequence of text embeddings.

    Args:
        tokens: ``(K, D)`` first values, D the width of the cross-attention.
        unconditional: Append them to the empty prompt of classifier-free guidance too. Without, guidance pushes away
            from a branch that lacks them and so amplifies them (R: with).
    """

    def __init__(self, tokens: torch.Tensor, unconditional: bool = True) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens.detach().clone())
        self.unconditional = unconditional

    def extend(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return ``(N, L + K, D)`` of ``(N, L, D)``."""
        tokens = self.tokens.to(embeddings.dtype).expand(len(embeddings), -1, -1)
        return torch.cat([embeddings, tokens], dim=1)


def first_tokens(padding: torch.Tensor, count: int, seed: int, spread: float = 0.01) -> torch.Tensor:
    """Return first values near the embedding of a padding token, so that the first policy is close to the anchor (R).

    Args:
        padding: ``(P, D)`` embeddings of padding tokens.
        count: K.
        seed: Of the noise that tells the tokens apart.
        spread: Its standard deviation.

    Returns:
        ``(K, D)``.
    """
    noise = seeded_noise([seed], (count, padding.shape[-1]))[0, 0]
    return padding.mean(0, keepdim=True).cpu() + spread * noise


def save_ace(ace: AdaptiveConditionEmbedding, folder: Path) -> None:
    """Write ``ace.safetensors``: the tensor ``tokens`` ``(K, D)``, and whether the empty branch gets it as metadata."""
    from safetensors.torch import save_file

    content = {TOKENS: ace.tokens.detach().cpu().contiguous()}
    metadata = {UNCONDITIONAL: str(ace.unconditional).lower()}
    write_atomic(folder / ACE_FILE, lambda temporary: save_file(content, temporary, metadata))


def load_ace(file: Path, width: int) -> AdaptiveConditionEmbedding:
    """Read what :func:`save_ace` wrote.

    Args:
        file: The file.
        width: Width of the model's cross-attention.

    Raises:
        UserError: When it cannot be read or belongs to a model of another width.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as content:
            tokens = content.get_tensor(TOKENS)
            unconditional = (content.metadata() or {}).get(UNCONDITIONAL, "true") == "true"
    except (OSError, SafetensorError) as error:
        raise UserError(f"the condition tokens {file} cannot be read: copy or export them again") from error
    if tokens.ndim != 2 or tokens.shape[1] != width:
        raise UserError(
            f"the condition tokens {file} have shape {tuple(tokens.shape)} and the model beside them takes width "
            f"{width}: not the same model"
        )
    return AdaptiveConditionEmbedding(tokens.float(), unconditional)
