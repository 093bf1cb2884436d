"""The segmenter, and the arithmetic that reads places off its maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.data.places import Place, place_of_mask
from clinalign.networks.augment import augment_with_masks
from clinalign.networks.losses import mask_loss
from clinalign.networks.network_folder import CARD_FILE
from clinalign.networks.place_rules import PlaceRules, Sighting, best_border, fit_rules
from clinalign.networks.region_places import lung_frame, score_clauses, soft_place
from clinalign.networks.segmenter import Segmenter

TINY = "test_byobnet"
CHEST = ("lung_left", "lung_right", "effusion")
RULES = PlaceRules(chest=True, size_borders={"effusion": (0.1, 0.3)}, floors={"effusion": 0.01}, lung_area=0.4)


def make(seed: int = 0, size: int = 32) -> Segmenter:
    torch.manual_seed(seed)
    return Segmenter(["lesion", "hair"], size, TINY).eval()


def chest(*boxes: tuple[int, int, int, int], lungs: bool = True, shift: int = 0) -> torch.Tensor:
    """Maps of a 40-pixel film: lungs in columns 4-16 and 24-36, rows 5-35, and a finding in ``boxes``."""
    maps = torch.zeros(1, 3, 40, 40)
    if lungs:
        maps[0, 1, 5:35, 4 + shift : 16 + shift] = 1.0  # the patient's right is on the picture's left
        maps[0, 0, 5:35, 24 + shift : 36 + shift] = 1.0
    for top, bottom, left, right in boxes:
        maps[0, 2, top:bottom, left:right] = 1.0
    return maps


def scores(maps: torch.Tensor, *places: Place, hard: bool = False) -> list[float]:
    return score_clauses(maps, CHEST, RULES, [places], hard).scores.tolist()


def test_images_of_any_size_give_one_map_a_region() -> None:
    model = make()
    for side in (16, 32, 50):
        assert model(torch.rand(2, 3, side, side)).shape == (2, 2, 32, 32)
    maps = model.maps(torch.rand(3, 3, 32, 32), batch_size=2)
    assert maps.shape == (3, 2, 32, 32)
    assert 0.0 <= maps.min() <= maps.max() <= 1.0
    assert model.maps(torch.rand(0, 3, 32, 32)).shape == (0, 2, 32, 32)


def test_gradients_reach_the_images_and_only_when_asked_for() -> None:
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    make().maps(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not make().maps(images.detach()).requires_grad


def test_maps_do_not_depend_on_the_batch_size() -> None:
    model, images = make(), torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(model.maps(images), model.maps(images, 2), rtol=1e-5, atol=1e-6)  # order of adding up


def test_saved_and_loaded_it_is_the_same_with_its_rules(tmp_path: Path) -> None:
    model, images = make(), torch.rand(2, 3, 32, 32)
    plain = model.identity
    model.rules = PlaceRules(True, (0.3, 0.6), {"hair": 0.4}, {"hair": (0.1, 0.2)}, {"lesion": 0.02}, 0.02, 0.25)
    assert model.identity != plain  # other borders give other scores
    model.save(tmp_path / "s")
    again = Segmenter.load(tmp_path / "s")
    assert torch.equal(again(images), model(images))
    assert (again.rules, again.identity, again.regions) == (model.rules, model.identity, ("lesion", "hair"))
    assert not again.training


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one region"):
        Segmenter([], 32, TINY)
    with pytest.raises(UserError, match="unknown backbone 'resnet1': did you mean 'resnet"):
        Segmenter(["lesion"], 32, "resnet1")
    with pytest.raises(UserError, match="cannot give feature maps of 33 px images"):
        Segmenter(["lesion"], 33, TINY)
    with pytest.raises(UserError, match=r"float of shape \(N, 3, H, W\)"):
        make()(torch.zeros(1, 1, 8, 8))
    make().save(tmp_path / "s")
    card = json.loads((tmp_path / "s" / CARD_FILE).read_text())
    del card["rules"]["floors"]
    (tmp_path / "s" / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(UserError, match="cannot read the segmenter"):
        Segmenter.load(tmp_path / "s")


def test_the_loss_is_least_for_the_true_masks_and_blind_to_unknown_ones() -> None:
    masks = (torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    known = torch.tensor([[True, True]] * 3 + [[True, False]])
    right = (masks * 2 - 1) * 20
    assert mask_loss(right, masks, known) < 1e-3
    assert mask_loss(-right, masks, known) > 2
    other = right.clone()
    other[3, 1] *= -1  # wrong, but nobody knows
    assert mask_loss(other, masks, known) == mask_loss(right, masks, known)
    assert mask_loss(right, masks, torch.zeros(4, 2, dtype=torch.bool)) == 0


def test_masks_move_with_their_images() -> None:
    masks = torch.zeros(16, 1, 32, 32)
    masks[:, :, 3:12, 5:20] = 1
    images = masks.expand(16, 3, 32, 32).clone()
    for recipe in ("dermoscopy", "chest x-ray"):
        changed, moved = augment_with_masks(images, masks.bool(), recipe, torch.Generator().manual_seed(0))
        assert not torch.equal(moved, masks)
        # a contrast of at least .85 and noise of at most .03 leave the bright part the moved mask
        assert (((changed.mean(1, keepdim=True) > 0.5) == (moved > 0.5)).float().mean()) > 0.98
    same, kept = augment_with_masks(images, masks.bool(), "none", torch.Generator())
    assert torch.equal(same, images)
    assert torch.equal(kept, masks)


def test_sides_are_the_patients() -> None:
    on_the_pictures_right = chest((25, 33, 26, 34))
    assert scores(on_the_pictures_right, Place("effusion", "left")) == [1.0]
    assert scores(on_the_pictures_right, Place("effusion", "right")) == [0.0]
    assert scores(on_the_pictures_right, Place("effusion", "bilateral")) == [0.0]
    both = chest((25, 33, 26, 34), (25, 33, 6, 14))
    assert scores(both, Place("effusion", "left")) == [pytest.approx(0.5)]
    assert scores(both, Place("effusion", "bilateral")) == [1.0]


def test_places_are_read_in_the_lungs_and_without_them_in_the_picture() -> None:
    # lungs 4 columns to the left: the finding right of the picture's middle line lies left of theirs
    beside = chest((2, 12, 17, 19), shift=-4)
    assert scores(beside, Place("effusion", "left")) == [1.0]
    assert scores(chest((2, 12, 17, 19)), Place("effusion", "left")) == [0.0]
    assert scores(chest((2, 12, 17, 19), lungs=False), Place("effusion", "right", "upper")) == [1.0, 1.0]
    # the frame of lungs from row 5 to row 35, in fractions of 40 pixels
    frame = lung_frame(chest(), CHEST, RULES)
    assert (frame.top.item(), frame.height.item()) == (pytest.approx(5 / 40, abs=0.01), pytest.approx(0.75, abs=0.01))
    assert frame.midline.item() == pytest.approx(0.5)


def test_zones_share_the_mass() -> None:
    assert scores(chest((6, 14, 6, 14)), Place("effusion", None, "upper")) == [1.0]
    straddling = chest((10, 20, 6, 14))  # half of it above row 15, a third of the way down
    assert scores(straddling, Place("effusion", None, "upper")) == [pytest.approx(0.5)]
    assert scores(straddling, Place("effusion", None, "lower")) == [0.0]


def test_sizes_follow_the_borders_and_unknown_borders_are_not_scored() -> None:
    small, moderate, large = chest((30, 33, 6, 14)), chest((20, 35, 5, 15)), chest((6, 34, 4, 16))
    for maps, size in ((small, "small"), (moderate, "moderate"), (large, "large")):
        assert scores(maps, Place("effusion", size=size))[0] > 0.7
        assert scores(maps, Place("effusion", size=size), hard=True) == [1.0]
        others = [other for other in ("small", "moderate", "large") if other != size]
        assert all(scores(maps, Place("effusion", size=other), hard=True) == [0.0] for other in others)
    bare = PlaceRules(chest=True)
    assert len(score_clauses(small, CHEST, bare, [[Place("effusion", size="small")]]).scores) == 0


def test_a_missing_finding_fulfils_nothing() -> None:
    everything = Place("effusion", "left", "lower", "small")
    assert scores(chest(), everything) == [0.0, 0.0, 0.0]
    assert scores(chest(), everything, hard=True) == [0.0, 0.0, 0.0]
    faint = chest((25, 33, 26, 34))
    faint[0, 2] *= 0.1  # 0.4 % of the picture, where 1 % is the floor
    assert scores(faint, Place("effusion", "left")) == [pytest.approx(0.4, abs=0.01)]


def test_clauses_come_in_the_order_of_the_pictures() -> None:
    maps = torch.cat([chest((6, 12, 6, 14)), chest(), chest((6, 12, 26, 34))])
    places = [[Place("effusion", "right", "upper")], [], [Place("effusion", "left"), Place("nodule", "left")]]
    clauses = score_clauses(maps, CHEST, RULES, places)
    assert clauses.rows.tolist() == [0, 0, 2]
    assert clauses.kinds == ["side", "zone", "side"]
    assert clauses.regions == ["effusion"] * 3  # nobody looks for nodules
    assert clauses.scores.tolist() == [1.0, 1.0, 1.0]


def test_the_score_moves_the_finding_and_not_the_lungs() -> None:
    maps = (0.8 * chest((20, 30, 14, 26)) + 0.01).requires_grad_()
    score_clauses(maps, CHEST, RULES, [[Place("effusion", "left")]]).scores.sum().backward()
    assert maps.grad is not None
    assert maps.grad[0, 2, 25, 30] > 0 > maps.grad[0, 2, 25, 10]
    assert maps.grad[0, :2].abs().sum() == 0


@pytest.mark.parametrize("corner", [(0, 0), (0, 22), (22, 0), (11, 11), (22, 11)])
def test_a_lesion_is_read_as_its_mask_says(corner: tuple[int, int]) -> None:
    maps = torch.zeros(1, 1, 40, 40)
    maps[0, 0, corner[0] : corner[0] + 18, corner[1] : corner[1] + 18] = 1.0
    truth = place_of_mask(maps[0, 0].numpy() > 0)
    assert truth is not None
    assert score_clauses(maps, ["lesion"], PlaceRules(), [[truth]], hard=True).scores.tolist() == [1.0, 1.0, 1.0]
    soft = soft_place(maps, ["lesion"], "lesion", PlaceRules())
    for kind in ("side", "zone", "size"):
        torch.testing.assert_close(soft.scores[kind].sum(1), torch.ones(1))  # the values share the certainty


def test_the_best_border_lies_in_the_middle_of_the_gap() -> None:
    assert best_border(np.array([1.0, 2.0]), np.array([4.0, 5.0])) == 3.0
    assert 2.0 < best_border(np.array([1.0, 2.0, 9.0]), np.array([3.0, 4.0, 5.0])) < 3.0  # one mistake is allowed


def test_rules_are_learnt_where_there_is_enough_to_learn_from() -> None:
    random = np.random.default_rng(0)
    sightings = [
        Sighting("effusion", 0.02, 0.9 * left, 0.2 + 0.3 * number, 0.1 + 0.2 * number + random.uniform(0, 0.1),
                 ("right", "left")[left], ("upper", "middle", "lower")[number], ("small", "moderate", "large")[number])
        for left in (0, 1) for number in (0, 1, 2) for _ in range(10)
    ]  # fmt: skip
    rules = fit_rules(sightings, chest=True, lung_area=0.3)
    low, high = rules.size_borders["effusion"]
    assert 0.2 <= low <= 0.3 < 0.4 <= high <= 0.5
    assert rules.zone_borders == (pytest.approx(0.35), pytest.approx(0.65))
    assert rules.side_borders["effusion"] == pytest.approx(0.45)
    assert rules.floors["effusion"] == pytest.approx(0.01)
    few = fit_rules(sightings[:4], chest=True, lung_area=0.3)
    assert (few.size_borders, few.side_borders, few.zone_borders) == ({}, {}, (1 / 3, 2 / 3))
    assert fit_rules(sightings, chest=False, lung_area=0.3).size_borders == {}  # fixed for skin
