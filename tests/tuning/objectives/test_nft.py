"""NFT: the implied policies, its identity with weighted matching, and the old policy's slow walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from clinalign.tuning.objectives.nft import implied_policies


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
def test_the_implied_policies_mirror_each_other_around_the_old_one(beta: float) -> None:
    chance = torch.Generator().manual_seed(0)
    current, old = torch.randn((2, 5, 4, 8, 8), dtype=torch.float64, generator=chance)
    positive, negative = implied_policies(current, old, beta)
    torch.testing.assert_close((positive + negative) / 2, old)
    torch.testing.assert_close(positive - old, beta * (current - old))


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
def test_without_its_weights_it_is_weighted_matching_with_a_pull_to_the_old_policy(beta: float) -> None:
    # Methods 4.4. With d = p - p_old and e = p_old - target, p+ - target = e + b d and p- - target = e - b d, so
    #   r ||p+ - target||^2 + (1 - r) ||p- - target||^2 = ||e||^2 + b^2 ||d||^2 + 2 b (2 r - 1) d.e
    # and, times the prefactor 1 / b: b ||d||^2 + 2 (2 r - 1) d.e, and what does not depend on p.
    chance = torch.Generator().manual_seed(1)
    current, old, target = torch.randn((3, 7, 4, 8, 8), dtype=torch.float64, generator=chance)
    current.requires_grad_()
    share = torch.tensor([0.0, 0.1, 0.4, 0.5, 0.7, 0.9, 1.0], dtype=torch.float64)

    def square(values: torch.Tensor) -> torch.Tensor:
        return values.square().flatten(1).sum(1)

    positive, negative = implied_policies(current, old, beta)
    loss = (share * square(positive - target) + (1 - share) * square(negative - target)) / beta
    d, e = current - old, old - target
    matching = beta * square(d) + 2 * (2 * share - 1) * (d * e).flatten(1).sum(1)
    constant = square(e) / beta
    # float64: sums of 256 products of size 1 to 100
    torch.testing.assert_close(loss, matching + constant, rtol=1e-11, atol=1e-11)
    gradients = [torch.autograd.grad(value.sum(), current, retain_graph=True)[0] for value in (loss, matching)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-11)
    assert float(gradients[0].abs().max()) > 0.1


def test_a_good_picture_pulls_and_a_bad_one_pushes(
    make_tuner: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any]
) -> None:
    # on the old policy d is 0, and what is left is the pull of weight 2 r - 1 = A / scale
    found = {}
    for advantage in (1.0, -1.0, 0.5, 5.0, 50.0):
        tuner = make_tuner({"objective": {"name": "nft"}}, toy=True)
        found[advantage] = gradients(tuner, *drawn(tuner, torch.tensor([advantage])))[1]["shift"]
    assert float(found[1.0].abs().min()) > 0
    torch.testing.assert_close(found[-1.0], -found[1.0])
    torch.testing.assert_close(found[0.5], 0.5 * found[1.0])
    torch.testing.assert_close(found[5.0], 5 * found[1.0])
    torch.testing.assert_close(found[50.0], found[5.0])  # r is clipped


def test_the_old_policy_follows_ever_more_slowly_and_draws_the_pictures(make_tuner: Callable[..., Any]) -> None:
    changes = {"objective": {"name": "nft", "old_decay": 0.25, "old_decay_max": 0.4}, "train.learning_rate": 0.1}
    tuner = make_tuner(changes, toy=True)
    shift, old = tuner.parameters["shift"], torch.zeros(4)
    for decay in (0.0, 0.25, 0.4, 0.4):  # of age 0, 1, 2, 3
        tuner.step()
        old = decay * old + (1 - decay) * shift.detach()
        torch.testing.assert_close(tuner.objective.old.shadow["shift"], old)
    assert not torch.equal(old, shift)
    current = shift.detach().clone()
    with tuner.objective.behaviour():
        torch.testing.assert_close(shift.detach(), old)
    assert torch.equal(shift, current)


def test_the_old_policy_is_saved(make_tuner: Callable[..., Any]) -> None:
    changes = {"objective": {"name": "nft", "old_decay": 0.25}, "train.learning_rate": 0.1}
    tuner, again = make_tuner(changes, toy=True), make_tuner(changes, toy=True)
    for _ in range(3):
        tuner.step()
    tuner.save()
    again.load(again.run.checkpoints / "epoch_00003")
    assert torch.equal(again.objective.old.shadow["shift"], tuner.objective.old.shadow["shift"])
    assert again.objective.old.steps == 3
    assert not torch.equal(again.objective.old.shadow["shift"], again.parameters["shift"])
