"""Retrieval, flipped texts and places in an evaluation, from an image-text model and a segmenter that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clinalign.core.types import Case
from clinalign.data.text_flips import Flip
from clinalign.evaluation.regions import clause_counts
from clinalign.networks.place_rules import PlaceRules
from clinalign.networks.segmenter import Segmenter
from clinalign.rewards.consistency import ConsistencyReward
from clinalign.rewards.region import RegionReward
from clinalign.workflows.evaluation_details import detail_changes, detail_entries, detail_of

WORDS = ("heart", "left", "right", "node")
TEXTS = ["heart", "left node", "right node", "heart left", "heart right", "left node"]
CASES = [Case(str(number), text) for number, text in enumerate(TEXTS)]
GROUPS = [case.case_id for case in CASES]
SPREAD: dict[str, Any] = {"replicates": 50, "seed": 0}


class WordModel:
    """Reads which of four words a text has; sees the means of an image's four columns."""

    identity = "words"
    scale = torch.tensor(1.0)

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(images.mean(dim=(1, 2)), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return F.normalize(torch.tensor([[0.01 + (word in text.split()) for word in WORDS] for text in texts]), dim=1)

    def truncates(self, texts: Sequence[str]) -> tuple[bool, ...]:
        return (False,) * len(texts)


def other_side(case: Case, random: object) -> list[Flip]:
    swap = {"left": "right", "right": "left"}
    text = " ".join(swap.get(word, word) for word in case.text.split())
    return [Flip(text, "side")] if text != case.text else []


def pictures(texts: Sequence[str]) -> torch.Tensor:
    rows = [torch.tensor([0.01 + 0.9 * (word in text.split()) for word in WORDS]).expand(3, 4, 4) for text in texts]
    return torch.stack(rows)


def reward() -> ConsistencyReward:
    return ConsistencyReward(WordModel(), flipper=other_side)


def kept(texts: Sequence[str]) -> torch.Tensor:
    take = detail_of(reward())
    assert take is not None
    return torch.cat([take(pictures(texts[:4]), CASES[:4]), take(pictures(texts[4:]), CASES[4:])])  # in two batches


def test_pictures_of_their_texts_find_them_and_keep_their_side() -> None:
    entries = detail_entries(reward(), kept(TEXTS), CASES, GROUPS, **SPREAD)
    recall = entries["alignment/recall_at_1"]
    assert recall["value"] == 1.0  # the two cases with one text are each other's answer, not each other's mistake
    assert (recall["candidates"], recall["chance"], recall["evaluator"]) == (5, 1 / 5, "words")
    assert "alignment/recall_at_5" not in entries  # five texts: everybody is among the first five
    assert entries["alignment/flipped_accuracy"]["value"] == 1.0
    assert entries["alignment/flipped_accuracy"]["n"] == 5  # "heart" has no side
    assert "alignment/clip_score" not in entries  # the scorer's own mean has that name


def test_null_pictures_that_show_nothing_are_at_chance() -> None:
    blank = torch.full((6, 3, 4, 4), 0.5)
    entries = detail_entries(reward(), WordModel().embed_images(blank), CASES, GROUPS, **SPREAD)
    assert entries["alignment/flipped_accuracy"]["value"] == pytest.approx(0.5)
    assert entries["alignment/recall_at_1"]["value"] < 0.5


def test_the_change_is_paired() -> None:
    """Before, every side was drawn wrong."""
    swapped = [next((flip.text for flip in other_side(case, None)), case.text) for case in CASES]
    changes = detail_changes(reward(), kept(swapped), kept(TEXTS), CASES, GROUPS, **SPREAD)
    assert changes["change/alignment/flipped_accuracy"]["value"] == 1.0
    assert changes["change/alignment/recall_at_1"]["value"] == pytest.approx(5 / 6)
    none = detail_changes(reward(), kept(TEXTS), kept(TEXTS), CASES, GROUPS, **SPREAD)
    assert none["change/alignment/recall_at_1"]["ci95"] == [0.0, 0.0]


class Finder(Segmenter):
    """Finds an effusion wherever the picture is bright."""

    def maps(self, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
        return images[:, :1].repeat(1, len(self.regions), 1, 1)


@pytest.fixture(scope="module")
def finder() -> RegionReward:
    torch.manual_seed(0)
    return RegionReward(Finder(["effusion"], 32, "test_byobnet", PlaceRules(True, default_floor=0.01)))


def test_places_are_counted_picture_by_picture(finder: RegionReward) -> None:
    left = torch.zeros(3, 32, 32)
    left[:, 20:28, 18:28] = 1.0  # the patient's left is the viewer's right
    images = torch.stack([left, left.flip(2), left])
    cases = [Case("0", "Left effusion."), Case("1", "Left effusion."), Case("2", "Effusion.")]
    take = detail_of(finder)
    assert take is not None
    counts = take(images, cases)
    assert torch.equal(counts, clause_counts(finder.segmenter, images, cases))
    assert counts[:, 0].tolist() == [[1, 1], [0, 1], [0, 0]]
    groups = ["a", "b", "c"]
    entry = detail_entries(finder, counts, cases, groups, **SPREAD)["alignment/region_agreement"]
    assert (entry["value"], entry["n"], entry["clauses"]) == (0.5, 2, 2)
    changes = detail_changes(finder, take(images.flip(3), cases), counts, cases, groups, **SPREAD)
    assert changes["change/alignment/region_side"]["value"] == 0.0  # one gained, one lost


def test_other_scorers_keep_nothing() -> None:
    class Plain:
        name = identity = "plain"

        def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> Any:
            raise AssertionError

    assert detail_of(Plain()) is None
