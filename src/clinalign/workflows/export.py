"""A tuned model as a folder that plain diffusers opens."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clinalign.core.files import folder_in_progress
from clinalign.generation.ace import ACE_FILE, save_ace
from clinalign.generation.adapters import lora_parameters, save_lora
from clinalign.generation.generator import Generator
from clinalign.generation.model_folder import LORA_FILE, find_model_folder


def export_model(generator: Generator, base: str, out: Path) -> None:
    """Write the pipeline with its adapter beside it; weights of a local base are hard-linked where the disk allows.

    The folder opens with three lines of diffusers::

        pipe = DiffusionPipeline.from_pretrained("run/model")
        pipe.load_lora_weights("run/model")
        image = pipe("a dermoscopic image with melanoma (MEL)").images[0]

    Condition tokens (ACE) lie beside it as ``ace.safetensors``; plain diffusers takes them as prompt embeddings::

        tokens = load_file("run/model/ace.safetensors")["tokens"]
        extend = lambda words: torch.cat([words, tokens.expand(len(words), -1, -1)], dim=1)
        text, empty = map(extend, pipe.encode_prompt(prompt, "cpu", 1, True))
        image = pipe(prompt_embeds=text, negative_prompt_embeds=empty).images[0]

    Args:
        generator: The tuned generator; without an adapter its own weights are written.
        base: The model that it was tuned from.
        out: Folder to make; an earlier export is replaced.
    """
    with folder_in_progress(out) as folder:
        source = find_model_folder(Path(base))
        if generator.ace is not None:
            save_ace(generator.ace, folder)
        if not lora_parameters(generator.unet):
            generator.pipeline.save_pretrained(folder, safe_serialization=True)
            return
        if source.is_dir():
            foreign = shutil.ignore_patterns(LORA_FILE, ACE_FILE, "clinalign.json", "README.md")  # of the base alone
            shutil.copytree(source, folder, copy_function=_link, dirs_exist_ok=True, ignore=foreign)
        else:
            Generator.load(base, adapter=False).pipeline.save_pretrained(folder, safe_serialization=True)
        save_lora(generator.unet, folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
