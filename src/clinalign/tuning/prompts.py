"""Which prompts an epoch asks for, and the seed of each picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Case


@dataclass(frozen=True)
class Request:
    """One picture to be drawn.

    Attributes:
        case: What is asked for.
        prompt_id: Key of the running statistics: the whole text with its attributes, hashed; never a truncated text.
        seed: Of the picture's noise.
        group_seed: Of the noise that the pictures of its group share where paths branch.
    """

    case: Case
    prompt_id: str
    seed: int
    group_seed: int = 0


def prompt_id(case: Case) -> str:
    """Return the id of a case's prompt: equal for cases that ask for the same thing."""
    return hash_json([case.text, dict(case.attributes)])


class PromptSource:
    """Draws the prompts of an epoch; the draw depends on the run's seed and the epoch alone.

    Args:
        cases: Cases that may be asked for.
        mode: ``texts`` draws uniformly over distinct prompts (methods 3.2), ``cases`` as they occur in the data.
        seed: The run's seed.
        seeds_per_prompt: Noises that a prompt is drawn from, again and again; 0 takes fresh noise for every picture.

    Raises:
        UserError: When there is no case.
    """

    def __init__(self, cases: Sequence[Case], mode: str, seed: int, seeds_per_prompt: int = 0) -> None:
        if not cases:
            raise UserError("no case is left to take prompts from: look at data.split and data.known")
        distinct = {prompt_id(case): case for case in reversed(cases)}
        self.choices = [(name, distinct[name]) for name in sorted(distinct)] if mode == "texts" else [
            (prompt_id(case), case) for case in cases
        ]  # fmt: skip
        self.seed = seed
        self.seeds_per_prompt = seeds_per_prompt

    def epoch(self, epoch: int, prompts: int, images_per_prompt: int) -> list[Request]:
        """Return the ``prompts * images_per_prompt`` requests of an epoch, grouped by prompt.

        Prompts are drawn without replacement until all were used once, then again.
        """
        chance = torch.Generator().manual_seed(derive_seed(self.seed, "prompts", epoch))
        order: list[int] = []
        while len(order) < prompts:
            order += torch.randperm(len(self.choices), generator=chance).tolist()
        members: Counter[str] = Counter()
        requests = []
        for index in order[:prompts]:
            name, case = self.choices[index]
            shared = derive_seed(self.seed, "group", epoch, name, members[name])
            for _ in range(images_per_prompt):
                requests.append(Request(case, name, self._seed(epoch, name, members[name]), shared))
                members[name] += 1
        return requests

    def _seed(self, epoch: int, name: str, member: int) -> int:
        """Return the seed of a picture: its own, or the next one of the prompt's pool, shuffled anew every epoch."""
        if not self.seeds_per_prompt:
            return derive_seed(self.seed, epoch, name, member)
        chance = torch.Generator().manual_seed(derive_seed(self.seed, "pool", epoch, name))
        order = torch.randperm(self.seeds_per_prompt, generator=chance)
        return derive_seed(self.seed, "pool", name, int(order[member % self.seeds_per_prompt]))

    def fixed(self, prompts: int, images_per_prompt: int) -> list[Request]:
        """Return the requests that are drawn again and again to look at: the same prompts, the same noise."""
        chance = torch.Generator().manual_seed(derive_seed(self.seed, "fixed prompts"))
        order = torch.randperm(len(self.choices), generator=chance).tolist()
        distinct = dict(self.choices[i] for i in order[::-1])  # a prompt asked for by several cases is shown once
        return [
            Request(case, name, derive_seed(self.seed, "fixed", name, member))
            for name, case in list(distinct.items())[::-1][:prompts]
            for member in range(images_per_prompt)
        ]
