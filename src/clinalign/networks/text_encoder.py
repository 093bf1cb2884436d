"""A small text encoder: a transformer that reads the whole text at once and averages over its words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json

HEAD_WIDTH = 16  # of attention
TOKENIZER_FOLDER = "tokenizer"


class TextEncoder(nn.Module):
    """Token and place embeddings, pre-norm transformer layers without a causal mask, the mean over real tokens.

    The mean suits reports and prompts, which are lists of facts: each fact keeps a part of the sum that does not depend
    on how far it stands from the end.

    Args:
        vocabulary: Number of token ids.
        limit: Most tokens of a text.
        width: Of the embeddings, a multiple of 16.
        layers: Depth.
        dropout: Rate while training.
        padding: Id of the token that fills up short texts; it is not seen.

    Raises:
        UserError: For a width that is no multiple of 16, or no layer.
    """

    def __init__(self, vocabulary: int, limit: int, width: int, layers: int, dropout: float, padding: int) -> None:
        super().__init__()
        if width < HEAD_WIDTH or width % HEAD_WIDTH or layers < 1:
            raise UserError(
                f"a text encoder of width {width} with {layers} layers cannot be built: give a text_width that is a "
                f"multiple of {HEAD_WIDTH} and text_layers of 1 or more"
            )
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.zeros(limit, width))
        nn.init.normal_(self.tokens.weight, std=0.5)
        nn.init.normal_(self.places, std=0.1)
        layer = nn.TransformerEncoderLayer(
            width, width // HEAD_WIDTH, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.padding = padding

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map token ids ``(N, L)`` to ``(N, width)``; ``mask`` ``(N, L)`` bool is true where there is a real token."""
        seen = self.tokens(ids) + self.places[: ids.shape[1]]
        read = self.norm(self.layers(seen, src_key_padding_mask=~mask)) * mask[..., None]
        mean: torch.Tensor = read.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)
        return mean


def tokenize(tokenizer: Any, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids ``(N, L)`` and ``(N, L)`` bool, true for real tokens; long texts lose their end."""
    found = tokenizer(
        list(texts), padding=True, truncation=True, max_length=int(tokenizer.model_max_length), return_tensors="pt"
    )
    return found.input_ids, found.attention_mask.bool()


def truncates(tokenizer: Any, texts: Sequence[str]) -> tuple[bool, ...]:
    """Tell of each text whether it is longer than the tokenizer's limit and loses its end."""
    limit = int(tokenizer.model_max_length)
    cut = {text: len(tokenizer(text, truncation=False, verbose=False).input_ids) > limit for text in set(texts)}
    return tuple(cut[text] for text in texts)


def tokenizer_hash(tokenizer: Any) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of vocabulary, merges and limit: what decides the token ids."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return hash_json([model["vocab"], model.get("merges"), int(tokenizer.model_max_length)])


def load_tokenizer(folder: Path) -> Any:
    """Open the tokenizer that lies in a network's folder.

    Raises:
        UserError: When it is missing or damaged.
    """
    from transformers import CLIPTokenizer

    place = folder / TOKENIZER_FOLDER
    try:
        if not place.is_dir():
            raise OSError("missing")
        return CLIPTokenizer.from_pretrained(str(place), local_files_only=True)
    except Exception as error:  # the tokenizers library raises plain Exception for damaged files
        raise UserError(f"cannot read the tokenizer in {place}: train the network again") from error
