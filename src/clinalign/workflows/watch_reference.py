"""The real images that watched pictures are held against: those of the same prompts, or of the most similar ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clinalign.core.progress import say
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case, Extractor
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.suite import case_groups
from clinalign.evaluation.watch import RealRange, describe, join

REAL_IMAGES = 256  # at least, over all prompts, where there are so many
READ_AT_ONCE = 64


def real_range(
    dataset: PreparedDataset,
    split: str,
    prompts: Sequence[Case],
    images_per_prompt: int,
    extractor: Extractor | None,
    seed: int,
) -> RealRange | None:
    """Read real images that show what the prompts ask for, and measure how they differ among themselves.

    Real images as they occur in the data would not do: prompts ask for rare things as often as for common ones, so a
    generator that learns to keep them moves away from the usual mixture, as it should.

    Args:
        dataset: The run's dataset.
        split: Whose images are read.
        prompts: The watched prompts, each once.
        images_per_prompt: Pictures drawn of each.
        extractor: Gives features too.
        seed: Of the choice.

    Returns:
        The range, ``None`` where there are fewer than two real images (which is said).
    """
    cases = dataset.cases(split)
    firsts = dict(zip(reversed(case_groups(cases)), reversed(cases), strict=True))
    cases = sorted(firsts.values(), key=lambda case: case.case_id)  # one image of a patient or lesion
    if len(cases) < 2:
        say("warning: fewer than two real images to compare with, so only diversity and the evaluator are watched")
        return None
    each = min(len(cases), max(2 * images_per_prompt, -(-REAL_IMAGES // len(prompts))))
    chosen = [matching(prompt, cases, each, derive_seed(seed, "real images", prompt.case_id)) for prompt in prompts]
    distinct = sorted({row for rows in chosen for row in rows})
    parts = [
        describe(dataset.images([cases[row] for row in distinct[start : start + READ_AT_ONCE]]), extractor)
        for start in range(0, len(distinct), READ_AT_ONCE)
    ]
    place = {row: number for number, row in enumerate(distinct)}
    pictures = join(parts).take([place[row] for rows in chosen for row in rows])
    numbers = [number for number, rows in enumerate(chosen) for _ in rows]
    return RealRange.of(pictures, numbers, images_per_prompt, seed)


def matching(prompt: Case, cases: Sequence[Case], count: int, seed: int) -> list[int]:
    """Return the ``count`` cases most like ``prompt``: of the same text, then of the most equal attributes.

    Args:
        prompt: What is asked for.
        cases: To choose from.
        count: How many; no more than there are.
        seed: Of the order of those that are equally alike.
    """
    known = {name: value for name, value in prompt.attributes.items() if value is not None}

    def likeness(case: Case) -> tuple[bool, int]:
        return case.text == prompt.text, sum(case.attributes.get(name) == value for name, value in known.items())

    order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order, key=lambda row: likeness(cases[row]), reverse=True)[:count]
