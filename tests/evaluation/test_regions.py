"""Region agreement on pictures whose masks are their colours."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.evaluation.entries import Entries
from clinalign.evaluation.regions import clause_agreement, clause_counts, region_entries, share_fulfilled
from clinalign.networks.place_rules import PlaceRules
from clinalign.networks.segmenter import Segmenter


def segmenter() -> Segmenter:
    """Red is effusion, green nodule; there are no lungs, so that the picture's halves and thirds count."""
    model = Segmenter(["effusion", "nodule", "other"], 16, "test_byobnet", PlaceRules(True, default_floor=0.01))
    model.forward = lambda images: 40.0 * images - 20.0  # type: ignore[method-assign]
    return model.eval()


def picture(effusion: slice, nodule_rows: slice | None = None) -> torch.Tensor:
    """An effusion in some columns, a nodule on the patient's left in some rows."""
    image = torch.zeros(3, 30, 30)
    image[0, 20:28, effusion] = 1.0
    if nodule_rows is not None:
        image[1, nodule_rows, 20:25] = 1.0
    return image


def measure(images: torch.Tensor, cases: list[Case], **settings: Any) -> Entries:
    judge = segmenter()
    return region_entries(clause_counts(judge, images, cases), judge.identity, **settings)


LEFT, RIGHT = slice(18, 28), slice(2, 12)
TEXT = "Left effusion. Nodule in the left upper zone."


def test_the_share_of_fulfilled_clauses_by_picture_and_kind() -> None:
    images = torch.stack([picture(LEFT, slice(1, 6)), picture(RIGHT, slice(24, 29)), picture(LEFT)])
    cases = [Case(str(i), TEXT) for i in range(3)]
    entries = measure(images, cases, replicates=50)
    # all three clauses; the nodule's side alone; the effusion's alone: a missing nodule fulfils nothing
    assert entries["alignment/region_agreement"]["value"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert entries["alignment/region_side"]["value"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert entries["alignment/region_zone"]["value"] == pytest.approx(1 / 3)
    assert "alignment/region_size" not in entries  # no text has one
    assert entries["alignment/region_agreement"]["n"] == 3
    assert entries["alignment/region_agreement"]["clauses"] == 9
    assert entries["alignment/region_agreement"]["evaluator"].startswith("segmenter:test_byobnet:")
    low, high = entries["alignment/region_agreement"]["ci95"]
    assert low <= entries["alignment/region_agreement"]["value"] <= high


def test_a_text_without_place_is_left_out_and_not_counted_as_missed() -> None:
    images = torch.stack([picture(LEFT)] * 3)
    cases = [Case("1", "Left effusion."), Case("2", "Effusion."), Case("3", "Right effusion.")]
    entry = measure(images, cases, replicates=50)["alignment/region_agreement"]
    assert (entry["value"], entry["n"]) == (0.5, 2)
    assert measure(images, [Case("1", "Effusion.")] * 3, replicates=50) == {}


def test_decisions_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    from clinalign.data.places import places_in

    images = torch.stack([picture(LEFT, slice(1, 6)), picture(RIGHT, slice(1, 6)), picture(LEFT)])
    whole = clause_agreement(segmenter(), images, [places_in(TEXT)] * 3)
    monkeypatch.setattr("clinalign.evaluation.regions.CHUNK", 2)
    parts = clause_agreement(segmenter(), images, [places_in(TEXT)] * 3)
    assert whole[0] == parts[0]
    assert torch.equal(whole[1], parts[1])


def test_shares_by_hand() -> None:
    shares = share_fulfilled([0, 0, 2], torch.tensor([1.0, 0.0, 1.0]), 3)
    assert shares[0] == 0.5
    assert shares[1].isnan()
    assert shares[2] == 1.0


def test_an_interval_needs_two_groups() -> None:
    images = torch.stack([picture(LEFT)] * 2)
    with pytest.raises(UserError, match="at least two cases or groups"):
        measure(images, [Case("1", TEXT)] * 2, groups=["a", "a"])
