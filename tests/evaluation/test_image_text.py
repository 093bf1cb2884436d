"""Image-text metrics: kernels by hand, and a model whose space is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clinalign.core.types import Case
from clinalign.data.text_flips import Flip
from clinalign.evaluation.image_text import (
    finding_auroc,
    hits,
    image_text_entries,
    matched_auroc,
    pair_entries,
    score_pairs,
    text_rank,
    win_share,
)

NAN = math.nan
WORDS = ("heart", "left", "right", "node")


class WordModel:
    """Reads which of four words a text has; sees the means of an image's four columns. Six words at most."""

    identity = "words"
    scale = torch.tensor(1.0)

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(images.mean(dim=(1, 2)), dim=1)

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [[0.01 + (word in text.split()) for word in WORDS] for text in texts]
        return F.normalize(torch.tensor(rows), dim=1)

    def truncates(self, texts: Sequence[str]) -> tuple[bool, ...]:
        return tuple(len(text.split()) > 6 for text in texts)


def picture(text: str) -> torch.Tensor:
    """The picture that shows exactly what a text says."""
    return torch.tensor([0.01 + 0.9 * (word in text.split()) for word in WORDS]).expand(1, 3, 4, 4)


def other_side(case: Case, random: object) -> list[Flip]:
    swap = {"left": "right", "right": "left"}
    found = [
        Flip(" ".join(swap.get(word, word) for word in case.text.split()), "side"),
        Flip(case.text + " x", "added"),
    ]
    return [flip for flip in found if flip.text != case.text and case.text]


TEXTS = ["heart", "left node", "right node", "heart left", "heart right", "left node"]
CASES = [Case(str(number), text, group_id=f"p{number % 3}") for number, text in enumerate(TEXTS)]
IMAGES = torch.cat([picture(text) for text in TEXTS])


def test_win_share_by_hand() -> None:
    true = torch.tensor([0.5, 0.5, 0.5])
    flipped = torch.tensor([[0.4, 0.6], [0.5, NAN], [NAN, NAN]])
    shares = win_share(true, flipped)
    assert shares[:2].tolist() == [0.5, 0.5]
    assert shares[2].isnan()


def test_rank_counts_from_one_and_ties_half() -> None:
    cosines = torch.tensor([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.5, 0.5, 0.1]])
    assert text_rank(cosines, torch.tensor([0, 2, 0])).tolist() == [1.0, 2.0, 1.5]


def test_the_own_text_is_a_hit_up_to_the_stated_place() -> None:
    scores: Any = SimpleNamespace(rank=torch.tensor([1.0, 1.5, 2.0, 5.0, NAN]))  # 1.5: as near as another text
    assert hits(scores, 1)[:4].tolist() == [1, 0, 0, 0]
    assert hits(scores, 5)[:4].tolist() == [1, 1, 1, 1]
    assert hits(scores, 1)[4].isnan()


def test_matched_auroc_by_hand() -> None:
    matched, mismatched = torch.tensor([0.9, 0.2, NAN]), torch.tensor([0.1, 0.5, NAN])
    weights = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 5.0]], dtype=torch.float64)
    # (0.9 > 0.1), (0.9 > 0.5), (0.2 > 0.1), not (0.2 > 0.5); with the second image left out all is right
    assert matched_auroc(matched, mismatched, weights).tolist() == [0.75, 1.0]


def test_a_model_that_sees_and_reads() -> None:
    scores = score_pairs(WordModel(), IMAGES, CASES, other_side)
    assert scores.cosine.tolist() == pytest.approx([1.0] * 6, abs=1e-3)
    assert scores.rank.tolist() == [1.0] * 6  # two cases share a text: it is one candidate, right for both
    assert scores.candidates == 5
    assert scores.wins["side"].nan_to_num(-1).tolist() == [-1, 1, 1, 1, 1, 1]  # "heart" has no side
    assert scores.wins["added"].tolist() == [0.5] * 6  # "x" is a word it does not know: a tie
    assert scores.blind["added"].tolist() == [0.5] * 6
    assert scores.flips == {"side": 5, "added": 6}
    assert (scores.mismatched < 0.9).all()  # never with a text that is its own
    assert scores.truncated == 0


def test_entries_have_value_interval_and_evaluator() -> None:
    entries = image_text_entries(WordModel(), IMAGES, CASES, flipper=other_side, replicates=100)
    assert set(entries) == {
        "alignment/clip_score",
        "alignment/flipped_accuracy",
        "alignment/flipped_accuracy/side",
        "alignment/flipped_accuracy/added",
        "alignment/recall_at_1",
        "alignment/matched_auroc",
    }  # five texts: 5 and 10 nearest say nothing
    side = entries["alignment/flipped_accuracy/side"]
    # of the mean picture one side is brighter, by which two texts of one side and none of the other would win
    assert side == {"value": 1.0, "ci95": [1.0, 1.0], "n": 5, "flips": 5, "blind": 0.6, "evaluator": "words"}
    both = entries["alignment/flipped_accuracy"]
    assert (both["value"], both["n"], both["flips"]) == (0.75, 6, 11)  # the mean of 1 and 0.5, not of 11 triples
    assert entries["alignment/recall_at_1"]["candidates"] == 5
    assert entries["alignment/matched_auroc"]["value"] == 1.0


def test_the_auroc_of_a_finding_compares_images_that_have_it_with_images_that_have_not() -> None:
    def with_or_without(case: Case, random: object) -> list[Flip]:
        if "heart" in case.text:
            rest = case.text.replace("heart", "").strip()
            return [Flip(rest, "removed", "heart")] if rest else []
        return [Flip(f"heart {case.text}", "added", "heart")]

    scores = score_pairs(WordModel(), IMAGES, CASES, with_or_without)
    assert scores.findings == ("heart",)
    assert scores.present[:, 0].tolist() == [False, False, False, True, True, False]
    assert scores.evidence[0, 0].isnan()  # "heart" alone cannot lose its heart
    assert (scores.evidence[3:5, 0] > 0).all()
    assert (scores.evidence[[1, 2, 5], 0] < 0).all()
    weights = torch.ones(1, 6, dtype=torch.float64)
    assert finding_auroc(scores.evidence, scores.present, weights).item() == 1.0
    alike = score_pairs(WordModel(), torch.full((6, 3, 4, 4), 0.5), CASES, with_or_without)
    assert alike.evidence.nan_to_num(0.0).abs().max() < 1e-7  # equal pictures: nothing is seen


def test_a_blind_model_is_at_chance() -> None:
    entries = image_text_entries(WordModel(), torch.full((6, 3, 4, 4), 0.5), CASES, flipper=other_side, replicates=50)
    # it only prefers texts with more words, whatever the picture shows
    assert entries["alignment/flipped_accuracy/side"]["value"] == pytest.approx(0.5)
    assert entries["alignment/recall_at_1"]["value"] < 0.5


def test_an_empty_text_counts_nowhere_and_a_long_one_is_counted() -> None:
    cases = [*CASES[:3], Case("empty", ""), Case("long", "left and much more to say of it")]
    images = torch.cat([IMAGES[:3], IMAGES[:1], picture("left")])
    scores = score_pairs(WordModel(), images, cases, other_side)
    assert scores.cosine.isnan().tolist() == [False, False, False, True, False]
    assert scores.rank.isnan().tolist() == [False, False, False, True, False]
    assert scores.truncated == 1
    entries = pair_entries(scores, "words", replicates=50)
    assert entries["alignment/clip_score"]["n"] == 4
    assert entries["alignment/clip_score"]["truncated"] == 1


def test_one_text_for_all_has_no_mismatch_and_no_flip() -> None:
    cases = [Case(str(number), "heart") for number in range(4)]
    entries = image_text_entries(WordModel(), IMAGES[:4], cases, flipper=lambda case, random: [], replicates=50)
    assert set(entries) == {"alignment/clip_score"}


def test_two_models_are_asked_the_same() -> None:
    class Other(WordModel):
        asked: list[str]

        def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
            self.asked = list(texts)
            return super().embed_texts(texts)

    first, second = Other(), Other()
    score_pairs(first, IMAGES, CASES)
    score_pairs(second, IMAGES.flip(0), CASES)
    assert first.asked == second.asked
