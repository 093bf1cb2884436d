"""Drawing images outside of training: with which sampler, how many at once, from which generator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clinalign.core.config import TuneConfig, load_config
from clinalign.core.errors import UserError
from clinalign.core.progress import say, track
from clinalign.generation.generator import Generator
from clinalign.generation.model_folder import ADAPTER_FILE

ENCODED = 256  # texts embedded at once when they are only measured for length


@dataclass(frozen=True)
class Sampler:
    """How images are drawn.

    Attributes:
        steps: Denoising steps.
        guidance: Classifier-free guidance scale; 1 is none.
        eta: Stochasticity of DDIM; 0 is deterministic.
    """

    steps: int = 20
    guidance: float = 5.0
    eta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no sampler can do."""
        if not 1 <= self.steps <= 1000:
            raise UserError(f"--steps {self.steps}: write a number from 1 to 1000 (20 to 50 is usual)")
        if not 1.0 <= self.guidance < math.inf:
            raise UserError(f"--guidance {self.guidance:g}: write a number of at least 1, which is no guidance")
        if not 0.0 <= self.eta <= 1.0:
            raise UserError(f"--eta {self.eta:g}: write a number from 0 (deterministic) to 1")

    def evaluations(self, images: int) -> int:
        """Return the network evaluations that ``images`` cost; guidance counts twice."""
        return images * self.steps * (1 if self.guidance == 1.0 else 2)


def run_config(model: str | Path) -> TuneConfig | None:
    """Return the config of the run that ``model`` is or lies in, ``None`` where it is no run."""
    folder = Path(model)
    places = (folder, folder.parent) if folder.name == "model" else (folder,)
    for place in (folder.parent.parent,) if (folder / ADAPTER_FILE).is_file() else places:
        if (place / "config.yaml").is_file():
            return load_config(place / "config.yaml")
    return None


def choose_sampler(
    config: TuneConfig | None, steps: int | None = None, guidance: float | None = None, eta: float | None = None
) -> Sampler:
    """Return the sampler: what was asked for, else what the run was trained with, else the defaults.

    Raises:
        UserError: For a value that no sampler can have.
    """
    usual = Sampler() if config is None else config.rollout
    return Sampler(
        usual.steps if steps is None else steps,
        usual.guidance if guidance is None else guidance,
        usual.eta if eta is None else eta,
    )


def default_batch(image_size: int) -> int:
    """Return how many images are drawn at once: 64 up to 128 px, 16 at 256 px, 4 at 512 px; never a result."""
    return max(4, min(64, 64 * 128**2 // image_size**2))


def draw(
    generator: Generator,
    texts: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    batch_size: int | None = None,
    words: str = "drawing images",
) -> Iterator[torch.Tensor]:
    """Yield images ``(B, 3, H, W)`` in ``[0, 1]``, one for each text and seed, under a progress bar."""
    rows = batch_size or default_batch(generator.image_size)
    batches = generator.generate_batches(texts, seeds, sampler.steps, sampler.guidance, sampler.eta, rows)
    yield from track(batches, words, total=math.ceil(len(texts) / rows))


def truncated_texts(generator: Generator, texts: Sequence[str]) -> set[str]:
    """Return the texts that are longer than the text encoder's limit and lose their end."""
    distinct = list(dict.fromkeys(texts))
    flags: list[bool] = []
    for start in range(0, len(distinct), ENCODED):
        flags += generator.encode_text(distinct[start : start + ENCODED]).truncated
    return {text for text, cut in zip(distinct, flags, strict=True) if cut}


def tell_truncated(ids: Sequence[str], total: int) -> None:
    """Say how many prompts lose their end, and name one."""
    if ids:
        say(f"{len(ids)} of {total} prompts are longer than the text encoder's limit and lose their end, e.g. {ids[0]}")
