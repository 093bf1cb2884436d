"""The whole family on features: keys, the null in every column, and a canary."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clinalign.evaluation.privacy.entries import (
    LossAttack,
    RealSet,
    Reference,
    look,
    open_reference,
    privacy_changes,
    privacy_entries,
)

KEYS = ("nearest_train_share", "distance_ratio", "near_duplicates", "reidentified", "membership_auc")


def reference_of(world: Any, recognises: bool = True) -> Reference:
    t, tg, h, hg, _, _ = world
    return open_reference(RealSet(t, tg), RealSet(h, hg), "toy", recognises=recognises, permutations=60, replicates=60)


def test_every_number_says_how_sure_it_is_and_with_what_it_was_measured(people: Any) -> None:
    world = people(0, held_out=100)
    reference = reference_of(world)
    loss = LossAttack(torch.randn(40), torch.arange(40) < 20, [str(i) for i in range(40)])
    looked = look(world.generated, world.groups, reference, loss=loss)
    entries = privacy_entries(looked, reference)
    assert set(entries) == {f"privacy/{key}" for key in (*KEYS, "membership_auc_loss")}
    for key, entry in entries.items():
        assert entry["ci95"][0] <= entry["value"] <= entry["ci95"][1], key
        assert entry["n"] > 0
        assert entry["extractor"] == ("the generator's denoising error" if key.endswith("loss") else "toy")
    changes = privacy_changes(looked, looked, reference)
    assert set(changes) == {f"change/{key}" for key in entries}
    assert all(entry["value"] == 0 and entry["ci95"] == [0, 0] for entry in changes.values())


def test_reidentification_needs_an_encoder_for_it_and_the_loss_needs_a_model(people: Any) -> None:
    world = people(0, held_out=100)
    reference = reference_of(world, recognises=False)
    looked = look(world.generated, world.groups, reference)
    entries = privacy_entries(looked, reference)
    assert "privacy/reidentified" not in entries
    assert "privacy/membership_auc_loss" not in entries
    assert not {"change/privacy/reidentified", "change/privacy/membership_auc_loss"} & set(
        privacy_changes(looked, looked, reference)
    )


def test_held_out_people_in_the_place_of_generated_images_are_not_accused(people: Any) -> None:
    accused, halves, guessed = [], [], []
    for seed in range(8):
        world = people(seed, held_out=120)
        reference = reference_of(world)
        rows = list(range(60))
        groups = [world.held_out_groups[row] for row in rows]
        entries = privacy_entries(look(world.held_out[rows], groups, reference, strangers=True), reference)
        accused += [entries[f"privacy/{key}"]["value"] for key in ("near_duplicates", "reidentified")]
        halves.append(entries["privacy/nearest_train_share"]["value"])
        guessed.append(entries["privacy/membership_auc"]["value"])
    assert sum(accused) / len(accused) == pytest.approx(0.01, abs=0.02)
    assert sum(halves) / 8 == pytest.approx(0.5, abs=0.06)
    assert sum(guessed) / 8 == pytest.approx(0.5, abs=0.04)


def test_a_canary_is_found_and_named(people: Any) -> None:
    # one training image in four is a copy of patient 23, as if training had held that image many times
    world = people(4, held_out=120, generated=80)
    noise = 0.05 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    world.generated[::4] = world.train[23] + noise
    reference = reference_of(world)
    looked = look(world.generated, world.groups, reference)
    entries = privacy_entries(looked, reference)
    assert int(looked.near.row[looked.near.value.argmin()]) == 23
    assert int(looked.scores.argmax()) == 23
    for key in ("near_duplicates", "reidentified"):
        assert entries[f"privacy/{key}"]["ci95"][0] > 0.02
    assert entries["privacy/reidentified"]["equal_size_train"] > entries["privacy/reidentified"]["equal_size_held_out"]


def test_a_collapsed_generator_copies_nobody(people: Any) -> None:
    # a collapsed generator lies near some training patient, but as near to many held-out ones
    world = people(2, train=100, held_out=100)
    reference = reference_of(world)
    flat = world.held_out[:40].mean(0) + 0.01 * torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    entry = privacy_entries(look(flat, [f"q{i}" for i in range(60)], reference), reference)["privacy/near_duplicates"]
    assert entry["value"] < 0.05


def test_the_kinds_of_both_sides_reach_every_comparison(people: Any) -> None:
    # the first look is called a and the rest b; held out has hardly any a
    t, tg, h, hg, y, groups = people(0, train=90, held_out=90)
    kinds = ["a"] * 60 + ["b"] * 30, ["a"] * 25 + ["b"] * 60 + ["c"] * 5
    plain = reference_of(people(0, train=90, held_out=90))
    reference = open_reference(
        RealSet(t, tg, kinds[0]), RealSet(h, hg, kinds[1]), "toy", permutations=20, replicates=20
    )
    first, second = (privacy_entries(look(y, groups, each), each) for each in (plain, reference))
    assert first["privacy/nearest_train_share"]["n_held_out"] == 90
    assert second["privacy/nearest_train_share"]["n_held_out"] == 85  # nobody in training is of kind c
    for key in ("nearest_train_share", "distance_ratio", "membership_auc"):
        assert first[f"privacy/{key}"]["value"] != second[f"privacy/{key}"]["value"]
