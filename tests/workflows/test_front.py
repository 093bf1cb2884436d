"""Which epochs are worth keeping, and an adapter of one of them as a generator."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.files import write_json, write_text
from clinalign.core.runs import RunFolder
from clinalign.generation.adapters import add_lora, lora_parameters
from clinalign.generation.generator import Generator
from clinalign.workflows.drawing import run_config
from clinalign.workflows.front import MEASURES, Front, Point, non_dominated, thin_out


def point(epoch: int, *values: float) -> Point:
    return Point(epoch, dict(zip(MEASURES, values, strict=False)))


def epochs(points: list[Point]) -> list[int]:
    return sorted(one.epoch for one in points)


def test_only_what_nothing_beats_in_all_is_on_the_front() -> None:
    best_reward, best_judge, nearest = point(1, 0.9, 0.5, 3.0), point(2, 0.5, 0.9, 3.0), point(3, 0.5, 0.5, 1.0)
    beaten, twin = point(4, 0.5, 0.5, 3.0), point(5, 0.9, 0.5, 3.0)
    assert epochs(non_dominated([best_reward, best_judge, nearest, beaten, twin])) == [1, 2, 3, 5]


def test_a_measure_that_some_lack_does_not_count() -> None:
    with_distance, without = point(1, 0.5, 0.5, 1.0), point(2, 0.6, 0.6)
    assert epochs(non_dominated([with_distance, without])) == [2]


def test_the_ends_of_the_front_stay_and_the_crowded_go() -> None:
    front = [point(epoch, epoch / 10, 1 - epoch / 10) for epoch in (0, 1, 4, 5, 6, 10)]
    assert epochs(thin_out(front, 4)) == [0, 4, 6, 10] or epochs(thin_out(front, 4)) == [0, 1, 5, 10]
    assert {0, 10} <= set(epochs(thin_out(front, 3)))
    assert len(thin_out(front, 1)) == 1
    assert thin_out(front, 0) == []
    assert thin_out(front, 9) == front


@pytest.fixture
def tuned(tiny: Any) -> Any:
    """The tiny generator with an adapter of its own."""
    generator = Generator.load(tiny.model)
    add_lora(generator.unet, 2, "attention", 0)
    return generator


def config(tiny: Any, front: int = 5) -> Any:
    return SimpleNamespace(evaluate=SimpleNamespace(front=front), generator=SimpleNamespace(model=str(tiny.model)))


def row(epoch: int, reward: float, distance: float) -> dict[str, float]:
    return {"epoch": epoch, "evaluate/reward": reward, "watch/distance": distance}


def test_adapters_come_and_go_with_the_front(tiny: Any, tuned: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    front = Front(run, config(tiny), [])

    def kept() -> list[str]:
        return sorted(place.name for place in run.front.iterdir() if place.is_dir())

    front.offer(row(0, 0.5, 2.0), tuned)  # the anchor is the base model and is not kept
    assert kept() == [] if run.front.is_dir() else True
    front.offer(row(10, 0.6, 2.5), tuned)
    front.offer(row(20, 0.4, 2.5), tuned)  # the anchor beats it
    front.offer(row(30, 0.8, 2.4), tuned)  # and this one beats epoch 10
    front.offer(row(40, 0.9, 3.0), tuned)
    assert kept() == ["epoch_0030", "epoch_0040"]
    table = json.loads((run.front / "front.json").read_text(encoding="utf-8"))
    assert [entry["epoch"] for entry in table["epochs"]] == [30, 40]
    assert table["anchor"] == {"evaluate/reward": 0.5, "watch/distance": 2.0}
    # taken up again after epoch 30, it forgets what it is going to see again
    again = Front(run, config(tiny), [row(0, 0.5, 2.0), row(10, 0.6, 2.5), row(20, 0.4, 2.5), row(30, 0.8, 2.4)])
    assert epochs(again.kept) == [30]
    assert kept() == ["epoch_0030"]


def test_nothing_is_kept_when_nothing_is_wanted(tiny: Any, tuned: Any, tmp_path: Path) -> None:
    front = Front(RunFolder(tmp_path), config(tiny, front=0), [])
    front.offer(row(0, 0.5, 2.0), tuned)
    front.offer(row(10, 0.6, 1.0), tuned)
    full = Front(RunFolder(tmp_path), config(tiny), [])
    full.offer(row(10, 0.6, 1.0), Generator.load(tiny.model))  # without an adapter
    assert not (tmp_path / "front").exists()


def test_an_adapter_of_the_front_is_a_generator(tiny: Any, tuned: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with torch.no_grad():
        for parameter in lora_parameters(tuned.unet).values():
            parameter.add_(0.3)
    front = Front(run, config(tiny), [row(0, 0.5, 2.0)])
    front.offer(row(10, 0.6, 1.0), tuned)
    place = run.front / "epoch_0010"
    assert {file.name for file in place.iterdir()} == {"adapter.json", "pytorch_lora_weights.safetensors"}
    opened = Generator.load(place)
    assert "+epoch_0010:" in opened.identity
    first, second = (one.generate(["a skin lesion"], [1], 2, 1.0, 0.5, 1) for one in (tuned, opened))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)
    assert not torch.allclose(first, Generator.load(tiny.model).generate(["a skin lesion"], [1], 2, 1.0, 0.5, 1))
    write_text(run.config, (tiny.run / "config.yaml").read_text(encoding="utf-8"))
    found = run_config(place)
    assert found is not None  # the run's steps and guidance are found
    assert found.rollout.steps == 2


def test_another_base_is_refused(tiny: Any, tuned: Any, tmp_path: Path) -> None:
    front = Front(RunFolder(tmp_path), config(tiny), [row(0, 0.5, 2.0)])
    front.offer(row(10, 0.6, 1.0), tuned)
    file = tmp_path / "front" / "epoch_0010" / "adapter.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    write_json(file, {**card, "base_identity": "model:0123456789ab"})
    with pytest.raises(UserError, match="was trained on other weights than those of"):
        Generator.load(file.parent)
    write_json(file, {"epoch": 10})
    with pytest.raises(UserError, match="does not say which base"):
        Generator.load(file.parent)
