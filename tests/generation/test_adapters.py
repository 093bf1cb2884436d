from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clinalign.core.errors import UserError
from clinalign.generation.adapters import adapter_merged, add_lora, load_lora, lora_parameters, save_lora
from clinalign.generation.generator import Generator
from clinalign.generation.model_folder import LORA_FILE


def predict(unet: Any) -> torch.Tensor:
    chance = torch.Generator().manual_seed(0)
    x, text = torch.randn((2, 4, 8, 8), generator=chance), torch.randn((2, 8, 32), generator=chance)
    with torch.no_grad():
        prediction: torch.Tensor = unet(x, torch.tensor([10, 900]), text).sample
    return prediction


def change(unet: Any, by: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in lora_parameters(unet).values():
            parameter.add_(by)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_the_first_policy_is_exactly_the_base(generator: Any, targets: str) -> None:
    base = predict(generator.unet)
    assert lora_parameters(generator.unet) == {}
    add_lora(generator.unet, 2, targets, seed=0)
    assert torch.equal(predict(generator.unet), base)  # B is zero, so W x + 0
    trained = {name for name, parameter in generator.unet.named_parameters() if parameter.requires_grad}
    assert trained == set(lora_parameters(generator.unet))
    assert not any(module.training for module in generator.unet.modules())


def test_all_trains_more_layers_than_attention(generator: Any, tiny: Any) -> None:
    add_lora(generator.unet, 2, "attention", seed=0)
    assert all(".attn" in name for name in lora_parameters(generator.unet))
    other = Generator.load(tiny.model)
    add_lora(other.unet, 2, "all", seed=0)
    assert set(lora_parameters(generator.unet)) < set(lora_parameters(other.unet))
    assert any("conv1" in name for name in lora_parameters(other.unet))


def test_the_seed_decides_the_adapter_and_the_global_stream_is_left_alone(tiny: Any) -> None:
    adapters = []
    for seed in (1, 1, 2):
        generator = Generator.load(tiny.model)
        torch.manual_seed(5)
        add_lora(generator.unet, 2, "attention", seed)
        after = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(after, torch.rand(1))
        adapters.append(torch.cat([p.flatten() for p in lora_parameters(generator.unet).values()]))
    assert torch.equal(adapters[0], adapters[1])
    assert not torch.equal(adapters[0], adapters[2])


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_saved_and_loaded_it_is_the_same(generator: Any, tiny: Any, tmp_path: Path, targets: str) -> None:
    add_lora(generator.unet, 3, targets, seed=0)
    change(generator.unet)
    save_lora(generator.unet, tmp_path)
    other = Generator.load(tiny.model)
    load_lora(other.unet, tmp_path / LORA_FILE)
    assert torch.equal(predict(other.unet), predict(generator.unet))
    assert not any(parameter.requires_grad for parameter in other.unet.parameters())


def test_an_average_can_be_saved_in_place_of_the_weights(generator: Any, tiny: Any, tmp_path: Path) -> None:
    add_lora(generator.unet, 2, "attention", seed=0)
    average = {name: parameter.detach() + 0.3 for name, parameter in lora_parameters(generator.unet).items()}
    save_lora(generator.unet, tmp_path, average)
    other = Generator.load(tiny.model)
    load_lora(other.unet, tmp_path / LORA_FILE)
    change(generator.unet)  # now it holds what was saved
    assert torch.equal(predict(other.unet), predict(generator.unet))


@pytest.mark.parametrize("trained", [True, False])
def test_switching_off_and_on_keeps_what_is_trained(generator: Any, trained: bool) -> None:
    add_lora(generator.unet, 2, "attention", seed=0)
    for parameter in lora_parameters(generator.unet).values():
        parameter.requires_grad_(trained)
    with pytest.raises(ZeroDivisionError), generator.anchor():
        raise ZeroDivisionError
    change(generator.unet)
    on = predict(generator.unet)
    with generator.anchor():
        assert not torch.equal(predict(generator.unet), on)
    assert torch.equal(predict(generator.unet), on)
    assert {parameter.requires_grad for parameter in lora_parameters(generator.unet).values()} == {trained}


def test_an_adapter_of_another_model_is_refused(generator: Any, tiny: Any, tmp_path: Path) -> None:
    tensors = load_file(tiny.run / "model" / LORA_FILE)
    wider = {name: torch.zeros([2 * side for side in value.shape]) for name, value in tensors.items()}
    save_file(wider, tmp_path / LORA_FILE)
    with pytest.raises(UserError, match=r"does not fit the model beside it"):
        load_lora(generator.unet, tmp_path / LORA_FILE)


def test_an_adapter_with_layers_that_the_model_lacks_is_refused(generator: Any, tiny: Any, tmp_path: Path) -> None:
    tensors = load_file(tiny.run / "model" / LORA_FILE)
    more = {name.replace("down_blocks.1", "down_blocks.7"): value.clone() for name, value in tensors.items()}
    save_file({**tensors, **more}, tmp_path / LORA_FILE)
    with pytest.raises(UserError, match=r"does not fit the model|not the same model"):
        load_lora(generator.unet, tmp_path / LORA_FILE)


def test_a_damaged_adapter_is_refused(generator: Any, tiny: Any, tmp_path: Path) -> None:
    content = (tiny.run / "model" / LORA_FILE).read_bytes()
    for damaged in (b"", content[:100], content[:-10]):
        (tmp_path / LORA_FILE).write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot be read: copy or export it again"):
            load_lora(generator.unet, tmp_path / LORA_FILE)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_merged_it_draws_the_same_and_nothing_drifts(generator: Any, targets: str) -> None:
    add_lora(generator.unet, 4, targets, seed=0)
    with torch.no_grad():
        for name, parameter in lora_parameters(generator.unet).items():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in generator.unet.state_dict().items()}

    def draw() -> torch.Tensor:
        return generator.generate(["hair", "ink"], [0, 1], steps=4, guidance=2.0)

    apart = draw()
    with generator.anchor():
        assert float((draw() - apart).abs().max()) > 1e-3  # the adapter matters
        with torch.no_grad(), adapter_merged(generator.unet):
            assert float((draw() - apart).abs().max()) > 1e-3  # and what is switched off is not merged
    with torch.no_grad(), adapter_merged(generator.unet):
        torch.testing.assert_close(draw(), apart, rtol=0, atol=1e-5)  # one product in place of two: float32 rounding
    assert torch.equal(draw(), apart)
    for name, value in generator.unet.state_dict().items():
        assert torch.equal(value, before[name])
    with adapter_merged(generator.unet):  # gradients are on: the adapter must get its own
        generator.predict(
            torch.randn(1, *generator.latent_shape), torch.zeros(1, dtype=torch.long), generator.schedule(4, 1.0),
            generator.encode_text(["hair"]), 1.0,
        )[0].sum().backward()  # fmt: skip
    assert all(parameter.grad is not None for parameter in lora_parameters(generator.unet).values())
