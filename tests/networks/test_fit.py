"""The training loop learns, repeats itself, and masks what is unknown."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from clinalign.core.errors import UserError
from clinalign.networks.augment import augment
from clinalign.networks.fit import FitSettings, Labelled, average_weights, fit, schedule
from clinalign.networks.losses import masked_bce, positive_weights


def spots(count: int, seed: int) -> Labelled:
    """Dim noise; label 0 says whether a bright square is there, label 1 whether the image is blue."""
    random = torch.Generator().manual_seed(seed)
    images = torch.rand((count, 3, 16, 16), generator=random) * 0.4
    labels = (torch.rand((count, 2), generator=random) < 0.5).float()
    images[labels[:, 0] == 1, :, 5:9, 5:9] += 0.5
    images[labels[:, 1] == 1, 2] += 0.3
    return Labelled.of(images, labels, torch.ones(count, 2).bool())


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2))


QUICK = FitSettings(epochs=8, batch_size=16, learning_rate=1e-2, ema=0.8)


def test_it_learns_what_is_plain_to_see() -> None:
    result = fit(small(), spots(160, 0), spots(80, 1), QUICK)
    assert result.best_score > 0.95  # chance is 0.5
    assert len(result.history) == 8


def test_same_seed_same_weights() -> None:
    first, second = small(), small()
    for model in (first, second):
        fit(model, spots(64, 0), spots(32, 1), FitSettings(epochs=2, seed=3))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))


def test_it_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    model = small()
    torch.manual_seed(5)
    fit(model, spots(32, 0), spots(32, 1), FitSettings(epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_it_stops_when_validation_gets_no_better() -> None:
    settings = FitSettings(epochs=50, batch_size=16, patience=2)
    result = fit(small(), spots(32, 0), spots(32, 1), settings, score=lambda *_: 0.5)
    assert result.best_epoch == 1
    assert len(result.history) == 3  # the best one and two more


def test_a_time_budget_ends_it() -> None:
    result = fit(small(), spots(32, 0), spots(32, 1), FitSettings(epochs=1000, seconds=0.05))
    assert len(result.history) < 1000


def test_unknown_labels_add_nothing_to_the_loss() -> None:
    labels = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    known = torch.tensor([[True], [True], [False], [False]])
    loss = masked_bce(labels, known, 20.0)
    logits = torch.zeros(4, 1, requires_grad=True)
    value = loss(logits, labels, known)
    value.backward()
    assert value.item() == pytest.approx(math.log(2))  # two known, each -log 0.5
    assert logits.grad is not None
    assert logits.grad[2:].abs().sum() == 0
    assert loss(logits, labels, torch.zeros_like(known)).item() == 0  # none known: nothing to learn, and not NaN


def test_rare_positives_weigh_more_up_to_the_ceiling() -> None:
    labels = torch.tensor([[1.0, 1.0, 1.0]] + [[0.0, 0.0, 1.0]] * 9)
    known = torch.ones(10, 3).bool()
    known[4:, 0] = False  # one positive, three known negatives
    assert positive_weights(labels, known, 5.0).tolist() == pytest.approx([3.0, 5.0, 0.2])


def test_balanced_training_is_deaf_to_prevalence() -> None:
    # Blind network, 10 % positives: with weight 9 the constant that minimises the loss is logit 0, not log(1/9).
    labels = torch.tensor([[1.0]] + [[0.0]] * 9)
    known = torch.ones(10, 1).bool()
    logit = torch.zeros(1, requires_grad=True)
    masked_bce(labels, known, 20.0)(logit.expand(10, 1), labels, known).backward()
    assert logit.grad is not None
    assert logit.grad.item() == pytest.approx(0.0, abs=1e-7)


def test_schedule_rises_then_falls() -> None:
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1.0)
    assert schedule(1.0, 0.1) == pytest.approx(0.01)


def test_averaged_weights_by_hand() -> None:
    averaged = {"w": torch.tensor([1.0]), "n": torch.tensor(1)}
    average_weights(averaged, {"w": torch.tensor([3.0]), "n": torch.tensor(7)}, decay=0.75)
    assert averaged["w"].item() == 1.5  # 0.75 * 1 + 0.25 * 3
    assert averaged["n"].item() == 7


def test_augmentation_keeps_range_shape_and_chest_sides() -> None:
    images = torch.zeros(64, 3, 16, 16)
    images[..., :4] = 0.9  # bright on the left
    for recipe in ("dermoscopy", "chest x-ray", "none"):
        changed = augment(images, recipe, torch.Generator().manual_seed(0))
        assert changed.shape == images.shape
        assert changed.min() >= 0
        assert changed.max() <= 1
        left = changed[..., :4].mean(dim=(1, 2, 3)) > changed[..., -4:].mean(dim=(1, 2, 3)) + 0.3
        assert bool(left.all()) == (recipe != "dermoscopy")  # a chest is never flipped: its heart lies on one side


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be above 0"),
        ({"epochs": "many"}, "epochs must be a whole number, got 'many'"),
        ({"epochs": 2.5}, "epochs must be a whole number, got 2.5"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"seconds": "long"}, "seconds must be a number, got 'long'"),
        ({"ema": 1.0}, "ema must lie in"),
        ({"seconds": 0.0}, "seconds must be above 0"),
        ({"augmentation": "dermoscopi"}, "did you mean 'dermoscopy'"),
    ],
)
def test_messages_of_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FitSettings(**changes)  # type: ignore[arg-type]


def test_messages_of_training() -> None:
    nothing = Labelled(torch.zeros(0, 3, 8, 8).byte(), torch.zeros(0, 2), torch.zeros(0, 2).bool())
    with pytest.raises(UserError, match="nothing to train on: 0 training"):
        fit(small(), nothing, spots(4, 0), QUICK)
    with pytest.raises(UserError, match="lower the learning rate"):
        fit(small(), spots(16, 0), spots(4, 0), QUICK, loss=lambda out, *_: out.sum() * torch.nan)
