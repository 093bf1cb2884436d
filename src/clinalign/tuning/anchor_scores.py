"""Scores of the anchor's pictures, drawn once and remembered on disk (methods 2.4, fact 4).

The anchor depends on nothing that is trained, so its score for a prompt and a seed never changes: a run that is taken
up again, another run of an ablation with the same seeds, or a run whose seeds recur reads it instead of drawing the
picture again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from clinalign.core.errors import UserError
from clinalign.core.files import hash_json, write_text
from clinalign.core.precision import autocast
from clinalign.core.seeds import derive_seed
from clinalign.core.types import Reward, RewardResult
from clinalign.generation.generator import Generator
from clinalign.generation.sampling import draw_trajectories
from clinalign.tuning.prompts import Request
from clinalign.tuning.rollout import Sampler

Sharing = Literal["initial", "all", "none"]
Key = tuple[str, int]


class ScoreCache:
    """Scores of one reward on the pictures of one anchor with one sampler, in a file that only grows.

    Its name is a hash of ``made_of``, so scores of another anchor, reward or sampler are never read. A line that a
    killed process left unfinished is passed over.

    Args:
        folder: Where the files lie; shared by the processes of a run, and by runs.
        made_of: What the scores depend on.
        process: Number of this process; each writes a file of its own.
    """

    def __init__(self, folder: Path, made_of: Mapping[str, object], process: int = 0) -> None:
        name = hash_json(made_of, length=16)
        self.file = folder / f"{name}.{process}.jsonl"
        self._header = json.dumps({"made_of": made_of}, default=str)
        self._scores: dict[Key, float | None] = {}
        for file in sorted(folder.glob(f"{name}.*.jsonl")):
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    prompt, seed, score = json.loads(line)
                    self._scores[(str(prompt), int(seed))] = score
                except (ValueError, TypeError):
                    continue

    def __contains__(self, key: Key) -> bool:
        """Tell whether the picture was scored, be it as unknown."""
        return key in self._scores

    def __getitem__(self, key: Key) -> float | None:
        """Return a score, ``None`` where the reward had none to give."""
        return self._scores[key]

    def __len__(self) -> int:
        """Return the number of scores."""
        return len(self._scores)

    def add(self, scores: Mapping[Key, float | None]) -> None:
        """Remember scores, on disk too.

        Raises:
            UserError: When the disk is full or the file cannot be written.
        """
        if not self.file.exists():  # not before there is a score: the run's folder must be empty when the run takes it
            write_text(self.file, self._header + "\n")
        self._scores.update(scores)
        lines = [json.dumps([prompt, seed, score]) for (prompt, seed), score in scores.items()]
        try:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write("\n" + "\n".join(lines) + "\n")  # the first ends what a killed process began
        except OSError as error:
            raise UserError(f"cannot write {self.file}: {error.strerror}; free some space and resume") from error


@dataclass(frozen=True)
class AnchorScores:
    """What the anchor's pictures scored.

    Attributes:
        result: ``parts`` holds one score a compared reward, NaN where unknown or not asked for; ``values`` has no
            meaning.
        evaluations: Network evaluations spent.
        found: Share of the pictures asked for whose scores were all in the cache; 1 when none was asked for.
    """

    result: RewardResult
    evaluations: int
    found: float


class AnchorScorer:
    """Scores the anchor on the requests of the policy.

    Args:
        generator: The policy.
        anchor: Context in which it is the anchor.
        rewards: The rewards that are compared.
        share: ``initial`` starts from the policy's first noise and goes on with noise of its own. ``all`` shares the
            noise of every step too: the least noisy comparison, but no training signal at the start, because the
            policy's own actions cancel out of the difference. ``none`` shares nothing.
        folder: Of the caches.
        process: Number of this process.
    """

    def __init__(
        self,
        generator: Generator,
        anchor: Callable[[], AbstractContextManager[None]],
        rewards: Mapping[str, Reward],
        share: Sharing,
        folder: Path,
        process: int = 0,
    ) -> None:
        self.generator, self.anchor, self.rewards = generator, anchor, dict(rewards)
        self.share, self.folder, self.process = share, folder, process
        self._caches: dict[str, dict[str, ScoreCache]] = {}

    def caches(self, sampler: Sampler) -> dict[str, ScoreCache]:
        """Return the caches of a sampler by reward; update rules with a moving window use several samplers."""
        schedule = sampler.schedule
        steps = {
            "timesteps": schedule.timesteps.tolist(), "sigma": [round(float(s), 9) for s in schedule.sigma],
            "guidance": sampler.guidance, "precision": sampler.precision, "share": self.share,
        }  # fmt: skip
        made_of = {"anchor": self.generator.identity, "sampler": steps, "device": self.generator.device.type}
        key = hash_json(made_of)
        if key not in self._caches:
            self._caches[key] = {
                name: ScoreCache(self.folder, {**made_of, "reward": reward.identity}, self.process)
                for name, reward in self.rewards.items()
            }
        return self._caches[key]

    def __call__(
        self, requests: Sequence[Request], wanted: Sequence[bool], sampler: Sampler, batch_size: int
    ) -> AnchorScores:
        """Return the anchor's scores for N requests; those not ``wanted`` are NaN and cost nothing."""
        caches = self.caches(sampler)
        keys = [(request.prompt_id, request.seed) for request in requests]
        asked = [row for row, is_wanted in enumerate(wanted) if is_wanted]
        missing = [row for row in asked if any(keys[row] not in cache for cache in caches.values())]
        spent = 0
        for start in range(0, len(missing), batch_size):
            rows = missing[start : start + batch_size]
            images, evaluations = self.draw([requests[row] for row in rows], sampler)
            spent += evaluations
            self._score(images, [requests[row] for row in rows], [keys[row] for row in rows], caches)
        found = 1 - len(missing) / len(asked) if asked else 1.0
        parts = {name: self._read(cache, keys, wanted) for name, cache in caches.items()}
        nothing = torch.zeros(len(requests))
        return AnchorScores(RewardResult(nothing, nothing == 0, parts), spent, found)

    def draw(self, requests: Sequence[Request], sampler: Sampler) -> tuple[torch.Tensor, int]:
        """Return the anchor's pictures of N requests, and the network evaluations spent."""
        generator = self.generator
        condition = generator.encode_text([request.case.text for request in requests])
        seeds = [request.seed for request in requests]
        own = [derive_seed(seed, "anchor") for seed in seeds]
        first, later = {"initial": (seeds, own), "all": (seeds, seeds), "none": (own, own)}[self.share]
        with self.anchor(), autocast(sampler.precision, generator.device):
            drawn = draw_trajectories(generator, condition, first, sampler.schedule, sampler.guidance, path_seeds=later)
        return generator.decode(drawn.clean), drawn.evaluations

    def _score(
        self, images: torch.Tensor, requests: Sequence[Request], keys: Sequence[Key], caches: Mapping[str, ScoreCache]
    ) -> None:
        cases = [request.case for request in requests]
        for name, reward in self.rewards.items():
            failed = getattr(reward, "failed", 0)
            result = reward(images, cases)
            scores = [float(value) if ok else None for value, ok in zip(result.values.tolist(), result.valid.tolist())]
            if (
                getattr(reward, "failed", 0) != failed
            ):  # what failed may succeed the next time; what is unknown stays so
                known = {key: score for key, score in zip(keys, scores) if score is not None}
                caches[name].add(known)
            else:
                caches[name].add(dict(zip(keys, scores)))

    @staticmethod
    def _read(cache: ScoreCache, keys: Sequence[Key], wanted: Sequence[bool]) -> torch.Tensor:
        values = [cache[key] if is_wanted and key in cache else None for key, is_wanted in zip(keys, wanted)]
        return torch.tensor([math.nan if value is None else value for value in values])
