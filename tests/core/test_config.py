from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clinalign.core.config import dump_config, load_config, parse_config
from clinalign.core.errors import UserError

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


def tree(**sections: Any) -> dict[str, Any]:
    """The least that a config says, and what a test adds."""
    return {"data": {"path": "d"}, "generator": {"model": "m"}, "rewards": [{"name": "attributes"}], **sections}


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_legal_and_opens_with_what_a_reader_needs(recipe: Path) -> None:
    assert load_config(recipe) == load_config(str(recipe))
    text = recipe.read_text(encoding="utf-8")
    head = text[: text.index("\nseed:")]  # style 16
    for words in ("Launch:", f"clinalign tune recipes/{recipe.name}", "Override:", "--set "):
        assert words in head, f"{recipe.name} does not say {words}"
    assert "Hardware" in head or "CPU cores" in head


def test_the_published_settings_are_the_defaults() -> None:
    # RL4Med-DDPO (methods 3): mean log-probability with its clip range, 32 remembered rewards, 16 to begin with
    config = parse_config(tree())
    assert (config.objective.name, config.objective.clip_range, config.objective.logprob_reduction) == (
        "ddpo", 1e-4, "mean",
    )  # fmt: skip
    advantage = config.advantage
    assert (advantage.name, advantage.buffer, advantage.min_count, advantage.clip) == ("per_prompt_running", 32, 16, 5)
    assert (config.rollout.sampler, config.rollout.steps, config.rollout.eta, config.rollout.guidance) == (
        "ddim", 20, 1.0, 5.0,
    )  # fmt: skip
    assert config.images_per_epoch == 64


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    config = parse_config(tree(train={"epochs": 3, "betas": [0.8, 0.9]}, data={"path": "d", "known": ["hair"]}))
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config
    written = yaml.safe_load(dump_config(config))
    assert written["rollout"]["steps"] == 20  # defaults are written out
    assert list(written)[:3] == ["seed", "data", "generator"]  # in the order of the documentation


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    source = tmp_path / "mine.yaml"
    source.write_text(
        yaml.safe_dump(
            tree(
                rolout={"steps": 3},
                train={"epoch": 3, "learning_rate": "fast"},
                rewards=[{"name": "a"}, {"nmae": "b"}],
                generator={"model": "m", "adapter": {"rnk": 4}},
                rollout={"eta": -1},
            )
        )
    )
    with pytest.raises(UserError) as caught:
        load_config(source)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{source}: ") for line in lines)
    for expected in (
        "unknown key 'rolout': did you mean 'rollout'?",
        "unknown key 'train.epoch': did you mean 'epochs'?",
        "key 'train.learning_rate': input should be a valid number, unable to parse string as a number, got 'fast'",
        "key 'rewards.1.name' is missing",
        "unknown key 'rewards.1.nmae': did you mean 'name'?",
        "unknown key 'generator.adapter.rnk': did you mean 'rank'?",
        "key 'rollout.eta': input should be greater than or equal to 0, got -1",
    ):
        assert any(expected in line for line in lines), expected
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {}}, "key 'data.path' is missing"),
        ({"rewards": []}, "key 'rewards': .*at least 1 item"),
        ({"rollout": {"eta": 1.5}}, "key 'rollout.eta': input should be less than or equal to 1, got 1.5"),
        ({"train": {"epochs": 1.5}}, "key 'train.epochs': input should be a valid integer"),
        ({"train": 3}, "key 'train': input should be a valid dictionary"),
        ({"generator": {"model": "m", "ace": {"tokens": 17}}}, "key 'generator.ace.tokens': input should be less than"),
        ({"rollout": {"guidance": 0.5}}, "key 'rollout.guidance': input should be greater than or equal to 1"),
        ({"rollout": {"steps": 5}, "objective": {"ignore_last": 5}}, "leaves none of the 5 rollout.steps .*take 4 or"),
        ({"seed": -1}, "key 'seed': input should be greater than or equal to 0, got -1"),
    ],
)
def test_illegal_values_are_told_with_their_place(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config(tree(**sections))


def write(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree(train={"epochs": 9})))
    return tmp_path / "config.yaml"


def test_overrides_reach_every_place(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path),
        [
            "seed=3",
            "train.epochs=2",
            "train.learning_rate=1e-3",  # text in YAML 1.1, a number to us
            "generator.adapter.rank=4",  # a section that the file does not have
            "rewards.0.weight=0.5",
            "rewards.0.settings.score=hard",
            "evaluate.evaluator=null",
            "data.known=[hair, ink]",
        ],
    )
    assert (config.seed, config.train.epochs, config.train.learning_rate) == (3, 2, 1e-3)
    assert config.generator.adapter.rank == 4
    assert (config.rewards[0].weight, config.rewards[0].settings) == (0.5, {"score": "hard"})
    assert config.evaluate.evaluator is None
    assert config.data.known == ("hair", "ink")


@pytest.mark.parametrize("override", ["train.epochs", "=3", ""])
def test_an_override_without_key_or_value_is_told(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match=r"write key=value, for example --set train.epochs=3"):
        load_config(write(tmp_path), [override])


@pytest.mark.parametrize("override", ["rewards.7.weight=1", "rewards.x.weight=1", "train.epochs.more=1", "seed=[1"])
def test_an_override_of_no_place_is_told(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match=r"there is no such place in the config"):
        load_config(write(tmp_path), [override])


def test_an_override_with_an_unknown_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'train.epoch': did you mean 'epochs'?"):
        load_config(write(tmp_path), ["train.epoch=3"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: see recipes/ for examples"),
        (b"a: [", "is not readable as YAML"),
        (b"\xff\xfe\x00\x01", "is not readable as YAML"),
        (b"- a\n- b\n", "is not a table of keys: see recipes/ for examples"),
        (b"", "is not a table of keys"),
    ],
)
def test_a_file_that_is_no_config_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_config(tmp_path / "config.yaml")
    assert "\n" not in str(caught.value)


def test_a_config_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValueError, match=r"frozen"):
        parse_config(tree()).seed = 3  # type: ignore[misc]
