"""Affine maps against closed forms, and which way they turn on a drawn picture."""

from __future__ import annotations

import math

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.networks.affine import compose, identity, invert, matrix, nearest_psi, warp

ANY = torch.tensor([[1.2, 0.8, 0.1, -0.3, 0.4], [0.7, 0.9, 0.0, 0.2, -2.5], [1.0, 1.0, 0.5, 0.0, 3.0]]).double()


def random_psi(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit = 2.0 * torch.rand((count, 5), generator=generator, dtype=torch.float64) - 1.0
    return identity(count, unit) + unit * torch.tensor([0.6, 0.6, 1.0, 1.0, 3.1])


def dot(x: float, y: float, side: int = 81) -> torch.Tensor:
    """A soft white dot at ``(x, y)`` of the plane [-1, 1]^2, y down."""
    centres = (torch.arange(side) + 0.5) / side * 2 - 1
    return torch.exp(-((centres[None, :] - x) ** 2 + (centres[:, None] - y) ** 2) / 0.005)[None, None]


def where(image: torch.Tensor) -> tuple[float, float]:
    """Centre of mass in the same coordinates."""
    side = image.shape[-1]
    centres = (torch.arange(side) + 0.5) / side * 2 - 1
    mass = image[0, 0] / image[0, 0].sum()
    return float((mass.sum(0) * centres).sum()), float((mass.sum(1) * centres).sum())


def test_the_matrix_is_the_papers() -> None:
    s_x, s_y, t_x, t_y, theta = 1.2, 0.8, 0.1, -0.3, 0.4
    wanted = [
        [s_x * math.cos(theta), -s_y * math.sin(theta), t_x],
        [s_x * math.sin(theta), s_y * math.cos(theta), t_y],
        [0.0, 0.0, 1.0],
    ]
    torch.testing.assert_close(matrix(ANY[:1])[0], torch.tensor(wanted).double())
    assert torch.equal(matrix(identity(1))[0], torch.eye(3))


def test_the_inverse_undoes() -> None:
    maps = matrix(random_psi(50))
    eye = torch.eye(3).double().expand(50, 3, 3)
    torch.testing.assert_close(compose(maps, invert(maps)), eye)
    torch.testing.assert_close(compose(invert(maps), maps), eye)
    torch.testing.assert_close(invert(maps), torch.linalg.inv(maps))  # a second implementation


def test_psi_is_recovered_from_its_matrix_at_any_angle() -> None:
    psi = torch.cat([ANY, random_psi(200)])
    torch.testing.assert_close(nearest_psi(matrix(psi)), psi)


def test_similarities_compose_by_hand() -> None:
    # equal scales: they multiply, the angles add, and the second shift is scaled and turned by the first map
    first, second = torch.tensor([[2.0, 2.0, 0.1, 0.2, 0.3]]), torch.tensor([[0.5, 0.5, 0.4, 0.0, 0.2]])
    shift = (0.1 + 2 * 0.4 * math.cos(0.3), 0.2 + 2 * 0.4 * math.sin(0.3))
    found = nearest_psi(compose(matrix(first), matrix(second)))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, *shift, 0.5]]))


def test_the_nearest_psi_of_a_sheared_map_is_nearest() -> None:
    maps = compose(matrix(random_psi(20, 1)), matrix(random_psi(20, 2)))

    def distance(psi: torch.Tensor) -> torch.Tensor:
        return (matrix(psi) - maps).square().sum(dim=(1, 2))

    best = nearest_psi(maps)
    assert distance(best).max() > 0.01  # there is a shear that no psi has
    for number in range(5):
        for step in (-1e-3, 1e-3):
            moved = best.clone()
            moved[:, number] += step
            assert (distance(moved) > distance(best)).all()
    for theta in torch.linspace(-3, 3, 61):  # and no other angle does better, with the best scales for it
        cos, sin = theta.cos(), theta.sin()
        s_x = maps[:, 0, 0] * cos + maps[:, 1, 0] * sin
        s_y = maps[:, 1, 1] * cos - maps[:, 0, 1] * sin
        other = torch.stack([s_x, s_y, best[:, 2], best[:, 3], theta.double().expand(20)], dim=1)
        assert (distance(other) >= distance(best) - 1e-12).all()


def test_a_warp_moves_a_dot_to_where_the_inverse_says() -> None:
    psi = torch.tensor([[1.2, 0.9, 0.15, -0.1, 0.5]])
    to = (invert(matrix(psi))[0] @ torch.tensor([0.4, 0.2, 1.0]))[:2].tolist()
    assert where(warp(dot(0.4, 0.2), matrix(psi))) == pytest.approx(to, abs=0.005)  # a fifth of a pixel


@pytest.mark.parametrize(
    ("psi", "x", "y"),
    [
        ((1.0, 1.0, 0.2, 0.0, 0.0), 0.5 - 0.2, 0.0),  # reads further right: the content moves left
        ((1.0, 1.0, 0.0, 0.2, 0.0), 0.5, -0.2),  # and up
        ((2.0, 1.0, 0.0, 0.0, 0.0), 0.25, 0.0),  # reads twice as far out: the content shrinks
        ((1.0, 1.0, 0.0, 0.0, math.pi / 6), 0.5 * math.cos(math.pi / 6), -0.25),  # the content turns back, up at right
    ],
)
def test_directions(psi: tuple[float, ...], x: float, y: float) -> None:
    assert where(warp(dot(0.5, 0.0), matrix(torch.tensor([psi])))) == pytest.approx((x, y), abs=0.005)


def test_a_pose_with_positive_theta_is_a_picture_turned_clockwise() -> None:
    # theta = 90 degrees: what the upright picture has at the right, this one has at the bottom
    pose = torch.tensor([[1.0, 1.0, 0.0, 0.0, math.pi / 2]])
    film = dot(0.0, 0.5)
    assert where(warp(film, matrix(pose))) == pytest.approx((0.5, 0.0), abs=0.005)
    assert where(warp(dot(0.5, 0.0), invert(matrix(pose)))) == pytest.approx((0.0, 0.5), abs=0.005)


def test_two_warps_are_the_composed_warp() -> None:
    first, second = matrix(ANY[:1].float()), matrix(torch.tensor([[0.9, 1.1, -0.1, 0.1, -0.2]]))
    image = dot(0.1, -0.2)
    twice, once = warp(warp(image, first), second), warp(image, compose(first, second))
    assert (twice - once).abs().max() < 0.1  # interpolated twice against once
    assert where(twice) == pytest.approx(where(once), abs=0.005)


def test_the_identity_changes_no_pixel_and_the_border_repeats() -> None:
    image = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(warp(image, matrix(identity(2))), image, rtol=1e-5, atol=1e-5)
    far = warp(image, matrix(torch.tensor([[1.0, 1.0, 2.0, 0.0, 0.0]]).expand(2, 5)))  # a whole width further right
    torch.testing.assert_close(far, image[..., -1:].expand(2, 3, 9, 9))
    assert warp(image, matrix(torch.tensor([[1.0, 1.0, 4.0, 0.0, 0.0]]).expand(2, 5)), "zeros").abs().max() == 0


def test_gradients_agree_with_finite_differences() -> None:
    psi = ANY[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: nearest_psi(compose(matrix(p), invert(matrix(p.flip(0))))), psi)
    image = dot(0.1, 0.0, 9).double()
    small = torch.tensor([[1.01, 0.97, 0.013, 0.021, 0.03]]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: warp(image, matrix(p)), small, atol=1e-4)


def test_only_square_pictures_are_turned() -> None:
    with pytest.raises(UserError, match=r"only square images can be turned, got \(8, 9\)"):
        warp(torch.zeros(1, 3, 8, 9), matrix(identity(1)))
