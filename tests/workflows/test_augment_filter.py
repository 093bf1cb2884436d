"""What the filter drops: pictures of the wrong class, copies of training images, and repeats."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from clinalign.augmentation.cells import Cell, Problem
from clinalign.augmentation.plan import CellPlan, PlanRules
from clinalign.core.types import Case
from clinalign.workflows.augment_filter import COPY, KEPT, REPEAT, SPARE, WRONG, calibrate_filter, judge_cell, promises
from clinalign.workflows.augment_images import Batch, Request
from clinalign.workflows.augment_plan import Ground, blind_spots, judge_skill, look
from clinalign.workflows.augment_settings import AugmentSettings

REAL = 200
SETTINGS = AugmentSettings(rules=PlanRules(measurable=10), resamples=50)


class RedJudge:
    """Calls red pictures A, and looks at nothing but their pixels."""

    attribute_names = ("A", "B")
    identity = "classifier:red"
    device = torch.device("cpu")

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        red = images[:, 0].mean((1, 2))
        return torch.stack([red, 1 - red], 1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def pictures(red: float, count: int, seed: int) -> torch.Tensor:
    """Return ``(count, 3, 4, 4)`` uint8 noise around a red of this strength."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 4, 4, generator=generator)
    images[:, 0] = red + 0.2 * (images[:, 0] - 0.5)
    return (images * 255).round().to(torch.uint8)


def world() -> tuple[Ground, torch.Tensor, Any]:
    cases = [Case(str(row), "t", {"A": row % 2, "B": 1 - row % 2, "hair": 1}, str(row)) for row in range(REAL)]
    images = torch.empty(REAL, 3, 4, 4, dtype=torch.uint8)
    images[1::2], images[::2] = pictures(0.8, REAL // 2, 1), pictures(0.2, REAL // 2, 2)
    ground = Ground(None, Problem(("A", "B"), True), {"train": cases}, {})  # type: ignore[arg-type]
    judge = RedJudge()
    sieve = calibrate_filter(judge, look(judge, images), ground, ["A", "B", "hair"], SETTINGS)  # type: ignore[arg-type]
    return ground, images, sieve


def judged(images: torch.Tensor, wanted: int, ground: Ground, sieve: Any, settings: AugmentSettings = SETTINGS) -> Any:
    plan = CellPlan(Cell("A"), REAL // 2, REAL // 2, True, wanted, len(images))
    requests = [Request(ground.cases["train"][1 + 2 * (row % 50)], row // 50) for row in range(len(images))]
    return judge_cell(plan, Batch(requests, images, Path("f")), sieve, ground, settings)[0]


def test_planted_copies_repeats_and_wrong_pictures_are_dropped() -> None:
    ground, real, sieve = world()
    fresh = pictures(0.85, 30, 3)  # a little redder than real ones, so that nearly all pass
    planted = torch.cat([fresh, real[1:11:2], fresh[:4], pictures(0.2, 6, 4)])
    cell = judged(planted, 20, ground, sieve)
    assert set(cell.verdicts[39:]) == {WRONG}
    passing = [row for row in range(30, 35) if cell.verdicts[row] != WRONG]
    assert passing
    assert {cell.verdicts[row] for row in passing} == {COPY}
    again = [row for row in range(35, 39) if cell.verdicts[row - 35] in (KEPT, SPARE)]
    assert again
    assert {cell.verdicts[row] for row in again} == {REPEAT}
    assert cell.kept == [row for row, verdict in enumerate(cell.verdicts) if verdict == KEPT]
    assert len(cell.kept) <= 20
    assert cell.facts == dict.fromkeys(cell.facts, 0) | Counter(cell.verdicts)
    assert sum(cell.facts.values()) == len(planted)


def test_no_more_are_kept_than_wanted_and_the_rest_is_not_needed() -> None:
    ground, _, sieve = world()
    cell = judged(pictures(0.85, 40, 3), 5, ground, sieve)
    assert len(cell.kept) == 5
    assert cell.facts[SPARE] > 20
    assert not cell.refused


def test_the_threshold_passes_four_fifths_of_real_images_and_few_of_the_other_class() -> None:
    ground, real, sieve = world()
    chance = RedJudge().probabilities(real[1::2].float() / 255)[:, 0]
    assert float((chance >= sieve.thresholds["A", 1]).double().mean()) == pytest.approx(0.8, abs=0.02)
    assert sieve.false_pass == {"A": 0.0, "B": 0.0}
    assert promises(Cell("A", (("hair", "1"), ("age", "<=30"))), ground.cases["train"]) == [("A", 1), ("hair", 1)]


def test_a_cell_of_wrong_pictures_is_not_filled() -> None:
    ground, _, sieve = world()
    cell = judged(pictures(0.2, 30, 5), 10, ground, sieve)
    assert (cell.kept, cell.refused) == ([], "no picture passed the filter")
    assert cell.entries["acceptance"]["value"] == 0.0
    assert "kid" not in cell.entries


def test_too_few_pictures_to_measure_are_refused_unless_asked() -> None:
    ground, _, sieve = world()
    lone = torch.cat([pictures(0.85, 1, 6), pictures(0.2, 20, 7)])
    assert judged(lone, 10, ground, sieve).refused == "1 pictures passed the filter, too few to measure their fidelity"
    assert judged(lone, 10, ground, sieve, AugmentSettings(fill_unmeasured=True, resamples=50)).kept == [0]


def test_pictures_like_the_real_ones_measure_as_such_and_others_do_not() -> None:
    ground, _, sieve = world()
    alike = judged(pictures(0.8, 100, 8), 100, ground, sieve)
    other = judged(pictures(1.0, 100, 9) // 2 + 127, 100, ground, sieve)
    assert alike.entries["acceptance"]["value"] == pytest.approx(0.8, abs=0.1)
    assert alike.entries["judge_accuracy"]["value"] == 1.0
    near, far = alike.entries["kid_drawn"], other.entries["kid_drawn"]
    assert far["ci95"][0] > near["ci95"][1]
    assert abs(near["value"] - near["floor"]) < 0.05 * far["value"]
    assert alike.entries["kid"]["extractor"] == "domain:classifier:red"


def test_a_judge_that_guesses_or_does_not_know_cannot_measure() -> None:
    ground, real, _ = world()
    judge: Any = RedJudge()
    skill = judge_skill(judge, look(judge, real), ground.cases["train"], ["A", "hair"], 0)
    assert skill["A"]["auroc"] == 1.0
    assert blind_spots(skill) == {"hair": "the judge does not know hair"}
    noise = look(judge, pictures(0.5, REAL, 10))
    guessing = blind_spots(judge_skill(judge, noise, ground.cases["train"], ["A"], 0))
    assert guessing["A"].startswith("the judge tells A no better than chance (AUROC 0.")
