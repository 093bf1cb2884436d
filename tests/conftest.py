"""A world small enough for every test: 16-pixel phantoms, an untrained generator, an untrained evaluator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from clinalign.core.files import write_text

torch.set_num_threads(1)  # threads cost more than they bring on tensors this small


class TinyWorld(NamedTuple):
    """Folders of a tiny dataset, generators and classifiers, all in the state in which training would leave them."""

    data: Path
    model: Path
    run: Path  # a tuning run of `model` whose adapter changes the pictures
    evaluator: Path
    reward: Path  # what `run` was rewarded by


def build_generator(texts: list[str]) -> Any:
    """Return an untrained generator of 16-pixel pictures that fits the texts."""
    from diffusers import StableDiffusionPipeline

    from clinalign.generation import architecture as parts
    from clinalign.generation.generator import Generator, quiet_libraries

    quiet_libraries()
    size = parts.ScratchSize(
        image_size=16, latent_size=8, latent_channels=4, vae_channels=8, unet_channels=(16, 32), text_width=32,
        text_layers=1,
    )  # fmt: skip
    tokenizer = parts.fit_tokenizer(texts)
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=parts.build_vae(size), text_encoder=parts.build_text_encoder(size, tokenizer), tokenizer=tokenizer,
        unet=parts.build_unet(size), scheduler=parts.build_scheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    return Generator(pipeline)


def build_classifier(out: Path, dataset: Any, split: str, seed: int, backbone: str) -> None:
    """Save an untrained classifier with the card that training on ``split`` would give it."""
    from clinalign.networks.classifier import AttributeClassifier

    torch.manual_seed(seed)
    classifier = AttributeClassifier(dataset.attribute_names, 16, backbone)
    classifier.card = {"split": split, "dataset": dataset.fingerprint}
    classifier.save(out)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    from clinalign.core.config import dump_config, parse_config
    from clinalign.generation.adapters import add_lora, lora_parameters
    from clinalign.workflows.export import export_model
    from clinalign.workflows.prepare import prepare

    place = tmp_path_factory.mktemp("tiny")
    world = TinyWorld(*(place / name for name in TinyWorld._fields))
    dataset = prepare("phantom-skin", world.data, image_size=16, cases=160)
    generator = build_generator([case.text for case in dataset.cases()])
    generator.save(world.model)
    build_classifier(world.evaluator, dataset, "judge", 1, "test_byobnet")
    build_classifier(world.reward, dataset, "train", 2, "test_resnet")
    add_lora(generator.unet, 2, "attention", 0)
    with torch.no_grad():
        for parameter in lora_parameters(generator.unet).values():
            parameter.add_(0.3)
    export_model(generator, str(world.model), world.run / "model")
    config = parse_config(
        {
            "data": {"path": str(world.data)},
            "generator": {"model": str(world.model)},
            "rollout": {"steps": 2, "guidance": 1.5, "eta": 0.5},
            "rewards": [{"name": "attributes", "path": str(world.reward)}, {"name": "brightness"}],
        }
    )
    write_text(world.run / "config.yaml", dump_config(config))
    return world


@pytest.fixture
def generator(tiny: TinyWorld) -> Any:
    """The tiny generator, freshly opened: a test may change it."""
    from clinalign.generation.generator import Generator

    return Generator.load(tiny.model)


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
