"""Small Stable Diffusion parts built from their configs, for training from scratch on a laptop.

The autoencoder is diffusers' ``AutoencoderTiny`` without its nonlinear blocks: at these sizes an ordinary autoencoder
would cost more than the denoiser, in training and in every rollout. The latents are always ``8 x 8``: one stands for
four by four pixels at 32 px, for eight by eight at 64 px.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clinalign.core.errors import UserError

BOS, EOS, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"


@dataclass(frozen=True)
class ScratchSize:
    """Sizes of a generator built from scratch; the defaults fit two CPU cores (R, measured: see docs/results).

    Attributes:
        image_size: Side of the pictures in pixels; a power of two times ``latent_size``.
        latent_size: Side of the latents.
        latent_channels: Channels of the latents; more than needed carry the grain of the pictures, which drowns what
            the text speaks of and takes the denoiser's time.
        vae_channels: Width of the autoencoder.
        unet_channels: Width of each level of the denoiser.
        unet_layers: Residual blocks a level.
        pooled_text: Let the text reach every residual block, pooled, beside the cross-attention.
        text_width: Width of the text encoder and of the cross-attention.
        text_layers: Depth of the text encoder.
    """

    image_size: int = 32
    latent_size: int = 8
    latent_channels: int = 8
    vae_channels: int = 32
    unet_channels: tuple[int, ...] = (64, 128)
    unet_layers: int = 1
    pooled_text: bool = True
    text_width: int = 128
    text_layers: int = 2

    @classmethod
    def of(cls, image_size: int, width: int) -> ScratchSize:
        """Return the sizes for pictures of ``image_size`` pixels and a denoiser whose first level is ``width`` wide.

        A latent that stands for more than four by four pixels needs more channels. The pooled text makes a short
        training at 32 px far better; on HAM10000 at 64 px it changed little, and tuning learnt less with it.
        """
        small = image_size <= 32
        channels = 8 if small else 16
        return cls(image_size, latent_channels=channels, unet_channels=(width, 2 * width), pooled_text=small)

    def levels(self) -> int:
        """Return how often the autoencoder halves the picture.

        Raises:
            UserError: When the sizes do not divide.
        """
        ratio = self.image_size / self.latent_size
        if ratio < 2 or not math.log2(ratio).is_integer():
            legal = ", ".join(str(self.latent_size * 2**power) for power in (1, 2, 3, 4))
            raise UserError(f"images of {self.image_size} px cannot be trained from scratch: sizes are {legal} px")
        return int(math.log2(ratio))


def build_vae(size: ScratchSize) -> Any:
    """Return an untrained ``AutoencoderTiny`` that is linear but for one rectifier behind the latents."""
    from diffusers import AutoencoderTiny

    levels = size.levels()
    width = (size.vae_channels,) * (levels + 1)
    return AutoencoderTiny(
        encoder_block_out_channels=width,
        decoder_block_out_channels=width,
        latent_channels=size.latent_channels,
        num_encoder_blocks=(0,) * (levels + 1),
        num_decoder_blocks=(0,) * (levels + 1),
    )


def build_unet(size: ScratchSize) -> Any:
    """Return an untrained ``UNet2DConditionModel`` that hears its text in one or two ways.

    By cross-attention, at the lowest level and in the middle (at the first level too it would cost a third of the
    speed), and with ``pooled_text`` also pooled, added to the time embedding that scales and shifts every residual
    block: attention learns which word belongs where, and takes far more steps to learn anything than a small run has.
    """
    from diffusers import UNet2DConditionModel

    levels = len(size.unet_channels)
    pooled = {
        "addition_embed_type": "text", "addition_embed_type_num_heads": 4, "resnet_time_scale_shift": "scale_shift",
    }  # fmt: skip
    return UNet2DConditionModel(
        sample_size=size.latent_size,
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        layers_per_block=size.unet_layers,
        block_out_channels=size.unet_channels,
        down_block_types=("DownBlock2D",) * (levels - 1) + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
        cross_attention_dim=size.text_width,
        attention_head_dim=4,
        norm_num_groups=16,
        **(pooled if size.pooled_text else {}),
    )


def build_scheduler() -> Any:
    """Return the DDIM scheduler with Stable Diffusion's noise levels and v-prediction."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,  # the last step keeps a little noise, so its log-probability is finite
        steps_offset=1,
        prediction_type="v_prediction",
    )


def fit_tokenizer(texts: Sequence[str], vocabulary: int = 2048) -> Any:
    """Fit a byte-pair ``CLIPTokenizer`` to a corpus; its limit is the corpus' longest text, rounded up to 8.

    Args:
        texts: Every prompt of the training split.
        vocabulary: Largest vocabulary.
    """
    from tokenizers import pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    distinct = sorted(set(texts))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Any byte can be written, within a word and at its end, seen in the corpus or not. Named beforehand, the letters
    # have their numbers for good: those that the trainer finds by itself are numbered in a random order.
    known = [BOS, EOS, *letters, *(letter + WORD_END for letter in letters)]
    backend = CLIPTokenizer(vocab={BOS: 0, EOS: 1}, merges=[]).backend_tokenizer
    backend.train_from_iterator(
        distinct,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=known, end_of_word_suffix=WORD_END, show_progress=False
        ),
    )
    model = json.loads(backend.to_str())["model"]
    fitted = CLIPTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])
    longest = max((len(fitted(text).input_ids) for text in distinct), default=8)
    fitted.model_max_length = min(77, 8 * math.ceil((longest + 1) / 8))
    return fitted


def build_text_encoder(size: ScratchSize, tokenizer: Any) -> Any:
    """Return an untrained ``CLIPTextModel`` that fits the tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=2 * size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            projection_dim=size.text_width,
        )
    )
