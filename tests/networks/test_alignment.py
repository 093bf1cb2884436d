"""The alignment network: what it promises before and after training, and its messages."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.networks.affine import identity, matrix, warp
from clinalign.networks.alignment import LIMITS, AlignmentNetwork, correlation
from clinalign.networks.backbones import Backbone
from clinalign.networks.network_folder import CARD_FILE
from clinalign.networks.warps import Warps, in_pose, random_views

TINY = "test_byobnet"


def make(seed: int = 0, stirred: bool = True) -> AlignmentNetwork:
    """An untrained network; ``stirred``, its last layer is not zero, so that its answers depend on the image."""
    torch.manual_seed(seed)
    model = AlignmentNetwork(16, TINY, hidden=8)
    if stirred:
        torch.nn.init.normal_(model.head[-1].weight, std=0.3)  # type: ignore[arg-type]
    return model.eval()


def film(count: int = 1, side: int = 64) -> torch.Tensor:
    """Two dark lungs on a bright body, the left one smaller: no turn or mirror image looks the same."""
    centres = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = centres[:, None], centres[None, :]
    picture = torch.full((side, side), 0.8)
    for at, width, height in ((-0.35, 0.25, 0.6), (0.35, 0.2, 0.45)):
        picture = picture - 0.6 * torch.sigmoid((1 - ((x - at) / width) ** 2 - (y / height) ** 2) * 6)
    return picture.expand(count, 3, side, side).clone()


def test_untrained_it_answers_identity_at_any_size() -> None:
    model = make(stirred=False)
    for side in (16, 24, 64):
        assert torch.equal(model.pose(torch.rand(2, 3, side, side)), identity(2))


def test_answers_stay_within_the_limits() -> None:
    model = make()
    with torch.no_grad():
        model.head[-1].bias.fill_(50.0)  # type: ignore[union-attr]
    psi = model(torch.rand(1, 3, 16, 16))[0]
    assert psi.tolist() == pytest.approx([math.e, math.e, *LIMITS[2:]], rel=1e-3)


def test_gradients_reach_the_images_and_agree_with_finite_differences() -> None:
    model = make()
    model.canonical.copy_(torch.rand(1, 1, 32, 32))
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    for value in (lambda x: model.pose(x)[0, 4], lambda x: model.likeness(x, model.pose(x))[0]):
        slope = torch.autograd.grad(value(images), images)[0]
        step = 0.01 * slope / slope.norm()
        with torch.no_grad():
            found = (value(images + step) - value(images - step)) / 2
        assert slope.norm() > 1e-3
        # float32, and kinks of ReLU and of bilinear sampling: a few per cent
        assert found.item() == pytest.approx((slope * step).sum().item(), rel=0.05)


def test_align_undoes_a_known_pose() -> None:
    pose = torch.tensor([[1.1, 0.9, 0.1, -0.15, 0.2]])
    upright = film()
    aligned = make().align(in_pose(upright, pose), pose)
    middle = (..., slice(16, 48), slice(16, 48))  # away from what was beyond the edge
    assert (aligned - upright)[middle].abs().max() < 0.05
    assert (in_pose(upright, pose) - upright)[middle].abs().max() > 0.3


def test_likeness_is_for_aligned_films_and_not_for_noise_or_exposure() -> None:
    model, pose = make(), torch.tensor([[1.1, 0.9, 0.1, -0.15, 0.3]])
    model.canonical.copy_(torch.nn.functional.avg_pool2d(film()[:, :1], 2))
    moved = in_pose(film(), pose)
    assert model.likeness(moved, pose).item() > 0.95
    assert model.likeness(0.2 + 0.4 * moved, pose).item() > 0.95
    assert model.likeness(moved, identity(1)).item() < 0.8
    assert abs(model.likeness(torch.rand(1, 3, 64, 64), identity(1)).item()) < 0.2
    assert model.likeness(torch.full((1, 3, 64, 64), 0.5), identity(1)).item() == pytest.approx(0.0, abs=1e-3)
    assert model.likeness(1 - moved, pose).item() < -0.95


def test_correlation_is_pearsons() -> None:
    first, second = torch.rand(2, 1, 5, 5), torch.rand(2, 1, 5, 5)
    wanted = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item() for a, b in zip(first, second)]
    assert correlation(first, second).tolist() == pytest.approx(wanted, abs=1e-4)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model, images = make(), torch.rand(3, 3, 32, 32)
    model.tolerance.fill_(0.1)
    model.save(tmp_path / "a")
    again = AlignmentNetwork.load(tmp_path / "a")
    assert torch.equal(again(images), model(images))
    assert again.identity == model.identity
    assert torch.equal(again.tolerance, model.tolerance)
    assert not again.training
    model.tolerance[3] += 1e-3  # the calibration is part of what is hashed
    assert again.identity != model.identity


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"square images, got \(16, 20\)"):
        make().pose(torch.zeros(1, 3, 16, 20))
    with pytest.raises(UserError, match=r"float of shape \(N, 3, H, W\)"):
        make().pose(torch.zeros(1, 1, 16, 16))
    with pytest.raises(UserError, match="keeps no map of 4 x 4 places at 32 px: look at larger images"):
        AlignmentNetwork(32, "test_vit2")
    with pytest.raises(UserError, match=r"no network in .*train reward posture"):
        AlignmentNetwork.load(tmp_path / "none")
    make().save(tmp_path / "a")
    card = json.loads((tmp_path / "a" / CARD_FILE).read_text())
    (tmp_path / "a" / CARD_FILE).write_text(json.dumps({"kind": "posture", "image_size": 16}))
    with pytest.raises(UserError, match="cannot read the alignment network"):
        AlignmentNetwork.load(tmp_path / "a")
    (tmp_path / "a" / CARD_FILE).write_text(json.dumps({**card, "kind": "attributes"}))
    with pytest.raises(UserError, match="of kind 'attributes', and 'posture' is needed"):
        AlignmentNetwork.load(tmp_path / "a")


def test_a_backbone_without_feature_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Backbone(torch.nn.Flatten(), 3 * 16 * 16)
    monkeypatch.setattr("clinalign.networks.alignment.create_backbone", lambda *_: plain)
    with pytest.raises(UserError, match="backbone 'flat' gives no feature maps: take another, such as test_resnet"):
        AlignmentNetwork(16, "flat")


def test_random_poses_fill_their_ranges_and_no_more() -> None:
    warps = Warps(rotation=20, zoom=1.25, stretch=1.1, shift=0.1)
    psi = warps.draw(4000, torch.Generator().manual_seed(0))
    size = psi[:, :2].prod(dim=1).sqrt()
    stretch = psi[:, 0] / psi[:, 1]
    for values, low, high in (
        (psi[:, 4].rad2deg(), -20, 20),
        (size, 0.8, 1.25),
        (stretch, 1 / 1.1, 1.1),
        (psi[:, 2], -0.2, 0.2),
        (psi[:, 3], -0.2, 0.2),
    ):
        spread = high - low
        assert low - 1e-5 <= values.min() < low + 0.01 * spread
        assert high - 0.01 * spread < values.max() <= high + 1e-5


def test_the_label_of_a_view_brings_it_back_to_the_canonical_picture() -> None:
    # the film itself is turned by 0.1: its pose is not the identity
    own = matrix(torch.tensor([[1.0, 1.0, 0.05, 0.0, 0.1]])).expand(8, 3, 3)
    canonical, films = film(8), in_pose(film(8), torch.tensor([[1.0, 1.0, 0.05, 0.0, 0.1]]).expand(8, 5))
    views, maps = random_views(films, own, Warps(shift=0.1), torch.Generator().manual_seed(1))
    assert views.min() >= 0
    assert views.max() <= 1
    aligned, known = (picture[:, :1, 16:48, 16:48] for picture in (warp(views, maps), canonical))
    assert correlation(aligned, known).min() > 0.9  # brightness, contrast and noise have changed
    unaligned = correlation(views[:, :1, 16:48, 16:48], known)
    assert unaligned.max() < 0.9


@pytest.mark.parametrize(("setting", "value"), [("rotation", 90), ("zoom", 0.5), ("shift", "far"), ("stretch", True)])
def test_ranges_that_make_no_sense_are_refused(setting: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{setting} of the warps must be a number from"):
        Warps(**{setting: value})  # type: ignore[arg-type]
