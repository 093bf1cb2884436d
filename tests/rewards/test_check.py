"""The check passes a reward that sees, and catches those that do not, each with a sentence that says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, RewardResult
from clinalign.rewards.check import CheckReport, examine
from clinalign.rewards.probes import flip, worthless_images

GROUPS = {"diagnosis": ["MEL", "NV"]}


def pictures(count: int = 40) -> tuple[torch.Tensor, list[Case]]:
    """Grey images with a bit of texture: ``spot`` is a bright square in the middle, MEL is reddish, NV bluish."""
    random = torch.Generator().manual_seed(0)
    images = 0.4 + 0.05 * torch.rand((count, 3, 16, 16), generator=random)
    cases = []
    for i in range(count):
        spot, melanoma = i % 2, int(i % 4 < 2)
        images[i, :, 6:10, 6:10] += 0.4 * spot
        images[i, 0 if melanoma else 2] += 0.1
        cases.append(Case(str(i), "", {"spot": spot, "MEL": melanoma, "NV": 1 - melanoma}))
    return images, cases


Score = Callable[[torch.Tensor, Sequence[Case]], torch.Tensor]


@dataclass
class Mine:
    """A reward made of a function."""

    score: Score
    name: str = "mine"
    identity: str = "mine:1"

    def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
        return RewardResult(self.score(images, cases), torch.ones(len(images)).bool())


def seeing(images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
    """Evidence for each label, from the pixels that show it."""
    spot = images[:, :, 6:10, 6:10].mean(dim=(1, 2, 3)) - images[:, :, :4].mean(dim=(1, 2, 3)) - 0.2
    red = images[:, 0].mean(dim=(1, 2)) - images[:, 2].mean(dim=(1, 2))
    signs = [[2 * int(case.attributes[name] or 0) - 1 for name in ("spot", "MEL")] for case in cases]
    evidence = torch.stack([torch.tanh(8 * spot), torch.tanh(20 * red)], dim=1) * torch.tensor(signs)
    return evidence.sum(dim=1)


def look(score: Score) -> CheckReport:
    return examine(Mine(score), *pictures(), exclusive=GROUPS)


def test_a_reward_that_sees_passes() -> None:
    report = look(seeing)
    assert report.passed, report.reasons
    assert report.separation["wrong_label"] > 0.9
    assert min(report.attributes.values()) > 0.9
    assert report.numbers["not_finite"] == 0
    assert report.as_json()["n"] == 40


def reasons(score: Score) -> str:
    report = look(score)
    assert not report.passed
    return "; ".join(report.reasons)


def test_an_integer_reward_is_caught() -> None:
    assert "returned torch.int64 values" in reasons(lambda images, cases: seeing(images, cases).round().long())


def test_a_constant_reward_is_caught() -> None:
    assert "it is constant: all 40 real images score 0.5" in reasons(lambda images, _: torch.full((len(images),), 0.5))


def test_a_noise_loving_reward_is_caught() -> None:
    def sharpness(images: torch.Tensor, _: Sequence[Case]) -> torch.Tensor:
        return images.diff(dim=-1).abs().mean(dim=(1, 2, 3))

    found = reasons(sharpness)
    assert "it loves what is worthless: noise images score as well as real ones or better" in found
    assert "does not tell right labels from wrong ones" in found


def test_a_reward_that_sees_labels_and_still_loves_noise_is_caught() -> None:
    def fooled(images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
        return seeing(images, cases) + 50 * images.diff(dim=-1).abs().mean(dim=(1, 2, 3))

    assert "it is fooled: noise images" in reasons(fooled)


def test_a_reward_that_answers_noise_with_the_commonest_labels_gets_no_credit_for_it() -> None:
    # It ignores the image and likes every case without a spot, as a classifier does that was trained on rare spots.
    found = reasons(lambda images, cases: torch.tensor([1.0 - int(case.attributes["spot"] or 0) for case in cases]))
    assert "does not tell right labels" in found


def test_chance_in_a_reward_is_caught() -> None:
    assert "not deterministic" in reasons(lambda images, cases: seeing(images, cases) + torch.rand(len(images)))


def test_a_reward_that_depends_on_the_batch_is_caught() -> None:
    assert "depends on the batch" in reasons(lambda images, cases: seeing(images, cases) - images.std())


def test_a_saturated_reward_is_caught() -> None:
    def saturated(images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
        return torch.where(torch.tensor([case.case_id == "0" for case in cases]), 0.0, torch.ones(len(images)))

    assert "saturated: 98% of real images, with right and wrong labels, have the same" in reasons(saturated)


def test_a_reward_that_is_never_wrong_is_not_saturated() -> None:
    # every real image with its right label scores 1, and with a wrong one 0: nothing better can be asked
    assert "saturated" not in reasons(lambda images, cases: (seeing(images, cases) > 0).float())


def test_nan_on_real_images_is_caught() -> None:
    def broken(images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
        return torch.where(torch.tensor([case.case_id == "3" for case in cases]), torch.nan, seeing(images, cases))

    assert "NaN or infinity for 1 of 40 real images" in reasons(broken)


def test_an_exception_is_a_finding() -> None:
    def raising(images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
        raise ConnectionError("server away")

    assert reasons(raising) == "it raised ConnectionError: server away"


def test_an_attribute_that_it_does_not_see_is_a_warning() -> None:
    def colour_only(images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
        red = images[:, 0].mean(dim=(1, 2)) - images[:, 2].mean(dim=(1, 2))
        return torch.tanh(20 * red) * torch.tensor([2.0 * int(case.attributes["MEL"] or 0) - 1 for case in cases])

    report = look(colour_only)
    assert any("hardly sees spot: a wrong label lowers the score of 50%" in warning for warning in report.warnings)


def test_many_ties_are_a_warning() -> None:
    def coarse(images: torch.Tensor, cases: Sequence[Case]) -> torch.Tensor:
        late = torch.tensor([int(case.case_id) < 10 for case in cases])  # a quarter scores a little less: 62 % tie
        return (seeing(images, cases) > 0).float() - 0.1 * late

    assert any("% of pairs tie" in warning for warning in look(coarse).warnings)


def test_data_that_the_reward_knows_nothing_of() -> None:
    class Blind(Mine):
        def __call__(self, images: torch.Tensor, cases: Sequence[Case]) -> RewardResult:
            return RewardResult(torch.zeros(len(images)), torch.zeros(len(images)).bool())

    report = examine(Blind(seeing), *pictures())
    assert "do its attributes occur in this data?" in report.reasons[0]


def test_too_few_images() -> None:
    images, cases = pictures(4)
    with pytest.raises(UserError, match="needs 8 images or more"):
        examine(Mine(seeing), images, cases)


def test_flipped_labels_are_still_possible_ones() -> None:
    random = np.random.default_rng(0)
    case = Case("1", "", {"hair": 1, "ink": None, "MEL": 1, "NV": 0, "BKL": 0})
    groups = {"diagnosis": ["MEL", "NV", "BKL"]}
    assert flip(case, ["hair", "ink"], groups, random).attributes == {**case.attributes, "hair": 0}
    assert flip(case, ["BKL"], groups, random).attributes == {**case.attributes, "MEL": 0, "BKL": 1}
    every = flip(case, list(case.attributes), groups, random).attributes
    assert every["MEL"] == 0
    assert (every["NV"] or 0) + (every["BKL"] or 0) == 1
    assert every["ink"] is None


def test_worthless_images_keep_the_contract() -> None:
    images, _ = pictures(3)
    for name, worthless in worthless_images(images, seed=0).items():
        assert worthless.shape == images.shape, name
        assert worthless.min() >= 0, name
        assert worthless.max() <= 1, name
    scrambled = worthless_images(images, seed=0)["scrambled"]
    # the same pixels in another place
    torch.testing.assert_close(scrambled.flatten(1).sort().values, images.flatten(1).sort().values)
    assert not torch.equal(scrambled, images)
