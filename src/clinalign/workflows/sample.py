"""Sampling: one image for each prompt of a table, in a folder that says how it was made."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.core.errors import UserError
from clinalign.core.files import folder_in_progress, hash_json, write_json
from clinalign.core.precision import pick_device
from clinalign.core.progress import say
from clinalign.core.seeds import derive_seed
from clinalign.generation.generator import Generator
from clinalign.workflows.drawing import choose_sampler, draw, run_config, tell_truncated, truncated_texts
from clinalign.workflows.prompt_table import read_table
from clinalign.workflows.synthetic_images import saving

CARD = "sampling.json"


def sample(
    model: str | Path | Generator,
    prompts: str | Path,
    out: str | Path,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    eta: float | None = None,
    count: int = 1,
    batch_size: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Draw images for the prompts of a CSV file.

    Writes ``OUT/000000.png``, ... , ``OUT/metadata.csv`` (``file_name``, ``text``, ``prompt_id``, ``member``, ``seed``,
    ``model``, ``truncated``, ``case_id`` where the prompts have it, ``tool``), which `evaluate --images OUT` reads, and
    ``OUT/sampling.json``. Image ``m`` of a prompt is drawn from ``derive_seed(seed, "sample", prompt_id, m)``.

    Args:
        model: Pipeline folder, run folder, hub id, or an open generator.
        prompts: CSV file with a column ``text``; ``prompt_id`` (else ``case_id``, else the row's number) names a
            prompt.
        out: Folder to make. One that holds this very sampling is left as it is.
        seed: Of the noise.
        steps: Denoising steps; ``None`` takes those of the run, else 20.
        guidance: Guidance scale; ``None`` takes that of the run, else 5.
        eta: Stochasticity of DDIM; ``None`` takes that of the run, else 1.
        count: Images of each prompt.
        batch_size: Images drawn at once; derived when ``None``, never a result.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The content of ``sampling.json``: settings, number of images, ids of truncated prompts, network evaluations,
        seconds.

    Raises:
        UserError: For a bad table, model, setting or output folder; nothing is written then.
    """
    start = time.perf_counter()
    out = Path(out)
    if count < 1:
        raise UserError(f"--count {count}: write a number of at least 1")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: write a number of at least 1")
    prompt_rows = read_prompts(Path(prompts))
    config = None if isinstance(model, Generator) else run_config(model)
    sampler = choose_sampler(config, steps, guidance, eta)
    former = _former(out)
    generator = model if isinstance(model, Generator) else Generator.load(model, pick_device(device))
    plan = {
        "model": generator.identity,
        "prompts": hash_json(prompt_rows),
        "seed": seed,
        "count": count,
        "sampler": {"name": "ddim", **asdict(sampler)},
        "clinalign": __version__,
    }
    if former is not None:
        if any(former.get(key) != value for key, value in plan.items()):
            raise UserError(f"{out} holds another sampling (other model, prompts or settings): choose another --out")
        say(f"{out} is complete already")
        return former
    cut = truncated_texts(generator, [row["text"] for row in prompt_rows])
    truncated = [row["prompt_id"] for row in prompt_rows if row["text"] in cut]
    tell_truncated(truncated, len(prompt_rows))
    rows: list[dict[str, Any]] = [
        {
            "text": row["text"],
            "prompt_id": row["prompt_id"],
            "member": member,
            "seed": derive_seed(seed, "sample", row["prompt_id"], member),
            "model": generator.identity,
            "truncated": int(row["text"] in cut),
            **{name: row[name] for name in ("case_id",) if name in row},
        }
        for row in prompt_rows
        for member in range(count)
    ]
    texts, seeds = [row["text"] for row in rows], [row["seed"] for row in rows]
    with folder_in_progress(out) as folder:
        for _ in saving(draw(generator, texts, seeds, sampler, batch_size), folder, rows):
            pass
        card = {
            **plan,
            "synthetic": True,
            "images": len(rows),
            "truncated_prompts": truncated,
            "network_evaluations": sampler.evaluations(len(rows)),
            "seconds": round(time.perf_counter() - start, 2),
        }
        write_json(folder / CARD, card)
    return card


def read_prompts(path: Path) -> list[dict[str, str]]:
    """Read prompts: rows with ``text``, ``prompt_id`` and, where the table has it, ``case_id``.

    Raises:
        UserError: When the table cannot be read, or two rows have one id.
    """
    rows = read_table(path, "text")
    kept = []
    for number, row in enumerate(rows):
        name = row.get("prompt_id") or row.get("case_id") or str(number)
        case = {"case_id": row["case_id"]} if "case_id" in row else {}
        kept.append({"text": row["text"], "prompt_id": name, **case})
    ids = [row["prompt_id"] for row in kept]
    twice = [name for name in dict.fromkeys(ids) if ids.count(name) > 1] if len(set(ids)) < len(ids) else []
    if twice:
        raise UserError(f"{path}: prompt_id '{twice[0]}' is given twice, and would be the same image: make ids unique")
    return kept


def _former(out: Path) -> dict[str, Any] | None:
    """Return the card of the sampling that ``out`` holds, ``None`` where it is new or empty."""
    if out.is_file():
        raise UserError(f"{out} is a file: choose a folder with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return None
    try:
        card: dict[str, Any] = json.loads((out / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{out} is not empty and holds no sampling: choose another --out") from error
    return card
