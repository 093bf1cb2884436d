"""The best epochs of a run: those that no other beats in reward, evaluator and distance to real images together.

Their adapters are small and are kept in ``RUN/front/epoch_0010/``; with the base model that the run started from they
are whole generators: ``clinalign sample --model RUN/front/epoch_0010``.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinalign.core.config import TuneConfig
from clinalign.core.files import folder_in_progress, write_json
from clinalign.core.runs import RunFolder
from clinalign.generation.ace import save_ace
from clinalign.generation.adapters import lora_parameters, save_lora
from clinalign.generation.generator import Generator
from clinalign.generation.model_folder import ADAPTER_FILE

FRONT_FILE = "front.json"
# What an epoch is judged by, and whether more of it is better.
MEASURES = {"evaluate/reward": True, "evaluate/attribute_accuracy": True, "watch/distance": False}


@dataclass(frozen=True)
class Point:
    """One look.

    Attributes:
        epoch: Its epoch; 0 is the anchor.
        values: Key of :data:`MEASURES` to value, those that were measured.
    """

    epoch: int
    values: Mapping[str, float]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Point:
        """Read a row of ``metrics.jsonl``."""
        return cls(int(row["epoch"]), {key: float(row[key]) for key in MEASURES if key in row})

    def gains(self, keys: Sequence[str]) -> tuple[float, ...]:
        """Return the values so that more is better."""
        return tuple(self.values[key] if MEASURES[key] else -self.values[key] for key in keys)


def non_dominated(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other point equals or beats in all measures and beats in one.

    Compared by the measures that all of them have; without any, all are returned.
    """
    keys = [key for key in MEASURES if all(key in point.values for point in points)]

    def beats(one: Point, other: Point) -> bool:
        pairs = list(zip(one.gains(keys), other.gains(keys), strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return [point for point in points if not any(beats(other, point) for other in points)]


def thin_out(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most ``most`` points, taking away the most crowded one at a time; the ends of the front stay longest.

    Crowding is that of NSGA-II (Deb et al. 2002): the sum over measures of the distance between a point's neighbours.
    """
    kept = list(points)
    keys = [key for key in MEASURES if all(key in point.values for point in kept)]
    while len(kept) > max(0, most):
        spans = {key: [point.gains([key])[0] for point in kept] for key in keys}
        room = {point.epoch: 0.0 for point in kept}
        middle = {point.epoch: 0.0 for point in kept}  # ends are told apart by how good they are overall
        for key, values in spans.items():
            width = (max(values) - min(values)) or 1.0
            order = sorted(kept, key=lambda point, key=key: point.gains([key])[0])  # type: ignore[misc]
            for place, point in enumerate(order):
                if place in (0, len(order) - 1):
                    room[point.epoch] = math.inf
                else:
                    below, above = order[place - 1].gains([key])[0], order[place + 1].gains([key])[0]
                    room[point.epoch] += (above - below) / width
                middle[point.epoch] += (point.gains([key])[0] - min(values)) / width
        kept.remove(min(kept, key=lambda point: (room[point.epoch], middle[point.epoch], point.epoch)))
    return kept


class Front:
    """Keeps the adapters of the best epochs.

    What is kept is computed from the looks so far, in their order, so that a resumed run keeps what an uninterrupted
    one would.

    Args:
        run: The run folder.
        config: The run's config.
        rows: Rows of ``metrics.jsonl`` so far.
    """

    def __init__(self, run: RunFolder, config: TuneConfig, rows: Sequence[Mapping[str, Any]]) -> None:
        self.folder, self.most, self.base = run.front, config.evaluate.front, config.generator.model
        self.anchor: Point | None = None
        self.kept: list[Point] = []
        for row in rows:
            if any(key in row for key in MEASURES):
                self._admit(Point.of(row))
        # an adapter whose row was dropped with the epochs after the checkpoint is made again
        self.kept = [point for point in self.kept if self._place(point).is_dir()]
        self._clear()

    def offer(self, row: Mapping[str, Any], generator: Generator) -> None:
        """Keep the generator's adapter if this look is on the front, and let go of those that no longer are.

        Args:
            row: The look's row of ``metrics.jsonl``.
            generator: With the weights that were looked at; without an adapter nothing is kept.
        """
        point = Point.of(row)
        if not self.most or not lora_parameters(generator.unet):
            return
        self._admit(point)
        if point in self.kept:
            with folder_in_progress(self._place(point)) as folder:
                save_lora(generator.unet, folder)
                if generator.ace is not None:
                    save_ace(generator.ace, folder)
                card = {"base": self.base, "base_identity": generator.identity, "epoch": point.epoch, **point.values}
                write_json(folder / ADAPTER_FILE, card)
        self._clear()
        if self.anchor is not None:
            write_json(
                self.folder / FRONT_FILE,
                {
                    "measures": {key: "higher" if more else "lower" for key, more in MEASURES.items()},
                    "anchor": dict(self.anchor.values),
                    "epochs": [
                        {"epoch": point.epoch, "folder": self._place(point).name, **point.values} for point in self.kept
                    ],
                },
            )

    def _admit(self, point: Point) -> None:
        """Take a look into account; the anchor beats others but is not kept, for it is the base model."""
        if point.epoch == 0:
            self.anchor = point
        rivals = [self.anchor] if self.anchor is not None and self.anchor is not point else []
        best = non_dominated([*rivals, *self.kept, point])
        self.kept = thin_out([one for one in best if one.epoch > 0], self.most)

    def _place(self, point: Point) -> Any:
        return self.folder / f"epoch_{point.epoch:04d}"

    def _clear(self) -> None:
        """Remove adapters that are not on the front."""
        wanted = {self._place(point).name for point in self.kept}
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if re.fullmatch(r"\.?epoch_\d+.*", place.name) and place.name not in wanted:
                shutil.rmtree(place, ignore_errors=True)
