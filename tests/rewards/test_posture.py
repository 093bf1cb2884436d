"""The posture reward, with a network whose answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, Reward
from clinalign.networks.alignment import AlignmentNetwork
from clinalign.rewards import REWARDS, load_reward
from clinalign.rewards.check import examine
from clinalign.rewards.posture import PostureReward, softened


def network(psi: list[float] | None = None, radians: float = 1.0) -> AlignmentNetwork:
    """Answers ``psi`` to an image of 0; each unit of mean brightness adds ``radians`` to theta."""
    torch.manual_seed(0)
    model = AlignmentNetwork(16, "test_byobnet", hidden=8)
    if psi is not None:
        answer, turn = torch.tensor(psi), torch.tensor([0.0, 0.0, 0.0, 0.0, radians])
        model.pose = lambda images: answer + images.mean(dim=(1, 2, 3))[:, None] * turn  # type: ignore[method-assign]
    return model


CASE = Case("1", "")
BLACK = torch.zeros(1, 3, 16, 16)


def test_the_formula_by_hand() -> None:
    psi = [1.2, 0.9, 0.1, -0.3, -0.25]
    result = PostureReward(network(psi))(BLACK, [CASE])
    assert result.values.item() == pytest.approx(-(0.2 + 0.1 + 0.1 + 0.3 + 0.25))
    parts = {name: part.item() for name, part in result.parts.items()}
    assert parts == pytest.approx({"scale": -0.3, "shift": -0.4, "rotation": -0.25, "likeness": 0.0}, abs=1e-6)
    weighted = PostureReward(network(psi), scale_weight=2, shift_weight=0.5, rotation_weight=3)(BLACK, [CASE])
    assert weighted.values.item() == pytest.approx(-(2 * 0.3 + 0.5 * 0.4 + 3 * 0.25))
    assert weighted.valid.tolist() == [True]


def test_within_what_is_usual_the_score_is_quadratic_and_beyond_it_a_line() -> None:
    model = network([1.0, 1.0, 0.0, 0.0, 0.0])
    model.tolerance.copy_(torch.tensor([0.1, 0.1, 0.1, 0.1, 0.2]))

    def score(theta: float, **settings: float) -> float:
        return PostureReward(model, **settings)(BLACK + theta, [CASE]).values.item()  # type: ignore[arg-type]

    assert score(0.1) == pytest.approx(-(0.1**2) / (2 * 0.2))
    assert score(0.5) == pytest.approx(-(0.5 - 0.1))
    assert score(0.1, tolerance=0.5) == pytest.approx(-(0.1 - 0.05))
    assert score(0.1, tolerance=0.0) == pytest.approx(-0.1)
    ladder = [score(theta) for theta in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)]
    assert ladder == sorted(ladder, reverse=True)
    assert len(set(ladder)) == 6  # it falls everywhere, smoothly at the bend:
    away = torch.tensor([[0.2 - 1e-4], [0.2 + 1e-4]], requires_grad=True)
    slopes = torch.autograd.grad(softened(away, torch.tensor([0.2])).sum(), away)[0]
    assert slopes.flatten().tolist() == pytest.approx([1.0, 1.0], abs=1e-3)


def test_what_is_no_chest_film_pays_for_it_whatever_its_pose() -> None:
    model = network([1.0, 1.0, 0.0, 0.0, 0.0], radians=0.0)
    model.canonical.copy_(torch.linspace(0, 1, 32).expand(1, 1, 32, 32))
    model.typical.fill_(0.8)
    like = torch.linspace(0, 1, 16).expand(1, 3, 16, 16)
    reward = PostureReward(model)
    assert reward(like, [CASE]).values.item() == 0.0  # nothing is gained above what is typical
    assert reward(BLACK, [CASE]).values.item() == pytest.approx(-0.8, abs=1e-3)
    assert reward(1 - like, [CASE]).values.item() == pytest.approx(-1.8, abs=0.02)
    off = PostureReward(model, likeness_weight=0.0)
    assert off(BLACK, [CASE]).values.item() == 0.0


def test_the_score_has_gradients_only_where_they_are_asked_for() -> None:
    reward = PostureReward(network([1.1, 1.0, 0.0, 0.0, 0.1]))
    images = BLACK.clone().requires_grad_()
    slope = torch.autograd.grad(reward(images, [CASE]).values.sum(), images)[0]
    # a brighter image is turned further: each pixel adds 1 / (3 * 16 * 16) radian
    torch.testing.assert_close(slope, torch.full_like(images, -1 / 768))
    assert not reward(BLACK, [CASE]).values.requires_grad


def test_identity_tells_settings_and_weights_and_batches_change_nothing() -> None:
    model = network()
    torch.nn.init.normal_(model.head[-1].weight)  # type: ignore[arg-type]
    first, second = PostureReward(model), PostureReward(model, tolerance=0.5, batch_size=2)
    assert isinstance(first, Reward)
    assert first.identity != second.identity
    assert first.model_identity == second.model_identity == model.identity
    images = torch.rand(5, 3, 24, 24)
    same = PostureReward(model, batch_size=2)(images, [CASE] * 5).values
    torch.testing.assert_close(first(images, [CASE] * 5).values, same, rtol=1e-5, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in first.network.parameters())


def test_worse_images_are_in_the_postures_that_they_are_called_by() -> None:
    reward = PostureReward(network([1.0] * 2 + [0.0] * 3))
    side = 81
    centres = (torch.arange(side) + 0.5) / side * 2 - 1
    dots = torch.exp(-((centres[None, :] - 0.4) ** 2 + centres[:, None] ** 2) / 0.005).expand(6, 3, side, side)
    worse = reward.worse_images(dots, np.random.default_rng(0))
    found = {}
    for name, images in worse.items():
        mass = images[:, 0] / images[:, 0].sum(dim=(1, 2), keepdim=True)
        found[name] = torch.stack([(mass.sum(1) * centres).sum(1), (mass.sum(2) * centres).sum(1)], dim=1)
    turned, zoomed, shifted = found["turned"], found["zoomed"], found["shifted"]
    angle = torch.atan2(turned[:, 1], turned[:, 0]).rad2deg()
    assert angle.abs().tolist() == pytest.approx([15.0] * 6, abs=0.5)
    assert {round(value) for value in angle.tolist()} == {-15, 15}
    assert {round(value, 1) for value in (zoomed[:, 0] / 0.4).tolist()} == {0.8, 1.2}  # 1.25 rounded
    moved = (shifted - torch.tensor([0.4, 0.0])).norm(dim=1) / 2
    assert moved.tolist() == pytest.approx([0.15] * 6, abs=0.005)


def films(count: int) -> tuple[torch.Tensor, list[Case]]:
    """A dark disc on a bright ground, with some texture; its place tells the posture."""
    random = torch.Generator().manual_seed(0)
    centres = (torch.arange(16) + 0.5) / 16 * 2 - 1
    disc = torch.sigmoid((0.4 - (centres[:, None] ** 2 + centres[None, :] ** 2)) * 20)
    noise = 0.05 * torch.rand((count, 3, 16, 16), generator=random)
    return 0.8 - 0.6 * disc + noise, [Case(str(i), "", {"effusion": i % 2}) for i in range(count)]


def test_the_check_asks_about_posture_and_not_about_labels() -> None:
    images, cases = films(16)
    model = network()

    def pose(pictures: torch.Tensor) -> torch.Tensor:
        """Centre and extent of what is dark, turned into psi; blind to rotation, for a disc has none."""
        dark = (0.9 - pictures.mean(dim=1)).clamp_min(0.0)
        dark = dark / dark.sum(dim=(1, 2), keepdim=True).clamp_min(1e-6)
        at = (torch.arange(16) + 0.5) / 16 * 2 - 1
        x, y = (dark.sum(1) * at).sum(1), (dark.sum(2) * at).sum(1)
        size = ((dark.sum(1) * (at[None] - x[:, None]) ** 2).sum(1) / usual).sqrt()
        return torch.stack([size, size, x, y, torch.zeros_like(x)], dim=1)

    usual = torch.tensor(1.0)
    usual = pose(images)[:, 0].square().mean()
    model.pose = pose  # type: ignore[method-assign]
    model.canonical.copy_(torch.nn.functional.interpolate(images.mean(dim=(0, 1))[None, None], size=(32, 32)))
    model.typical.fill_(0.8)
    report = examine(PostureReward(model), images, cases)
    assert {"turned", "zoomed", "shifted", "noise", "black"} <= set(report.separation)
    assert "wrong_label" not in report.separation
    assert not report.attributes
    assert report.separation["shifted"] > 0.9
    assert report.separation["noise"] > 0.9
    blind = "it is fooled: turned images score as well as real ones or better"
    assert [reason for reason in report.reasons if blind in reason] == report.reasons


def test_it_is_loaded_by_name_from_a_folder(tmp_path: Path) -> None:
    network().save(tmp_path / "r")
    reward = load_reward("posture", tmp_path / "r", {"rotation_weight": 2.0})
    assert reward(torch.rand(2, 3, 16, 16), [CASE] * 2).values.shape == (2,)
    assert "posture" in REWARDS.names()


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs the folder"):
        load_reward("posture")
    with pytest.raises(UserError, match="no setting 'scale_wait': did you mean 'scale_weight'"):
        load_reward("posture", tmp_path, {"scale_wait": 1})
    with pytest.raises(UserError, match="tolerance of reward 'posture' must be a number of 0 or more, got -1"):
        PostureReward(network(), tolerance=-1)
    with pytest.raises(UserError, match=r"rotation_weight .* got nan"):
        PostureReward(network(), rotation_weight=math.nan)
    with pytest.raises(UserError, match="only weights of 0"):
        PostureReward(network(), 0, 0, 0, 0)
    with pytest.raises(UserError, match=r"batch_size .* 1 or more"):
        PostureReward(network(), batch_size=0)
