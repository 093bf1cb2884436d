"""The generator: a diffusers pipeline, opened once, with the few operations that everything else needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clinalign.core.errors import UserError
from clinalign.core.files import folder_in_progress, hash_file, hash_json, write_json
from clinalign.generation.ace import ACE_FILE, AdaptiveConditionEmbedding, first_tokens, load_ace, save_ace
from clinalign.generation.adapters import adapter_disabled, adapter_removed, load_lora, merge_lora
from clinalign.generation.conditioning import TextCondition
from clinalign.generation.ddim import DdimSchedule, ddim_schedule
from clinalign.generation.model_folder import (
    LORA_FILE,
    check_model_folder,
    check_weights,
    find_model_folder,
    read_adapter_card,
)
from clinalign.generation.sampling import draw_trajectories


class Generator:
    """A Stable Diffusion pipeline as a policy.

    Args:
        pipeline: A ``diffusers.StableDiffusionPipeline``.
        device: Where it runs.
        identity: What it was loaded from, with a hash of its weights; recorded in every run.

    Attributes:
        unet: The denoiser, in evaluation mode with frozen weights until an adapter is added.
        latent_shape: ``(C, H, W)`` of one latent.
        image_size: Side of its square pictures in pixels.
        prediction_type: ``epsilon`` or ``v_prediction``.
        ace: Learnable condition tokens, ``None`` without.
    """

    def __init__(self, pipeline: Any, device: str | torch.device = "cpu", identity: str = "unsaved") -> None:
        from diffusers import DDIMScheduler

        self.device = torch.device(device)
        self.identity = identity
        self.pipeline = pipeline
        pipeline.set_progress_bar_config(disable=True)
        self.tokenizer = pipeline.tokenizer
        self.text_encoder = pipeline.text_encoder.to(self.device).eval().requires_grad_(False)
        self.unet = pipeline.unet.to(self.device).eval().requires_grad_(False)
        self.vae = pipeline.vae.to(self.device).eval().requires_grad_(False)
        options: dict[str, Any] = {"clip_sample": False}
        if not isinstance(pipeline.scheduler, DDIMScheduler):  # keep noise in the last step, as Stable Diffusion does
            options |= {"set_alpha_to_one": False, "steps_offset": 1}
        self.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, **options)
        self.prediction_type: str = self.scheduler.config.prediction_type
        side = int(self.unet.config.sample_size)
        self.latent_shape = (int(self.unet.config.in_channels), side, side)
        self.image_size = side * int(pipeline.vae_scale_factor)
        self._empty: torch.Tensor | None = None
        self.ace: AdaptiveConditionEmbedding | None = None
        self._ace_is_on = True

    @classmethod
    def load(cls, source: str | Path, device: str | torch.device = "cpu", adapter: bool = True) -> Generator:
        """Open a pipeline folder, a run folder, or a hub id (safetensors only, no code from the folder is run).

        Args:
            source: Local folder, or ``owner/name`` on the hub. An adapter of a run's ``front`` is opened with the base
                that it names.
            device: Where to put it.
            adapter: Load the LoRA weights and the condition tokens that lie beside the pipeline, if any.

        Raises:
            UserError: When the folder is not a usable pipeline.
        """
        from diffusers import StableDiffusionPipeline
        from safetensors import SafetensorError

        quiet_libraries()
        path = find_model_folder(Path(source))
        card = read_adapter_card(path)
        if card is not None:
            generator = cls.load(_base_of(path, card), device, adapter=False)
            generator._check_base(path, card)
            generator.identity += f"+{path.name}:{hash_weights(path)}"
            return generator._with_adapter(path, adapter)
        # a name such as demo/base is meant as a folder where demo is one, and as a model of the hub elsewhere
        local = (
            path.exists()
            or str(source).startswith((".", "/"))
            or str(source).count("/") != 1
            or Path(source).parent.is_dir()
        )
        if local:
            check_model_folder(path)
        place = str(path) if local else str(source)
        try:
            pipeline = StableDiffusionPipeline.from_pretrained(
                place,
                use_safetensors=True,
                safety_checker=None,
                requires_safety_checker=False,
            )
            for part in ("unet", "vae", "text_encoder") if local else ():
                check_weights(path / part, getattr(pipeline, part))
        except UserError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if not local and isinstance(error, OSError):  # the hub's own words are a paragraph
                raise UserError(
                    f"no model {source}: there is no such folder, and the hub has no such model or cannot be reached"
                ) from error
            first = str(error).strip().splitlines()[0]
            raise UserError(f"cannot open the model {source}: {first}") from error
        pipeline.to(torch.float32)  # half-precision files are computed with in full
        identity = f"{Path(source).name}:{hash_weights(path)}" if local else str(source)
        generator = cls(pipeline, device, identity)
        return generator._with_adapter(path, adapter) if local else generator

    def _with_adapter(self, path: Path, wanted: bool) -> Generator:
        """Load the LoRA weights and condition tokens of ``path``, if there are any, or say that they are left out."""
        tuned = [name for name in (LORA_FILE, ACE_FILE) if (path / name).exists()]
        if tuned and not wanted:
            self.identity += ":without-adapter"
            return self
        if LORA_FILE in tuned:
            load_lora(self.unet, path / LORA_FILE)
        if ACE_FILE in tuned:
            self.ace = load_ace(path / ACE_FILE, self.text_width).to(self.device).requires_grad_(False)
        return self

    def _check_base(self, path: Path, card: Mapping[str, Any]) -> None:
        """Refuse a base whose weights are not those that the adapter was trained on; a run's own export has them."""
        known, mine = (str(name).rpartition(":")[2] for name in (card.get("base_identity", ""), self.identity))
        if mine != "without-adapter" and known and known != mine:
            raise UserError(
                f"the adapter {path} was trained on other weights than those of {card['base']}: {known}, {mine}"
            )

    @property
    def text_width(self) -> int:
        """Width D of the text embeddings that the denoiser takes."""
        return int(self.unet.config.cross_attention_dim)

    def add_ace(self, tokens: int, seed: int, unconditional: bool = True) -> None:
        """Give the generator fresh learnable condition tokens; see :mod:`clinalign.generation.ace`.

        Args:
            tokens: K; 0 leaves the generator as it is.
            seed: Of their first values.
            unconditional: Append them to the empty branch of guidance too.
        """
        if tokens:
            with torch.no_grad():
                padding = self._embed([""])[0, 2:]  # the empty prompt is a beginning, an end, and padding
            self.ace = AdaptiveConditionEmbedding(first_tokens(padding, tokens, seed), unconditional).to(self.device)

    def save(self, path: Path, extra: Mapping[str, Any] | None = None) -> None:
        """Write the pipeline (without its adapter, with its condition tokens) as a diffusers folder, atomically.

        Args:
            path: The folder; an existing one is replaced as a whole.
            extra: JSON files to write beside it, by file name.
        """
        with folder_in_progress(path) as folder, adapter_removed(self.pipeline):
            self.pipeline.save_pretrained(folder, safe_serialization=True)
            if self.ace is not None:
                save_ace(self.ace, folder)
            for name, content in (extra or {}).items():
                write_json(folder / name, content)

    def merge_adapter(self) -> None:
        """Make the adapter a part of the weights, so that the tuned generator can be trained on as a whole."""
        merge_lora(self.unet)

    def schedule(self, steps: int, eta: float) -> DdimSchedule:
        """Return the sampler's steps; see :func:`clinalign.generation.ddim.ddim_schedule`."""
        return ddim_schedule(self.scheduler, steps, eta)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> TextCondition:
        """Embed prompts, each distinct text once; prompts past the encoder's limit are cut and flagged."""
        distinct = list(dict.fromkeys(texts))
        rows = {text: row for row, text in enumerate(distinct)}
        encoded = torch.cat([self._embed(distinct[i : i + 64]) for i in range(0, len(distinct), 64)])
        if self._empty is None:
            self._empty = self._embed([""])
        embeddings = encoded[torch.tensor([rows[text] for text in texts])]
        return TextCondition(embeddings, self._empty, self.truncates(texts))

    def truncates(self, texts: Sequence[str]) -> tuple[bool, ...]:
        """Tell of each text whether it is longer than the encoder's limit and would lose its end."""
        limit = int(self.tokenizer.model_max_length)
        cut = {
            text: len(self.tokenizer(text, truncation=False, verbose=False).input_ids) > limit
            for text in dict.fromkeys(texts)
        }
        return tuple(cut[text] for text in texts)

    def _embed(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )  # fmt: skip
        embedded: torch.Tensor = self.text_encoder(tokens.input_ids.to(self.device))[0]
        return embedded

    def predict(
        self, x_t: torch.Tensor, steps: torch.Tensor, schedule: DdimSchedule, condition: TextCondition, guidance: float
    ) -> tuple[torch.Tensor, int]:
        """Run the denoiser with classifier-free guidance.

        Args:
            x_t: ``(N, C, H, W)`` latents.
            steps: ``(N,)`` index of each row's step in the schedule; rows may be at different steps.
            schedule: The sampler's steps.
            condition: Text of the N rows.
            guidance: Scale w: empty + w (text - empty). At 1 the empty branch is not computed.

        Returns:
            The ``(N, C, H, W)`` prediction, and the number of network evaluations spent.
        """
        timesteps = schedule.timesteps.to(x_t.device)[steps]
        text, empty_text = condition.embeddings, condition.empty.expand_as(condition.embeddings)
        ace = self.ace if self._ace_is_on else None
        if ace is not None:
            text = ace.extend(text)
            empty_text = ace.extend(empty_text) if ace.unconditional else empty_text
        if guidance == 1.0:
            return self.unet(x_t, timesteps, text).sample, len(x_t)
        if text.shape == empty_text.shape:
            both = self.unet(
                torch.cat([x_t, x_t]), torch.cat([timesteps, timesteps]), torch.cat([empty_text, text])
            ).sample
            empty, conditional = both.chunk(2)
        else:  # the two branches differ in length and cannot share a batch
            empty, conditional = (self.unet(x_t, timesteps, words).sample for words in (empty_text, text))
        return empty + guidance * (conditional - empty), 2 * len(x_t)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode ``(N, C, H, W)`` latents into ``(N, 3, size, size)`` images in ``[0, 1]``."""
        return self.decode_with_gradient(latents)

    def decode_with_gradient(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode as :meth:`decode` does, keeping the graph."""
        images: torch.Tensor = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (images / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Encode ``(N, 3, size, size)`` images in ``[0, 1]`` into scaled latents (the mean, not a sample)."""
        encoded = self.vae.encode(images.to(self.device) * 2 - 1)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        scaled: torch.Tensor = latents * self.vae.config.scaling_factor
        return scaled

    def generate(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        steps: int = 20,
        guidance: float = 5.0,
        eta: float = 1.0,
        batch_size: int = 64,
    ) -> torch.Tensor:
        """Draw one image a prompt.

        Args:
            texts: N prompts.
            seeds: N seeds; image k depends on its own seed and prompt alone.
            steps: Denoising steps.
            guidance: Classifier-free guidance scale.
            eta: Stochasticity of DDIM.
            batch_size: Rows at once; changes speed and memory, not the pictures (beyond rounding).

        Returns:
            ``(N, 3, size, size)`` images in ``[0, 1]`` on the CPU.
        """
        parts = list(self.generate_batches(texts, seeds, steps, guidance, eta, batch_size))
        return torch.cat(parts) if parts else torch.empty((0, 3, self.image_size, self.image_size))

    def generate_batches(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        steps: int = 20,
        guidance: float = 5.0,
        eta: float = 1.0,
        batch_size: int = 64,
    ) -> Iterator[torch.Tensor]:
        """Yield the images of :meth:`generate` batch by batch, so that memory does not grow with their number."""
        schedule = self.schedule(steps, eta)
        for start in range(0, len(texts), batch_size):
            condition = self.encode_text(texts[start : start + batch_size])
            drawn = draw_trajectories(self, condition, seeds[start : start + batch_size], schedule, guidance)
            yield self.decode(drawn.clean).cpu()

    @contextlib.contextmanager
    def anchor(self) -> Iterator[None]:
        """Switch adapter and condition tokens off inside the block: the generator from before tuning, not copied."""
        with self.without_ace(), adapter_disabled(self.unet):
            yield

    @contextlib.contextmanager
    def without_ace(self) -> Iterator[None]:
        """Switch the condition tokens off inside the block."""
        before, self._ace_is_on = self._ace_is_on, False
        try:
            yield
        finally:
            self._ace_is_on = before


def _base_of(path: Path, card: Mapping[str, Any]) -> str:
    """Return where the base of an adapter lies: as it was called, or what the run that the adapter is of exported."""
    own = path.parent.parent / "model"
    return str(own) if not Path(card["base"]).is_dir() and own.is_dir() else str(card["base"])


def hash_weights(path: Path) -> str:
    """Return a hash over all weight files of a model folder."""
    files = sorted(path.rglob("*.safetensors"))
    return hash_json([(str(file.relative_to(path)), hash_file(file)) for file in files])


def quiet_libraries() -> None:
    """Silence progress bars and notes of diffusers and transformers; errors still show."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
