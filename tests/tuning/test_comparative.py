"""Comparative feedback in the loop: the anchor's pictures, their cache, what is trained and what is logged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.tuning.anchor_scores import ScoreCache

COMPARATIVE = {"feedback.name": "comparative"}


def fingerprint(generator: Any) -> str:
    """Hash of what the anchor draws."""
    with generator.anchor():
        images = generator.generate(["hair", "ink"], [1, 2], steps=2)
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()


class Counting:
    """Brightness, counting the pictures that it was asked for."""

    name = identity = "counting"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        self.asked += len(images)
        values = images.mean(dim=(1, 2, 3))
        return RewardResult(values, torch.ones(len(values), dtype=torch.bool))


@pytest.mark.parametrize(
    "objective",
    [{"name": "ddpo"}, {"name": "awm"}, {"name": "ddpo_window", "window": 2}],
)
def test_with_all_noise_shared_the_anchor_is_a_tie_on_every_sample(
    make_tuner: Callable[..., Any], objective: dict[str, Any]
) -> None:
    tuner = make_tuner({**COMPARATIVE, "feedback.share_noise": "all", "objective": objective})
    before = {name: value.detach().clone() for name, value in tuner.parameters.items()}
    row = tuner.step().metrics
    assert row["win_rate/toy"] == 0.5
    assert row["anchor/toy"] == pytest.approx(row["reward/toy"], abs=1e-6)
    # and so there is nothing to learn: the noise that the policy is judged by cancels out of the comparison
    assert row["advantage/without_signal"] == 1.0
    assert all(torch.equal(value, before[name]) for name, value in tuner.parameters.items())


def test_branches_are_not_compared(make_tuner: Callable[..., Any]) -> None:
    branching = {"name": "ddpo_window", "window": 2, "branch": True}
    with pytest.raises(UserError, match="one noise, which the anchor's pictures do not share: set it to false"):
        make_tuner({**COMPARATIVE, "objective": branching})


def test_with_the_first_noise_shared_there_is_a_signal_from_the_start(make_tuner: Callable[..., Any]) -> None:
    for form in ("logistic", "win", "difference"):
        row = make_tuner({**COMPARATIVE, "feedback.form": form}).step().metrics
        assert row["advantage/without_signal"] < 0.5
        assert 0.1 < row["win_rate/toy"] < 0.9  # sixteen fair coins


def test_it_learns_from_comparisons(make_tuner: Callable[..., Any]) -> None:
    toy = {"rollout.images_per_prompt": 8, "train.learning_rate": 0.3, "objective.clip_range": 0.5}
    for against in ("anchor", "group"):
        tuner = make_tuner(
            {**COMPARATIVE, **toy, "feedback.against": against, "generator.adapter.kind": "full"}, toy=True
        )
        rows = [tuner.step().metrics for _ in range(8)]
        assert rows[-1]["reward/mean"] > rows[0]["reward/mean"] + 2 * rows[0]["reward/std"]
        assert rows[-1]["win_rate/toy"] > 0.9
        assert rows[-1]["anchor/toy"] == pytest.approx(rows[0]["anchor/toy"], abs=0.05)


def test_only_tokens_and_adapter_are_trained_and_the_anchor_stays(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner(
        {**COMPARATIVE, "train.learning_rate": 1e-2, "generator.ace.tokens": 2},
        change_generator=lambda generator: generator.add_ace(2, seed=0),
    )
    generator = tuner.generator
    frozen = {
        name: value.detach().clone()
        for part in (generator.unet, generator.text_encoder, generator.vae)
        for name, value in part.named_parameters()
        if not value.requires_grad
    }
    before, tokens = fingerprint(generator), generator.ace.tokens.detach().clone()
    for _ in range(2):
        tuner.step()
    assert fingerprint(generator) == before
    assert not torch.equal(generator.ace.tokens, tokens)
    for part in (generator.unet, generator.text_encoder, generator.vae):
        for name, value in part.named_parameters():
            assert value.requires_grad == ("lora_" in name)
            if name in frozen:
                assert torch.equal(value, frozen[name])
                assert value.grad is None


def test_the_tokens_have_their_own_learning_rate(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner(
        {"generator.ace.tokens": 2, "generator.ace.learning_rate": 0.5, "train.learning_rate": 1e-9},
        change_generator=lambda generator: generator.add_ace(2, seed=0),
    )
    before = {name: value.detach().clone() for name, value in tuner.parameters.items()}
    tuner.step()
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in tuner.parameters.items()}
    assert moved.pop("ace.tokens") > 0.1
    assert max(moved.values()) < 1e-6
    assert tuner.optimizer.param_groups[1]["weight_decay"] == 0.0


def test_a_checkpoint_takes_tokens_and_spreads_up_again(make_tuner: Callable[..., Any]) -> None:
    def make() -> Any:
        return make_tuner(
            {**COMPARATIVE, "generator.ace.tokens": 2}, change_generator=lambda generator: generator.add_ace(2, seed=0)
        )

    straight, cut = make(), make()
    for tuner in (straight, cut):
        tuner.step()
    cut.save()
    again = make()
    again.load(again.run.checkpoints / "epoch_00001")
    rows = [{k: v for k, v in t.step().metrics.items() if not k.startswith(("seconds", "network", "anchor/cached"))}
            for t in (straight, again)]  # fmt: skip
    assert rows[0] == rows[1]
    for name, value in straight.parameters.items():
        assert torch.equal(value, again.parameters[name])


def test_cached_and_fresh_scores_agree_and_cost_nothing(make_tuner: Callable[..., Any]) -> None:
    first, reward = make_tuner(COMPARATIVE), Counting()
    fresh = first.step().metrics
    again = make_tuner(COMPARATIVE).step().metrics  # the same run folder, the same seeds
    assert again["anchor/toy"] == fresh["anchor/toy"]
    assert again["win_rate/toy"] == fresh["win_rate/toy"]
    assert (fresh["anchor/cached"], again["anchor/cached"]) == (0.0, 1.0)
    images, steps = 16, 4
    assert fresh["network_evaluations_anchor"] == images * steps
    assert again["network_evaluations_anchor"] == 0
    assert fresh["network_evaluations_epoch"] == again["network_evaluations_epoch"] + images * steps
    assert first.plan.evaluations == fresh["network_evaluations_epoch"]
    other = make_tuner(COMPARATIVE, reward)  # scores of another reward are not taken
    assert other.step().metrics["anchor/cached"] == 0.0
    assert reward.asked == 2 * images


def test_seeds_that_recur_are_read_from_the_cache(make_tuner: Callable[..., Any]) -> None:
    changes = {**COMPARATIVE, "rollout.seeds_per_prompt": 4}
    tuner = make_tuner(changes)
    tuner.prompts.choices = tuner.prompts.choices[:4]
    assert [tuner.step().metrics["anchor/cached"] for _ in range(2)] == [0.0, 1.0]


def test_one_picture_of_the_anchor_joins_each_group(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner({**COMPARATIVE, "feedback.against": "group", "feedback.form": "win"})
    row = tuner.step().metrics
    prompts, steps = 4, 4
    assert row["network_evaluations_anchor"] == prompts * steps
    assert tuner.plan.evaluations == row["network_evaluations_epoch"]


def test_a_reward_that_is_not_comparative_is_left_as_it_is(make_tuner: Callable[..., Any]) -> None:
    tuner = make_tuner({**COMPARATIVE, "rewards": [{"name": "brightness", "comparative": False}]})
    row = tuner.step().metrics
    assert "network_evaluations_anchor" not in row
    assert not any(name.startswith(("anchor/", "win_rate/")) for name in row)


def test_a_score_that_failed_is_asked_for_again_and_an_unknown_one_is_not(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path, {"anchor": "a"})
    cache.add({("p", 1): 0.5, ("p", 2): None})
    with cache.file.open("a") as stream:
        stream.write('["p", 3, 0.')  # a killed process
    again = ScoreCache(tmp_path, {"anchor": "a"}, process=1)
    assert ("p", 1) in again
    assert again[("p", 2)] is None
    assert ("p", 3) not in again
    cache.add({("p", 3): 0.25})
    assert ScoreCache(tmp_path, {"anchor": "a"})[("p", 3)] == 0.25
    assert len(ScoreCache(tmp_path, {"anchor": "b"})) == 0


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path, {"anchor": "a"})
    cache.file.mkdir()
    with pytest.raises(UserError, match="Is a directory; free some space and resume"):
        cache.add({("p", 1): 0.5})
