from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clinalign.core.errors import UserError
from clinalign.networks.identity import IdentityEncoder
from clinalign.workflows.prepare import prepare
from clinalign.workflows.train_identity import train_identity


@pytest.mark.slow
def test_an_encoder_learns_to_recognise_lesions_that_it_never_saw(tmp_path: Path) -> None:
    dataset = prepare("phantom-skin", tmp_path / "data", image_size=24, cases=400)
    metrics = train_identity(tmp_path / "data", tmp_path / "encoder", epochs=6, device="cpu", image_size=24)
    assert metrics["pairs"] == "augmentations"  # a phantom lesion is photographed once
    found = metrics["verification"]["views"]
    assert found["auc"]["ci95"][0] > 0.9
    assert found["accepted_at_0.01"]["n"] == len(dataset.cases("test"))
    assert "photographs" not in metrics["verification"]
    card = IdentityEncoder.load(tmp_path / "encoder").card
    assert (card["split"], card["dataset"], card["pairs"]) == ("judge", dataset.fingerprint, "augmentations")
    assert "never for recognising people" in card["intended_use"]
    assert json.loads((tmp_path / "encoder" / "metrics.json").read_text())["identity"] == card["identity"]


def test_settings_that_are_none(tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for message, settings in (
        ("no setting 'epoch'; did you mean 'epochs'|no setting 'epoch': did you mean 'epochs'", {"epoch": 3}),
        ("cannot train on split 'test'", {"split": "test"}),
        ("width must be a whole number of 2 or more", {"width": 1}),
        ("without augmentation there is no pair to learn from", {"augmentation": "none"}),
        ("unknown backbone 'resnet5'", {"backbone": "resnet5"}),
    ):
        with pytest.raises(UserError, match=message):
            train_identity(tiny.data, out, **settings)
    assert not out.exists()
    with pytest.raises(UserError, match="is not a trained reward: choose another --out"):
        train_identity(tiny.data, tiny.data)
