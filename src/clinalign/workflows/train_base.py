"""Stage 1: a base generator, from scratch or fine-tuned from any Stable Diffusion pipeline folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from clinalign import __version__
from clinalign.core.errors import UserError
from clinalign.core.files import check_place, folder_in_progress, hash_json, write_json
from clinalign.core.images import to_uint8
from clinalign.core.precision import Precision, pick_device
from clinalign.core.progress import say, track
from clinalign.core.seeds import derive_seed
from clinalign.data.prepared import PreparedDataset
from clinalign.generation.architecture import (
    ScratchSize,
    build_scheduler,
    build_text_encoder,
    build_unet,
    build_vae,
    fit_tokenizer,
)
from clinalign.generation.generator import Generator, quiet_libraries
from clinalign.generation.pretrain_autoencoder import train_autoencoder
from clinalign.generation.pretrain_denoiser import DenoiserTraining, train_denoiser

CARD = "clinalign.json"
STATE = ".training"


@dataclass(frozen=True)
class BaseSettings:
    """What ``train base`` can be told.

    Attributes:
        from_model: Pipeline folder or hub id to fine-tune; ``None`` builds a small one from scratch.
        steps: Denoiser steps; ``None`` takes 3000 from scratch and 1000 for fine-tuning.
        autoencoder_steps: Steps of the autoencoder, from scratch only.
        batch_size: Pictures a step.
        learning_rate: Peak; ``None`` takes 2e-3 from scratch, 1e-5 for fine-tuning and 1e-3 for condition tokens.
        caption_dropout: Share of captions left out, for guidance.
        balance: Draw pictures of rare captions up to so many times as often as those of the commonest; 1: all alike.
        noisy_steps: Give the noisiest steps full weight in the loss: texts are learnt sooner, textures later.
        snr_gamma: Min-SNR weight of the loss; a smaller one looks less at fine grain. 0 weighs all steps alike.
        ace_tokens: Learn so many condition tokens (ACE of CXRL) and nothing else, with the model to fine-tune frozen:
            prompt tuning by the loss of stage 1, to tell its part in CXRL from that of reinforcement; 0: none.
        width: First width of the denoiser, from scratch only; the second level has twice as much.
        split: Split trained on.
        seed: Of everything drawn.
        precision: ``auto``, ``fp32`` or ``bf16``.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    from_model: str | None = None
    steps: int | None = None
    autoencoder_steps: int = 1500
    batch_size: int = 32
    learning_rate: float | None = None
    caption_dropout: float = 0.1
    balance: float = 1.0
    noisy_steps: bool = False
    snr_gamma: float = 5.0
    ace_tokens: int = 0
    width: int = 64
    split: str = "train"
    seed: int = 0
    precision: Precision = "auto"
    device: str = "auto"


def train_base(data: str | Path, out: str | Path, settings: BaseSettings | None = None) -> dict[str, Any]:
    """Train a base generator on a prepared dataset and write it as a standard pipeline folder.

    An interrupted training goes on from its newest checkpoint when the same command is given again.

    Args:
        data: Prepared dataset.
        out: Output folder; must be new, or hold the same training.
        settings: See :class:`BaseSettings`.

    Returns:
        The card that is also written to ``out/clinalign.json``: settings, dataset, losses, seconds.

    Raises:
        UserError: For bad settings, a bad dataset or model, or an output folder that holds something else.
    """
    settings = settings or BaseSettings()
    out = Path(out)
    check_settings(settings)
    dataset = PreparedDataset.open(data)
    cases = dataset.cases(settings.split)
    plan = {"settings": asdict(settings), "dataset": dataset.fingerprint, "version": __version__}
    if _finished(out, plan):
        say(f"{out} is complete already")
        return _read_card(out)
    start = time.perf_counter()
    quiet_libraries()
    device = pick_device(settings.device)
    size = ScratchSize.of(dataset.image_size, settings.width)
    # whatever can be wrong is found before the folder is taken
    opened = _open_base(settings.from_model, dataset, device) if settings.from_model else None
    if opened is None:
        size.levels()
    images = to_uint8(dataset.images(cases))
    texts = [case.text for case in cases]
    state = out / STATE
    write_json(out / CARD, {**plan, "complete": False})

    generator, psnr = (opened, None) if opened else _scratch(size, images, texts, settings, state, device)
    autoencoder_seconds = time.perf_counter() - start
    fresh = opened is None
    generator.add_ace(settings.ace_tokens, derive_seed(settings.seed, "ace"))
    usual_rate = 2e-3 if fresh else 1e-3 if settings.ace_tokens else 1e-5
    training = DenoiserTraining(
        steps=settings.steps or (3000 if fresh else 1000),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate or usual_rate,
        caption_dropout=settings.caption_dropout,
        balance=settings.balance,
        noisy_steps=settings.noisy_steps,
        snr_gamma=settings.snr_gamma,
        ema_decay=0.999 if fresh or settings.ace_tokens else 0.9999,
        precision=settings.precision,
    )
    truncated = [case.case_id for case, cut in zip(cases, generator.truncates(texts)) if cut]
    if truncated:
        say(f"{len(truncated)} of {len(cases)} texts are longer than the text encoder's limit and lose their end")
    flips = dataset.modality == "dermoscopy"  # a film has its heart on one side; skin has no side
    latents = latent_source(generator, images, flips)
    loss = train_denoiser(
        generator, latents, texts, training, settings.seed, state / "denoiser", fresh, settings.ace_tokens > 0
    )
    card = {
        **plan,
        "complete": True,
        "denoiser": asdict(training),
        "loss": loss,
        "autoencoder_psnr": psnr,
        "cases": len(cases),
        "truncated_texts": truncated,
        "seconds": {"autoencoder": autoencoder_seconds, "total": time.perf_counter() - start},
    }
    generator.save(out, {CARD: card})
    return card


def check_settings(settings: BaseSettings) -> None:
    """Refuse sizes that cannot be trained.

    Raises:
        UserError: With the first one that is wrong.
    """
    counts = ("autoencoder_steps", "batch_size") + (("steps",) if settings.steps is not None else ())
    for name in counts:
        if getattr(settings, name) < 1:
            raise UserError(f"{name} is {getattr(settings, name)}: at least 1")
    if settings.learning_rate is not None and not settings.learning_rate > 0:
        raise UserError(f"learning_rate is {settings.learning_rate}: above 0")
    if not 0 <= settings.caption_dropout <= 1:
        raise UserError(f"caption_dropout is {settings.caption_dropout}: from 0 to 1")
    if not settings.balance >= 1:
        raise UserError(f"balance is {settings.balance}: 1 or more")
    if not settings.snr_gamma >= 0:
        raise UserError(f"snr_gamma is {settings.snr_gamma}: 0 or more")
    if not 0 <= settings.ace_tokens <= 16:
        raise UserError(f"ace_tokens is {settings.ace_tokens}: from 0 to 16")
    if settings.ace_tokens and settings.from_model is None:
        raise UserError("ace_tokens are learnt for a model that exists: give it with --from")
    if settings.width < 16 or settings.width % 16:
        below = max(16, settings.width // 16 * 16)
        raise UserError(f"width is {settings.width}: a multiple of 16, such as {below} or {below + 16}")


def _open_base(source: str, dataset: PreparedDataset, device: torch.device) -> Generator:
    """Open the model to fine-tune; what tuning added to its weights stays a part of them."""
    generator = Generator.load(source, device)
    if generator.ace is not None:
        raise UserError(f"{source} carries condition tokens, which cannot become a part of its weights: give its base")
    generator.merge_adapter()
    if generator.image_size != dataset.image_size:
        raise UserError(
            f"the model draws {generator.image_size} px and {dataset.path} has {dataset.image_size} px: "
            f"prepare the data with --image-size {generator.image_size}"
        )
    return generator


def _scratch(
    size: ScratchSize, images: torch.Tensor, texts: list[str], settings: BaseSettings, state: Path, device: torch.device
) -> tuple[Generator, float]:
    """Build the parts; tokenizer and trained autoencoder of an interrupted run are taken up again."""
    from diffusers import AutoencoderTiny, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    torch.manual_seed(derive_seed(settings.seed, "weights"))
    fitted = state / "tokenizer"
    if fitted.is_dir():  # fitted again, equally frequent pieces may change their places
        tokenizer = CLIPTokenizer.from_pretrained(fitted)
    else:
        tokenizer = fit_tokenizer(texts)
        with folder_in_progress(fitted) as folder:
            tokenizer.save_pretrained(folder)
    text_encoder, unet, vae = build_text_encoder(size, tokenizer), build_unet(size), build_vae(size).to(device)
    done = state / "vae"
    if done.is_dir():
        vae = AutoencoderTiny.from_pretrained(done)
        psnr = float(vae.config["psnr"])
    else:
        psnr = train_autoencoder(vae, images, settings.autoencoder_steps, settings.seed)
        vae.register_to_config(psnr=psnr)
        with folder_in_progress(done) as folder:
            vae.save_pretrained(folder, safe_serialization=True)
    say(f"autoencoder: {psnr:.1f} dB")
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    return Generator(pipeline, device), psnr


def latent_source(
    generator: Generator, images: torch.Tensor, flips: bool
) -> Callable[[torch.Tensor, torch.Generator], torch.Tensor]:
    """Encode every picture once (and its mirror images where they are as good as the picture) and serve rows of it.

    Args:
        generator: Its autoencoder encodes.
        images: ``(N, 3, H, W)`` uint8.
        flips: Add horizontal and vertical mirror images: four variants, one drawn at random for each use.

    Returns:
        A function of (rows, random generator) that returns ``(B, C, h, w)`` latents.
    """
    variants: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-1, -2)) if flips else ((),)
    store = torch.empty((len(variants), len(images), *generator.latent_shape))
    for number, axes in enumerate(variants):
        for start in track(range(0, len(images), 64), f"encode {number + 1}/{len(variants)}"):
            batch = images[start : start + 64].float() / 255
            store[number, start : start + 64] = generator.encode_images(batch.flip(axes) if axes else batch).cpu()

    def serve(rows: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        return store[torch.randint(0, len(variants), rows.shape, generator=chance), rows]

    return serve


def _read_card(out: Path) -> dict[str, Any]:
    try:
        card: dict[str, Any] = json.loads((out / CARD).read_text(encoding="utf-8"))
        return dict(card)
    except (ValueError, TypeError) as error:
        raise UserError(f"{out / CARD} is not readable as JSON: choose another --out or delete the folder") from error


def _finished(out: Path, plan: dict[str, Any]) -> bool:
    """Tell whether ``out`` holds this training, complete; refuse a folder that holds something else."""
    if out.is_file():
        raise UserError(f"{out} is a file: choose a folder with --out")
    check_place(out)
    # a hidden card is what a killed process left of one that it had not finished
    if not out.exists() or all(entry.name.startswith(f".{CARD}.") for entry in out.iterdir()):
        return False
    if not (out / CARD).exists():
        raise UserError(f"{out} is not empty and was not made by `train base`: choose another --out")
    card = _read_card(out)
    same = {key: card.get(key) for key in plan}
    if hash_json(same) != hash_json(plan):
        raise UserError(f"{out} holds another training (other settings or data): choose another --out or delete it")
    return bool(card.get("complete"))
