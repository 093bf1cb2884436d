"""Drawing the images of an evaluation and measuring them as they come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.evaluation.diversity import text_ids
from clinalign.generation.generator import Generator
from clinalign.workflows.drawing import Sampler, draw, tell_truncated, truncated_texts
from clinalign.workflows.evaluation_measure import Measured, measure
from clinalign.workflows.evaluation_setup import Bench, EvaluateSettings
from clinalign.workflows.synthetic_images import saving

EXTRA_PROMPTS, EXTRA_MEMBERS = 16, 8  # drawn for diversity alone where the cases' texts hardly repeat


@dataclass(frozen=True)
class Drawn:
    """Images of one generator, measured.

    Attributes:
        measured: What they gave.
        facts: Identity, seconds and network evaluations, for ``evaluation.json``.
    """

    measured: Measured
    facts: dict[str, Any]


def measure_generator(
    generator: Generator,
    bench: Bench,
    sampler: Sampler,
    settings: EvaluateSettings,
    folder: Path | None = None,
    role: str = "",
) -> Drawn:
    """Draw the images of the bench's cases and measure them as they come.

    Image ``m`` of a case is drawn from ``derive_seed(seed, "evaluate", case_id, m)``: the same noise for every
    generator, batch size and number of cases.

    Args:
        generator: The generator, in the state to be measured.
        bench: Cases and instruments.
        sampler: How to draw.
        settings: See :class:`EvaluateSettings`.
        folder: Where to keep images; ``None`` keeps none.
        role: ``base`` or ``tuned`` where both are measured; part of the identity that is recorded, for a generator with
            its adapter off has the weights of the one with it on.
    """
    start = time.perf_counter()
    members = range(settings.images_per_case)
    cases = [case for case in bench.cases for _ in members]
    seeds = [derive_seed(settings.seed, "evaluate", case.case_id, m) for case in bench.cases for m in members]
    cut = truncated_texts(generator, [case.text for case in bench.cases])
    truncated = [case.case_id for case in bench.cases if case.text in cut]
    tell_truncated(truncated, len(bench.cases))
    batches = draw(
        generator, [case.text for case in cases], seeds, sampler, settings.batch_size, f"drawing {role} images"
    )
    identity = f"{generator.identity}:{role}" if role else generator.identity
    if folder is not None:
        rows = [
            {"text": case.text, "case_id": case.case_id, "seed": seed, "model": identity}
            for case, seed in zip(cases, seeds, strict=True)
        ]
        batches = saving(batches, folder, rows, settings.keep_images)
    measured = measure(batches, cases, bench.instruments, text_ids(cases))
    extra = _few_repeat(cases)
    if extra:
        measured = replace(measured, diversity=_draw_extra(generator, extra, bench, sampler, settings).diversity)
    drawn = len(cases) + len(extra)
    facts = {
        "identity": identity,
        "images": len(cases),
        "images_per_case": settings.images_per_case,
        "extra_images_for_diversity": len(extra),
        "network_evaluations": sampler.evaluations(drawn),
        "seconds": round(time.perf_counter() - start, 2),
        "truncated_prompts": truncated,
    }
    return Drawn(measured, facts)


def _few_repeat(cases: Sequence[Case]) -> list[Case]:
    """Return the cases of images to draw for diversity alone; none where enough texts repeat anyway."""
    texts: dict[str, list[Case]] = {}
    for case in cases:
        texts.setdefault(case.text, []).append(case)
    enough = min(EXTRA_PROMPTS, max(2, len(texts) // 2))
    if sum(len(members) > 1 for members in texts.values()) >= enough:
        return []
    return [members[0] for members in list(texts.values())[:EXTRA_PROMPTS] for _ in range(EXTRA_MEMBERS)]


def _draw_extra(
    generator: Generator, cases: list[Case], bench: Bench, sampler: Sampler, settings: EvaluateSettings
) -> Measured:
    """Draw several images of each of a few texts."""
    headline = bench.instruments.headline
    instruments = replace(bench.instruments, extractors={headline: bench.instruments.extractors[headline]})
    seeds = [
        derive_seed(settings.seed, "diversity", case.case_id, number % EXTRA_MEMBERS)
        for number, case in enumerate(cases)
    ]
    texts = [case.text for case in cases]
    batches = draw(generator, texts, seeds, sampler, settings.batch_size, "drawing for diversity")
    return measure(batches, cases, instruments, text_ids(cases))
