"""Toy runs under the guard: a planted shortcut trips it, a benign reward does not, one fixed picture is told."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clinalign.core.runs import RunFolder
from clinalign.core.types import Case, RewardResult
from clinalign.tuning.guards import review
from clinalign.workflows import tune as workflow
from clinalign.workflows.report_findings import summarise
from clinalign.workflows.report_guard import guard_record
from clinalign.workflows.watch import Watch

pytestmark = pytest.mark.slow  # a second or two each
BRIGHTER = 0.08  # what real pictures have more of than the toy's first ones
RUN = {
    "rollout.steps": 4,
    "rollout.guidance": 1.0,
    "objective": {"name": "draft", "last_steps": 4},
    "train.learning_rate": 0.1,
    "train.ema_decay": 0.0,
    "train.epochs": 12,
    "train.checkpoint_every": 2,
    "evaluate": {"every": 2, "prompts": 6, "images_per_prompt": 4, "guard": "stop"},
}


class Painter(torch.nn.Module):
    """A policy that can add one picture to all of its pictures and, if it may, take away what tells them apart."""

    def __init__(self, collapses: bool) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(4, 8, 8))
        self.pull = torch.nn.Parameter(torch.zeros(())) if collapses else 0.0

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.shift + self.pull * x)


def show(latents: torch.Tensor) -> torch.Tensor:
    """Three channels as colours around mid-grey, without the grain of the latents."""
    soft = F.avg_pool2d(latents[:, :3], 3, stride=1, padding=1, count_include_pad=False)
    return (0.5 + 0.15 * F.interpolate(soft, scale_factor=2, mode="bilinear")).clamp(0, 1)


class RealPictures:
    """In place of a dataset: pictures like the toy's first ones, a little brighter, as different in brightness."""

    def cases(self, split: str) -> list[Case]:
        return [Case(f"real {number}", "a picture", group_id=str(number)) for number in range(96)]

    def images(self, cases: Sequence[Case]) -> torch.Tensor:
        chance = torch.Generator().manual_seed(0)
        latents = torch.randn(len(cases), 4, 8, 8, generator=chance)
        return (show(latents) + BRIGHTER + 0.03 * torch.randn(len(cases), 1, 1, 1, generator=chance)).clamp(0, 1)


class Toy:
    """A reward of the picture alone."""

    def __init__(self, score: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.name = self.identity = "toy"
        self.score = score

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        values = self.score(images)
        return RewardResult(values, torch.ones(len(values), dtype=torch.bool))


def bright_corner(images: torch.Tensor) -> torch.Tensor:
    return images[..., :4, :4].mean(dim=(1, 2, 3))


def real_brightness(images: torch.Tensor) -> torch.Tensor:
    return -(images.mean(dim=(1, 2, 3)) - 0.5 - BRIGHTER).square() * 100


def one_picture(images: torch.Tensor) -> torch.Tensor:
    return -(images - 0.5 - BRIGHTER).square().mean(dim=(1, 2, 3)) * 100


@pytest.fixture
def run_toy(make_tuner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(workflow, "export_model", lambda generator, base, out: out.mkdir(parents=True, exist_ok=True))

    def run(
        score: Callable[[torch.Tensor], torch.Tensor], resume: bool = False, collapses: bool = False, **changes: Any
    ) -> Any:
        def paint(generator: Any) -> None:
            generator.unet = Painter(collapses)
            generator.decode = generator.decode_with_gradient = show

        changed = {**copy.deepcopy(RUN), **{key.replace("__", "."): value for key, value in changes.items()}}
        changed["generator.adapter.kind"] = "full"
        tuner = make_tuner(changed, Toy(score), change_generator=paint)
        checkpoint = tuner.run.open(tuner.config, resume)
        if checkpoint is not None:
            tuner.load(checkpoint)
        watch = Watch(
            tuner.config, tuner.prompts, tuner.generator, tuner.run, None, tuner.epoch,
            RealPictures(), tuner.reward.weights,  # type: ignore[arg-type]
        )  # fmt: skip
        workflow._loop(tuner, watch, tuner.accelerator, None)
        return tuner

    return run


def verdict_of(tuner: Any) -> Any:
    return review(tuner.run.read_metrics(), tuner.config.evaluate)


def test_a_planted_shortcut_trips_the_guard(run_toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tuner = run_toy(bright_corner)
    rows = tuner.run.read_metrics()
    verdict = verdict_of(tuner)
    assert verdict.state == "stop"
    assert rows[-1]["epoch"] == tuner.epoch < 12  # it ended there
    assert tuner.run.path.joinpath("model").is_dir()
    assert (tuner.run.checkpoints / f"epoch_{tuner.epoch:05d}").is_dir()
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("while fine detail (grids, blur) leaves the real range") == 2  # as a warning, and as the reason
    assert f"stopped by the guard after epoch {tuner.epoch} of 12" in told


def test_a_benign_reward_does_not(run_toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tuner = run_toy(real_brightness, train__learning_rate=0.02)
    looks = [row for row in tuner.run.read_metrics() if "watch/layout" in row]
    assert tuner.epoch == 12
    assert verdict_of(tuner).state == "ok"
    rise = looks[-1]["evaluate/reward"] - looks[0]["evaluate/reward"]
    assert rise > 5 * looks[-1]["watch_noise/reward"]  # it did learn
    assert looks[-1]["watch/intensity"] < looks[0]["watch/intensity"]  # and pictures became more like real ones
    assert "warning" not in capsys.readouterr().err


def test_a_reward_for_one_fixed_picture_costs_diversity_and_the_report_says_so(run_toy: Any) -> None:
    tuner = run_toy(one_picture, collapses=True, evaluate__guard="warn")
    rows = tuner.run.read_metrics()
    lost = [row["watch/diversity"] for row in rows if "watch/diversity" in row]
    assert lost[0] == 0.0
    assert lost[-1] > 0.5
    assert tuner.epoch == 12  # warned, not ended
    record = guard_record(rows, tuner.config.model_dump(mode="json"))
    told = [finding.text for finding in summarise({}, curve=rows, guard=record) if finding.kind == "bad"]
    assert any(
        text.startswith("The reward was hacked: ")
        and "diversity within a prompt" in text
        and "The run went on." in text
        for text in told
    )


def test_a_resumed_run_knows_why_it_stopped(run_toy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stopped = run_toy(bright_corner)
    before = stopped.run.metrics.read_bytes()
    capsys.readouterr()
    again = run_toy(bright_corner, resume=True)
    assert again.epoch == stopped.epoch
    assert again.run.metrics.read_bytes() == before
    told = " ".join(capsys.readouterr().err.split())
    assert f"stopped by the guard after epoch {stopped.epoch} of 12: reward rises" in told
    went_on = run_toy(bright_corner, resume=True, evaluate__guard="warn")
    assert went_on.epoch == 12
    assert verdict_of(went_on).state == "stop"
    assert "layout" in [parting.metric for parting in verdict_of(went_on).partings]  # the corner itself shows by then


def test_interrupted_and_resumed_is_the_same_verdict(run_toy: Any, tmp_path: Path) -> None:
    whole = run_toy(bright_corner, evaluate__guard="warn", train__epochs=6)
    rows = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in whole.run.read_metrics()]
    said = whole.run.guard.read_bytes()
    whole.run.path.rename(tmp_path / "whole")
    run_toy(bright_corner, evaluate__guard="warn", train__epochs=4)
    again = run_toy(bright_corner, resume=True, evaluate__guard="warn", train__epochs=6)
    assert [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in again.run.read_metrics()] == rows
    assert again.run.guard.read_bytes() == said


def test_watching_does_not_change_what_is_trained(run_toy: Any, tmp_path: Path) -> None:
    watched = run_toy(bright_corner, evaluate__guard="warn", train__epochs=4)
    state = {name: value.detach().clone() for name, value in watched.parameters.items()}
    rows = watched.run.read_metrics()
    watched.run.path.rename(tmp_path / "watched")
    blind = run_toy(bright_corner, evaluate__guard="off", train__epochs=4)
    assert all(torch.equal(value, blind.parameters[name]) for name, value in state.items())
    new = ("seconds/", "watch/", "watch_noise/")
    for mine, theirs in zip(blind.run.read_metrics(), rows, strict=True):
        assert not any(key.startswith("watch") for key in mine)
        assert {key: value for key, value in mine.items() if not key.startswith(new)} == {
            key: value for key, value in theirs.items() if not key.startswith(new)
        }
    assert not RunFolder(blind.run.path).guard.exists()
