"""The consistency reward, with a model whose space is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError
from clinalign.core.types import Case, Reward
from clinalign.data.prompts import chest_prompt
from clinalign.data.text_flips import Flip, text_flips
from clinalign.generation.architecture import fit_tokenizer
from clinalign.networks.image_text import ImageTextPair
from clinalign.rewards import load_reward
from clinalign.rewards.check import examine
from clinalign.rewards.consistency import ConsistencyReward


class Bright:
    """Sees whether the left and the right half are bright; reads ``left`` and ``right``; four words at most."""

    identity = "bright"
    scale = torch.tensor(2.0)

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[-1] // 2
        sides = [images[..., :half].mean(dim=(1, 2, 3)), images[..., half:].mean(dim=(1, 2, 3))]
        return F.normalize(torch.stack(sides, dim=1), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [[float("left" in text), float("right" in text)] for text in texts]
        return F.normalize(torch.tensor(rows).reshape(-1, 2), dim=1)

    def truncates(self, texts: Sequence[str]) -> tuple[bool, ...]:
        return tuple(len(text.split()) > 4 for text in texts)


def bright(side: str) -> torch.Tensor:
    """One picture that is bright on one side and dim on the other: 3 to 4, so that cosines are 0.8 and 0.6."""
    image = torch.full((1, 3, 8, 8), 0.6)
    half = slice(0, 4) if side == "left" else slice(4, 8)
    image[..., half] = 0.8
    return image


def cases(*texts: str) -> list[Case]:
    return [Case(str(number), text) for number, text in enumerate(texts)]


def test_the_score_is_the_cosine() -> None:
    reward = ConsistencyReward(Bright())
    assert isinstance(reward, Reward)
    result = reward(torch.cat([bright("left"), bright("left")]), cases("left lung.", "right lung."))
    assert result.values.tolist() == pytest.approx([0.8, 0.6])
    assert result.valid.all()
    assert result.parts["cosine"].tolist() == pytest.approx([0.8, 0.6])


def test_contrast_is_the_log_probability_among_the_flips() -> None:
    reward = ConsistencyReward(Bright(), "contrast")
    result = reward(torch.cat([bright("left"), bright("left")]), cases("The left lung.", "The lung."))
    true, flipped = math.exp(2 * 0.8), math.exp(2 * 0.6)  # the only flip is the other side
    assert result.values[0].item() == pytest.approx(math.log(true / (true + flipped)), rel=1e-4)
    assert result.parts["cosine"][0].item() == pytest.approx(0.8)
    assert result.valid.tolist() == [True, False]  # nothing in "The lung." can be flipped


def test_contrast_without_any_flip_is_invalid() -> None:
    result = ConsistencyReward(Bright(), "contrast")(bright("left"), cases("The lung."))
    assert result.valid.tolist() == [False]
    assert ConsistencyReward(Bright(), "contrast").wrong_cases(cases("The lung."), np.random.default_rng(0)) == [None]


@pytest.mark.parametrize("score", ["cosine", "contrast"])
def test_it_is_differentiable_in_the_images(score: str) -> None:
    images = bright("right").requires_grad_()
    ConsistencyReward(Bright(), score)(images, cases("The left lung.")).values.sum().backward()
    assert images.grad is not None
    assert images.grad[..., :4].sum() > 0 > images.grad[..., 4:].sum()  # brighter left, darker right


def test_an_empty_text_is_masked_and_not_zero() -> None:
    result = ConsistencyReward(Bright())(torch.cat([bright("left")] * 2), cases(" ", "left lung."))
    assert result.valid.tolist() == [False, True]
    assert result.parts["cosine"].isnan().tolist() == [True, False]


def test_texts_that_are_too_long_are_counted_and_marked(capsys: pytest.CaptureFixture[str]) -> None:
    reward = ConsistencyReward(Bright())
    for _ in range(2):
        result = reward(torch.cat([bright("left")] * 2), cases("left lung.", "left lung and much more to say"))
        assert result.parts["truncated"].tolist() == [0.0, 1.0]
        assert result.valid.all()
    assert reward.truncated == 2
    assert capsys.readouterr().err.count("longer than its model's limit") == 1


def test_wrong_cases_have_another_text_and_all_else_the_same() -> None:
    case = Case("1", "The left lung.", {"nodule": 1}, "patient")
    (wrong,) = ConsistencyReward(Bright()).wrong_cases([case], np.random.default_rng(0))
    assert wrong == Case("1", "The right lung.", {"nodule": 1}, "patient")


def check(flipper: Any, model: Any = None, count: int = 40) -> Any:
    random = torch.Generator().manual_seed(0)
    sides = ["left" if number % 2 else "right" for number in range(count)]
    images = torch.cat([bright(side) for side in sides]) + 0.02 * torch.rand((count, 3, 8, 8), generator=random)
    found = [Case(str(number), f"The {side} lung.") for number, side in enumerate(sides)]
    return examine(ConsistencyReward(model or Bright(), flipper=flipper), images, found)


def test_the_check_flips_the_text() -> None:
    report = check(text_flips)
    assert report.separation["wrong_label"] == 1.0
    assert report.numbers["wrong_case_loses"] == 1.0
    assert report.attributes == {}  # it does not read them
    assert not any("right labels from wrong" in reason or "does not look" in reason for reason in report.reasons)


def test_the_check_finds_a_model_that_does_not_read() -> None:
    class Deaf(Bright):
        def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
            return F.normalize(torch.ones(len(texts), 2), dim=1)

    report = check(text_flips, Deaf())
    assert not report.passed
    assert "does not tell right labels from wrong ones" in "; ".join(report.reasons)


def test_the_check_finds_a_model_that_reads_and_does_not_look() -> None:
    class Usual(Bright):
        """Likes texts that name few findings, whatever the picture shows (but no noise and no blank page)."""

        def embed_images(self, images: torch.Tensor) -> torch.Tensor:
            return F.normalize(1.0 + images.mean(dim=(1, 2, 3))[:, None] * torch.tensor([1.0, 0.0]), dim=1)

        def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
            return F.normalize(torch.tensor([[1.0, float(text.count("."))] for text in texts]), dim=1)

    names = ("Mass", "Edema", "Hernia", "Fibrosis", "Nodule")
    found = []
    for number in range(100):
        truth = {name: int(number % 10 == place) for place, name in enumerate(names)}
        found.append(Case(str(number), chest_prompt(truth), truth))
    images = 0.5 + 0.1 * torch.rand((100, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    report = examine(ConsistencyReward(Usual()), images, found)
    assert "it does not look: a wrong case loses on" in "; ".join(report.reasons)
    assert report.numbers["wrong_case_loses"] == report.numbers["wrong_case_loses_elsewhere"]
    every = [flip for case in found for flip in text_flips(case, np.random.default_rng(0))]
    assert np.mean([flip.kind == "added" for flip in every]) > 0.8  # one flip of each at random would have passed it


def test_the_check_needs_texts_that_can_be_flipped() -> None:
    report = check(lambda case, random: [])
    assert not report.passed
    assert "no valid score against wrong label" in report.reasons


def test_only_cases_with_a_wrong_version_are_compared() -> None:
    def odd(case: Case, random: object) -> list[Flip]:
        return [Flip("The dark lung.", "side")] if int(case.case_id) % 2 else []

    report = check(odd)
    assert report.numbers["wrong_case_loses"] == 1.0  # the others, the same on both sides, would have tied
    assert report.separation["wrong_label"] == 1.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    ImageTextPair(fit_tokenizer(["left lung", "right lung"]), 32, "test_byobnet").save(tmp_path / "pair")
    return tmp_path / "pair"


def test_it_is_loaded_by_name_from_a_folder(folder: Path) -> None:
    reward = load_reward("consistency", folder, {"batch_size": 1})
    images, found = torch.rand(3, 3, 16, 16), cases("left lung", "right lung", "left lung")
    whole = load_reward("consistency", folder)
    torch.testing.assert_close(reward(images, found).values, whole(images, found).values, atol=1e-6, rtol=1e-5)
    assert whole(images, found).values.abs().max() <= 1.0
    assert reward.identity.startswith("consistency:")
    assert load_reward("consistency", folder, {"score": "contrast"}).identity != reward.identity


def test_messages(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown score 'cosin' .* did you mean 'cosine'"):
        load_reward("consistency", folder, {"score": "cosin"})
    with pytest.raises(UserError, match=r"batch_size .* 1 or more"):
        load_reward("consistency", folder, {"batch_size": 0})
    with pytest.raises(UserError, match=r"unknown backend 'openclip' .* did you mean 'open_clip'"):
        load_reward("consistency", folder, {"backend": "openclip"})
    with pytest.raises(UserError, match="no setting 'scores': did you mean 'score'"):
        load_reward("consistency", folder, {"scores": "cosine"})
    with pytest.raises(UserError, match="needs the folder"):
        load_reward("consistency")
    with pytest.raises(UserError, match="no transformers model in"):
        load_reward("consistency", folder, {"backend": "transformers"})
    with pytest.raises(UserError, match="no network in"):
        load_reward("consistency", tmp_path / "none")
