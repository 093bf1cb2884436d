from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clinalign.core.checkpoint import (
    latest_state,
    load_state,
    optimizer_tensors,
    prune_states,
    restore_optimizer,
    save_state,
    with_prefix,
    without_prefix,
)


def test_tensors_and_values_come_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).t(),  # not contiguous
        "b": torch.tensor([1e-45, float("inf"), -0.0]),
        "step": torch.tensor(7.0),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "trained": torch.nn.Parameter(torch.ones(1)),
    }
    info = {"epoch": 3, "losses": [0.1, 1 / 3], "schedule": {"last_epoch": 3}}
    save_state(tmp_path / "epoch_0003", tensors, info)
    found, told = load_state(tmp_path / "epoch_0003")
    assert told == info  # floats survive JSON exactly
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert found["half"].dtype == torch.bfloat16
    assert sorted(path.suffix for path in (tmp_path / "epoch_0003").iterdir()) == [".json", ".safetensors"]


def training(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    return network, torch.optim.AdamW(network.parameters(), 1e-2)


def steps(network: torch.nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        (network(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


def test_a_restored_training_goes_on_bitwise(tmp_path: Path) -> None:
    whole, optimizer = training(0)
    steps(whole, optimizer, range(8))

    network, optimizer = training(0)
    steps(network, optimizer, range(5))
    state = {**with_prefix("w", network.state_dict()), **with_prefix("o", optimizer_tensors(optimizer))}
    save_state(tmp_path / "step_5", state, {})

    network, optimizer = training(1)  # other weights: everything must come from the file
    found, _ = load_state(tmp_path / "step_5")
    network.load_state_dict(without_prefix("w", found))
    restore_optimizer(optimizer, without_prefix("o", found))
    steps(network, optimizer, range(5, 8))
    for name, value in whole.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_hyper_parameters_stay_those_of_the_optimiser(tmp_path: Path) -> None:
    network, optimizer = training(0)
    steps(network, optimizer, range(2))
    other = torch.optim.AdamW(network.parameters(), 0.5)
    restore_optimizer(other, optimizer_tensors(optimizer))
    assert other.param_groups[0]["lr"] == 0.5
    assert all(torch.equal(other.state[p]["exp_avg"], optimizer.state[p]["exp_avg"]) for p in network.parameters())


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert latest_state(tmp_path / "nothing") is None
    assert latest_state(tmp_path) is None
    for epoch in (2, 10, 9):
        save_state(tmp_path / f"epoch_{epoch}", {}, {"epoch": epoch})
    (tmp_path / "epoch_11").mkdir()  # without its state: copied by half
    (tmp_path / ".epoch_12.abc").mkdir()  # a process was killed while writing it
    (tmp_path / ".epoch_12.abc" / "state.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    found = latest_state(tmp_path)
    assert found == tmp_path / "epoch_10"


def test_an_interrupted_save_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    save_state(tmp_path / "epoch_1", {"w": torch.ones(1)}, {})
    with pytest.raises(TypeError, match=r"not JSON serializable"):
        save_state(tmp_path / "epoch_2", {"w": torch.ones(1)}, {"bad": object()})
    assert latest_state(tmp_path) == tmp_path / "epoch_1"
    assert list(tmp_path.iterdir()) == [tmp_path / "epoch_1"]


@pytest.mark.parametrize(("keep", "left"), [(0, []), (1, ["epoch_10000"]), (2, ["epoch_10000", "epoch_9999"]), (9, 3)])
def test_the_oldest_are_pruned_by_number(tmp_path: Path, keep: int, left: list[str] | int) -> None:
    names = ["epoch_0009", "epoch_9999", "epoch_10000"]  # five digits come after four, though not in the alphabet
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "notes").mkdir()
    prune_states(tmp_path, keep)
    found = sorted(path.name for path in tmp_path.iterdir() if path.name != "notes")
    assert found == (sorted(names) if isinstance(left, int) else sorted(left))
    assert (tmp_path / "notes").is_dir()


def test_what_a_killed_process_had_not_finished_goes_too(tmp_path: Path) -> None:
    for name in ("epoch_00004", ".epoch_00005.k3j2", ".hidden"):
        (tmp_path / name).mkdir()
    prune_states(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "epoch_00004"]


def test_prefixes() -> None:
    tensors = {"a.b": torch.ones(1)}
    both = {**with_prefix("w", tensors), **with_prefix("ww", {"c": torch.zeros(1)})}
    assert set(both) == {"w/a.b", "ww/c"}
    assert without_prefix("w", both) == tensors
