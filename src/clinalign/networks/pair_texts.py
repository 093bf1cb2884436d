"""The texts of image-text training: each distinct text tokenized once, each case's own text and its wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case
from clinalign.data.text_flips import Flip, Flipper, text_flips


@dataclass(frozen=True)
class PairTexts:
    """Texts by number.

    Attributes:
        texts: The T distinct texts.
        own: ``(N,)`` number of each case's true text.
        flips: ``(N, F)`` numbers of its texts with one fact flipped; -1 fills up.
        kinds: N lists of the flips' kinds.
        rates: ``(N, F)`` chance with which each flip is drawn in a step; see :func:`draw_rates`.
        facts: ``(N, K)`` the cases' attributes, 0 or 1, and -1 where unknown.
    """

    texts: list[str]
    own: torch.Tensor
    flips: torch.Tensor
    kinds: list[list[str]]
    rates: torch.Tensor
    facts: torch.Tensor


def case_flips(case: Case, flipper: Flipper = text_flips, seed: int = 0, draws: int = 1) -> list[Flip]:
    """Return the distinct flips of a case over ``draws`` draws; they depend on the seed and the case alone."""
    random = np.random.default_rng(derive_seed(seed, "flips", case.case_id, case.text))
    found = [flip for _ in range(draws) for flip in flipper(case, random)]
    return list({flip.text: flip for flip in found if flip.text != case.text}.values())


def draw_rates(cases: Sequence[Case]) -> dict[str, float]:
    """Return for each attribute how often its addition should be drawn: the odds of its presence, at most 1.

    A finding can be removed from the few cases that have it and added to the many that do not. Were all flips drawn
    alike, a text that names a rare finding would nearly always be wrong, and a model would learn that instead of what
    the finding looks like. At the odds, each finding's additions are as many as its removals.
    """
    answers: dict[str, list[int]] = {}
    for case in cases:
        for name, answer in case.attributes.items():
            if answer is not None:
                answers.setdefault(name, []).append(int(answer))
    return {name: min(1.0, (sum(found) + 0.5) / (len(found) - sum(found) + 0.5)) for name, found in answers.items()}


def pair_texts(
    cases: Sequence[Case],
    attribute_names: Sequence[str],
    flipper: Flipper = text_flips,
    seed: int = 0,
    draws: int = 1,
) -> PairTexts:
    """Collect the texts of ``cases`` and their flips; see :func:`case_flips`."""
    numbers: dict[str, int] = {}
    own = [numbers.setdefault(case.text, len(numbers)) for case in cases]
    found = [case_flips(case, flipper, seed, draws) for case in cases]
    most = max((len(flips) for flips in found), default=0)
    table = torch.full((len(cases), most), -1)
    for row, flips in enumerate(found):
        for column, flip in enumerate(flips):
            table[row, column] = numbers.setdefault(flip.text, len(numbers))
    odds = draw_rates(cases)
    rates = torch.zeros(table.shape)
    for row, flips in enumerate(found):
        for column, flip in enumerate(flips):
            rates[row, column] = odds.get(flip.about, 1.0) if flip.kind == "added" else 1.0
    answers = [[case.attributes.get(name) for name in attribute_names] for case in cases]
    facts = torch.tensor([[-1 if answer is None else int(answer) for answer in row] for row in answers])
    return PairTexts(
        list(numbers),
        torch.tensor(own),
        table,
        [[flip.kind for flip in flips] for flips in found],
        rates,
        facts.reshape(len(cases), len(attribute_names)),
    )
