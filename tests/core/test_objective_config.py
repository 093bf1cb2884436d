"""The objective section: every update rule has its own keys, and what does not fit is told in one line."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any, Literal

import pytest
import yaml

from clinalign.core import registry
from clinalign.core.config import TuneConfig, dump_config, parse_config
from clinalign.core.errors import UserError
from clinalign.core.objective_config import SECTIONS, ObjectiveSection

EVERY_KEY: dict[str, dict[str, Any]] = {
    "ddpo": {
        "kl": 0.1, "kl_target": 0.01, "clip_range": 0.1, "logprob_reduction": "sum", "ratio_norm": True,
        "ignore_last": 2, "timestep_fraction": 0.5,
    },
    "ddpo_window": {
        "kl": 0.1, "kl_target": 0.01, "clip_range": 0.1, "logprob_reduction": "sum", "ratio_norm": True,
        "ignore_last": 2, "window": 3, "move": "backward", "interval": 5, "branch": True,
    },
    "awm": {"kl": 0.1, "kl_target": 0.01, "timesteps": 2, "guidance": 2.0, "weight": "snr", "clip_range": 0.3},
    "nft": {
        "kl": 0.1, "kl_target": 0.01, "timesteps": 2, "guidance": 2.0, "beta": 0.1, "advantage_scale": 3.0,
        "old_decay": 0.01, "old_decay_max": 0.9,
    },
    "draft": {"kl": 0.1, "kl_target": 0.01, "last_steps": 2},
    "preference": {"kl": 0.1, "kl_target": 0.01, "timesteps": 2, "guidance": 2.0, "beta": 500.0, "pairs": 1},
}  # fmt: skip


def config(objective: dict[str, Any], **sections: Any) -> TuneConfig:
    return parse_config(
        {"data": {"path": "d"}, "generator": {"model": "m"}, "rewards": [{"name": "r"}], "objective": objective,
         **sections}
    )  # fmt: skip


def told(objective: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(UserError) as caught:
        config(objective, **sections)
    return str(caught.value)


@pytest.mark.parametrize("name", SECTIONS.names())
def test_every_key_of_a_rule_is_read_and_written(name: str) -> None:
    given = config({"name": name, **EVERY_KEY[name]})
    found = given.objective.model_dump()
    assert found == {"name": name, **EVERY_KEY[name]}
    assert all(value != found[key] for key, value in config({"name": name}).objective.model_dump().items()
               if key != "name")  # none of them is the default, which would be there without being read  # fmt: skip
    assert parse_config(yaml.safe_load(dump_config(given))) == given


def test_without_a_name_it_is_ddpo() -> None:
    assert config({"clip_range": 0.1}).objective.name == "ddpo"
    assert config({}).objective == config({"name": "ddpo"}).objective


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"name": "awm", "ratio_norm": True},
         "unknown key 'objective.ratio_norm' of awm: known: clip_range, guidance, kl, kl_target, name, timesteps, "
         "weight"),
        ({"name": "ddpo", "window": 4},
         "unknown key 'objective.window' of ddpo: known: clip_range, ignore_last, kl, kl_target, logprob_reduction, "
         "name, ratio_norm, timestep_fraction"),
        ({"clip_rnage": 0.1}, "unknown key 'objective.clip_rnage' of ddpo: did you mean 'clip_range'?"),
        ({"name": "nft", "old_decay_maxx": 0.1},
         "unknown key 'objective.old_decay_maxx' of nft: did you mean 'old_decay_max'?"),
        ({"name": "dpo"}, "key 'objective.name': unknown update rule 'dpo': did you mean 'ddpo'?"),
        ({"name": "ddpo_windwo"},
         "key 'objective.name': unknown update rule 'ddpo_windwo': did you mean 'ddpo_window'?"),
        ({"name": "xyz"},
         "key 'objective.name': unknown update rule 'xyz': known: awm, ddpo, ddpo_window, draft, nft, preference"),
        ({"name": "nft", "old_decay_max": 1.0},
         "key 'objective.old_decay_max': input should be less than 1, got 1.0"),
        ({"name": "draft", "last_steps": 0},
         "key 'objective.last_steps': input should be greater than or equal to 1, got 0"),
        *[({"name": name, "kl_target": 0.1},
           "objective.kl_target adapts the weight objective.kl, which is 0: start at 0.01, say")
          for name in SECTIONS.names()],
    ],
)  # fmt: skip
def test_what_does_not_fit_a_rule_is_told(objective: dict[str, Any], message: str) -> None:
    assert told(objective) == f"config: {message}"


@pytest.mark.parametrize("name", ["ddpo", "ddpo_window"])
def test_rules_on_the_probability_of_steps_need_noise(name: str) -> None:
    wanted = f"config: objective {name} needs steps with noise: set rollout.eta above 0"
    assert told({"name": name}, rollout={"eta": 0}) == wanted


@pytest.mark.parametrize("name", ["awm", "nft", "draft", "preference"])
def test_the_others_do_not(name: str) -> None:
    assert config({"name": name}, rollout={"eta": 0}).rollout.eta == 0.0


def test_a_rule_must_find_its_steps() -> None:
    for name in ("ddpo", "ddpo_window"):
        wanted = "objective.ignore_last 5 leaves none of the 5 rollout.steps to train: take 4 or fewer"
        assert wanted in told({"name": name, "ignore_last": 5}, rollout={"steps": 5})
        assert config({"name": name, "ignore_last": 4}, rollout={"steps": 5}).objective.trained_steps(5) == 1
    wanted = "objective.last_steps 6: the sampler has rollout.steps 5"
    assert wanted in told({"name": "draft", "last_steps": 6}, rollout={"steps": 5})
    assert config({"name": "draft", "last_steps": 5}, rollout={"steps": 5}).objective.trained_steps(5) == 5


def test_draft_cannot_be_compared_with_an_anchor() -> None:
    message = told({"name": "draft"}, feedback={"name": "comparative"})
    assert message.endswith("cannot be compared with an anchor: set feedback.name to absolute")
    assert "\n" not in message


class CooledConfig(ObjectiveSection):
    """The section of another package's rule."""

    name: Literal["cooled"] = "cooled"
    temperature: float = 1.0

    def trained_steps(self, steps: int) -> int:
        """One."""
        return 1


def test_another_package_adds_a_rule_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("cooled", f"{__name__}:CooledConfig", SECTIONS.group)
    monkeypatch.setattr(EntryPoint, "load", lambda self: CooledConfig)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == SECTIONS.group else [])
    given = config({"name": "cooled", "temperature": 0.5})
    assert given.objective == CooledConfig(temperature=0.5)
    assert parse_config(yaml.safe_load(dump_config(given))) == given
    known = "known: kl, kl_target, name, temperature"
    assert told({"name": "cooled", "pressure": 1}) == f"config: unknown key 'objective.pressure' of cooled: {known}"
