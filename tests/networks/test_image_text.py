"""The image-text pair, its loss and its folder."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.data.text_flips import Flip
from clinalign.generation.architecture import fit_tokenizer
from clinalign.networks.contrastive import ContrastiveLoss, flip_score, info_nce, same_facts
from clinalign.networks.image_text import ImageTextPair
from clinalign.networks.network_folder import WEIGHTS_FILE
from clinalign.networks.pair_texts import draw_rates, pair_texts
from clinalign.networks.text_encoder import TextEncoder, tokenize

TEXTS = ["left nodule", "right nodule", "no nodule at all"]


def pair_of(texts: list[str]) -> ImageTextPair:
    torch.manual_seed(0)
    return ImageTextPair(fit_tokenizer(texts), 32, "test_byobnet", width=16, text_width=16, text_layers=1).eval()


@pytest.fixture
def pair() -> ImageTextPair:
    return pair_of(TEXTS)


def test_embeddings_are_unit_vectors_that_no_batch_changes(pair: ImageTextPair) -> None:
    images = torch.rand(5, 3, 24, 24)
    whole, parts = pair.embed_images(images), pair.embed_images(images, batch_size=2)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)  # float32 sums in another order
    texts = pair.embed_texts([*TEXTS, TEXTS[0]])
    torch.testing.assert_close(texts[3], texts[0])
    # the longest text of a batch decides the padding, which must not be read
    torch.testing.assert_close(pair.embed_texts(TEXTS[:1])[0], texts[0], rtol=1e-5, atol=1e-6)
    assert pair.embed_texts([]).shape == (0, 16)


def test_gradients_reach_the_images_only_when_asked(pair: ImageTextPair) -> None:
    images = torch.rand(2, 3, 32, 32)
    assert not pair.embed_images(images).requires_grad
    images.requires_grad_()
    pair.embed_images(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_the_image_encoder_knows_left_from_right(pair: ImageTextPair) -> None:
    assert pair.image_encoder.cells == 1  # 32 px through a stride of 32: one cell, nothing to keep
    tower = ImageTextPair(fit_tokenizer(TEXTS), 64, "test_byobnet").image_encoder
    assert tower.cells == 2
    features = torch.zeros(1, 256, 2, 2)
    features[..., 0] = 1.0
    grid, mirrored = (F.adaptive_avg_pool2d(tower.reduce(x), 2).flatten(1) for x in (features, features.flip(-1)))
    assert not torch.allclose(grid, mirrored)


def test_a_vision_transformer_goes_without_a_grid() -> None:
    model = ImageTextPair(fit_tokenizer(TEXTS), 32, "test_vit")
    assert model.image_encoder.cells == 0
    assert model.encode_images(torch.rand(2, 3, 32, 32)).shape == (2, 64)


def test_long_texts_are_told(pair: ImageTextPair) -> None:
    assert pair.truncates(["left nodule", "left nodule " * 40]) == (False, True)


def test_it_is_saved_with_its_tokenizer(pair: ImageTextPair, tmp_path: Path) -> None:
    pair.card = {"split": "train"}
    pair.save(tmp_path / "pair")
    loaded = ImageTextPair.load(tmp_path / "pair")
    assert loaded.identity == pair.identity
    assert loaded.card["split"] == "train"
    torch.testing.assert_close(loaded.embed_texts(TEXTS), pair.embed_texts(TEXTS))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded.embed_images(images), pair.embed_images(images))


def test_a_damaged_folder_is_one_clear_line(pair: ImageTextPair, tmp_path: Path) -> None:
    folder = tmp_path / "pair"
    pair.save(folder)
    file = folder / "tokenizer" / "tokenizer.json"
    good = file.read_text()
    file.write_text(good.replace('"nodule</w>"', '"nodul</w>"'))
    with pytest.raises(UserError, match=r"tokenizer in .*pair"):
        ImageTextPair.load(folder)
    file.write_text("{")
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        ImageTextPair.load(folder)
    file.write_text(good)
    ImageTextPair.load(folder)
    card = folder / "card.json"
    told = card.read_text()
    card.write_text(told.replace('"text_layers"', '"text_layer"'))
    with pytest.raises(UserError, match="cannot read the image-text pair"):
        ImageTextPair.load(folder)
    card.write_text(told)
    (folder / WEIGHTS_FILE).rename(folder / "model.pt")
    with pytest.raises(UserError, match="is a pickle"):
        ImageTextPair.load(folder)


def test_a_text_encoder_that_cannot_be_built() -> None:
    with pytest.raises(UserError, match="multiple of 16"):
        TextEncoder(10, 8, 20, 1, 0.0, 0)
    with pytest.raises(UserError, match="text_layers of 1 or more"):
        TextEncoder(10, 8, 32, 0, 0.0, 0)


def test_the_loss_by_hand() -> None:
    images, texts = F.normalize(torch.randn(2, 4), dim=1), F.normalize(torch.randn(3, 4), dim=1)
    own, nothing = torch.tensor([0, 1]), torch.zeros(2, 3).bool()
    logits = 5.0 * images @ texts.T
    by_image = -(logits[0, 0] - logits[0].logsumexp(0) + logits[1, 1] - logits[1].logsumexp(0)) / 2
    by_text = -(logits[0, 0] - logits[:, 0].logsumexp(0) + logits[1, 1] - logits[:, 1].logsumexp(0)) / 2
    loss = info_nce(images, texts, own, nothing, torch.tensor(5.0))
    torch.testing.assert_close(loss, (by_image + by_text) / 2)


def test_pairs_with_the_same_text_are_not_negatives() -> None:
    images = F.normalize(torch.randn(2, 4), dim=1)
    text = F.normalize(torch.randn(1, 4), dim=1)
    # one text, true of both images: nothing is wrong, so there is nothing to lose
    loss = info_nce(images, text, torch.tensor([0, 0]), torch.zeros(2, 1).bool(), torch.tensor(5.0))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    two = F.normalize(torch.randn(2, 4), dim=1)
    also = torch.ones(2, 2).bool()  # two texts that say the same
    assert info_nce(images, two, torch.tensor([0, 1]), also, torch.tensor(5.0)).item() == pytest.approx(0.0, abs=1e-6)


def test_same_facts_need_something_known() -> None:
    facts = torch.tensor([[1, 0], [1, 0], [1, -1], [-1, -1], [-1, -1]])
    alike = same_facts(facts)
    assert alike[0].tolist() == [True, True, False, False, False]
    assert not alike[3].any()


CASES = [
    Case("a", "left nodule", {"nodule": 1}),
    Case("b", "right nodule", {"nodule": 1}),
    Case("c", "no nodule at all", {"nodule": 0}),
]


def other_side(case: Case, random: object) -> list[Flip]:
    """Swap the side, where there is one."""
    swap = {"left": "right", "right": "left"}
    words = [swap.get(word, word) for word in case.text.split()]
    return [Flip(" ".join(words), "side")] if " ".join(words) != case.text else []


def test_texts_are_numbered_once() -> None:
    pairs = pair_texts(CASES, ["nodule", "mass"], other_side)
    assert pairs.texts == TEXTS
    assert pairs.own.tolist() == [0, 1, 2]
    assert pairs.flips.tolist() == [[1], [0], [-1]]
    assert pairs.kinds == [["side"], ["side"], []]
    assert pairs.facts.tolist() == [[1, -1], [1, -1], [0, -1]]


def test_additions_are_drawn_as_often_as_removals() -> None:
    cases = [Case(str(number), "x", {"rare": int(number < 2), "common": 1, "unknown": None}) for number in range(10)]
    rates = draw_rates(cases)
    assert rates == {"rare": pytest.approx(2.5 / 8.5), "common": 1.0}

    def add(case: Case, random: object) -> list[Flip]:
        return [Flip("x rare", "added", "rare"), Flip("y", "side")]

    pairs = pair_texts(cases, ["rare"], add)
    assert pairs.rates[0].tolist() == pytest.approx([2.5 / 8.5, 1.0])
    loss = ContrastiveLoss(pair_of(["x rare", "y"]), pairs, 4, "text", torch.Generator().manual_seed(0))
    drawn = torch.cat([loss._draw(torch.arange(10)) for _ in range(200)])
    assert (drawn == 2).sum() == 2000  # the other side, always
    assert (drawn == 1).sum().item() / 2000 == pytest.approx(2.5 / 8.5, abs=0.05)  # five standard errors


def test_flips_are_in_the_denominator(pair: ImageTextPair) -> None:
    pairs = pair_texts(CASES, ["nodule"], other_side)
    images = F.normalize(torch.randn(1, 16), dim=1)
    labels, known = torch.tensor([[0.0]]), torch.ones(1, 1).bool()
    alone, against = (
        ContrastiveLoss(pair, pairs, flips, "text", torch.Generator())(images, labels, known).item() for flips in (0, 1)
    )
    assert alone == pytest.approx(0.0, abs=1e-6)  # one image, one text
    true, wrong = (pair.scale * images @ pair.embed_texts(TEXTS[:2]).T)[0]
    assert against == pytest.approx(-torch.log_softmax(torch.stack([true, wrong]), 0)[0].item() / 2, rel=1e-4)


def test_same_attributes_take_texts_out_of_the_denominator_but_not_flips(pair: ImageTextPair) -> None:
    images = F.normalize(torch.randn(2, 16), dim=1)
    labels, known = torch.tensor([[0.0], [1.0]]), torch.ones(2, 1).bool()

    def loss(flipper: object) -> float:
        pairs = pair_texts(CASES, ["nodule"], flipper)  # type: ignore[arg-type]
        return ContrastiveLoss(pair, pairs, 0, "attributes", torch.Generator())(images, labels, known).item()

    assert loss(lambda case, random: []) == pytest.approx(0.0, abs=1e-6)
    assert loss(other_side) > 1e-3  # "right nodule" has the same attributes, and yet it is the flip of "left nodule"


def test_the_validation_score_is_the_share_of_flips_that_lose(pair: ImageTextPair) -> None:
    pairs = pair_texts(CASES, ["nodule"], other_side)
    texts = pair.embed_texts(TEXTS)
    labels, known = torch.arange(3.0)[:, None], torch.ones(3, 1).bool()
    assert flip_score(pair, pairs)(texts, labels, known) == 1.0  # images that lie on their texts
    assert flip_score(pair, pairs)(texts[[1, 1, 1]], labels, known) == 0.5
    without = pair_texts(CASES, ["nodule"], lambda case, random: [])
    assert flip_score(pair, without)(texts, labels, known) == 1.0
    alone = pair_texts(CASES[:1], ["nodule"], lambda case, random: [])
    assert math.isnan(flip_score(pair, alone)(texts[:1], labels[:1], known[:1]))


def test_padding_is_not_read(pair: ImageTextPair) -> None:
    ids, mask = tokenize(pair.tokenizer, TEXTS)
    other = torch.where(mask, ids, 5)
    torch.testing.assert_close(pair.encode_tokens(ids, mask), pair.encode_tokens(other, mask))
