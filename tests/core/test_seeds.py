from __future__ import annotations

import torch

from clinalign.core.seeds import derive_seed, seeded_noise


def test_a_seed_is_for_ever() -> None:
    # computed once, with hashlib alone: a change here changes every picture ever reported
    assert derive_seed(0, 3, "ISIC_1", 2) == 3980552764930454983


def test_every_key_its_own_seed() -> None:
    keys = [(1,), ("1",), (1, 1), (11,), (1, "1"), ("1", 1), (0, 1), (1, 0), ("a", "b"), ("b", "a"), ("ab",), ()]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    many = {derive_seed(0, epoch, member) for epoch in range(100) for member in range(100)}
    assert len(many) == 10_000


def test_noise_belongs_to_its_seed_alone() -> None:
    together = seeded_noise([5, 6, 7], (2, 4, 4), draws=3)
    assert together.shape == (3, 3, 2, 4, 4)
    assert torch.equal(seeded_noise([7, 5], (2, 4, 4), draws=3), together[[2, 0]])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0, 0], together[0, 1])


def test_the_first_draw_does_not_depend_on_how_many_follow() -> None:
    # true for shapes of a multiple of 16 numbers, which torch draws in blocks; every latent has such a shape
    assert torch.equal(seeded_noise([5], (4, 8, 8), draws=1)[:, 0], seeded_noise([5], (4, 8, 8), draws=9)[:, 0])


def test_noise_is_standard_normal() -> None:
    noise = seeded_noise(range(100), (4, 8, 8))
    # five standard errors of 25,600 draws: 5 / 160 of the mean, 5 / (160 sqrt 2) of the spread
    assert abs(float(noise.mean())) < 0.032
    assert abs(float(noise.std()) - 1) < 0.023


def test_drawing_leaves_the_global_stream_alone_and_none_is_none() -> None:
    torch.manual_seed(0)
    seeded_noise([1], (2,))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert seeded_noise([], (2, 3), draws=4).shape == (0, 4, 2, 3)
