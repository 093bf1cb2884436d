from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.data.prepared import PreparedDataset
from clinalign.generation import pretrain_denoiser
from clinalign.generation.generator import Generator
from clinalign.generation.noising import prediction_target
from clinalign.generation.pretrain_denoiser import DenoiserTraining
from clinalign.workflows import train_base as module
from clinalign.workflows.train_base import CARD, STATE, BaseSettings, latent_source, train_base

# fp32 because what `auto` finds out depends on how busy the machine is
SETTINGS = BaseSettings(steps=5, autoencoder_steps=2, batch_size=4, width=16, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def base(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base generator, trained from scratch without interruption."""
    out = tmp_path_factory.mktemp("base") / "base"
    with pytest.MonkeyPatch.context() as patch:
        often(patch)
        train_base(tiny.data, out, SETTINGS)
    return out


def often(patch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint every two steps."""
    patch.setattr(module, "DenoiserTraining", functools.partial(DenoiserTraining, checkpoint_every=2))


def interrupt(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let the user press Ctrl-C in a step of the denoiser."""
    calls = []

    def target(*inputs: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return prediction_target(*inputs)

    patch.setattr(pretrain_denoiser, "prediction_target", target)


def all_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.parent.name}/{name}": value
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def test_from_scratch_it_opens_in_plain_diffusers(tiny: Any, base: Path) -> None:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    text = PreparedDataset.open(tiny.data).cases("train")[0].text
    picture = pipeline(text, num_inference_steps=2, output_type="np").images
    assert picture.shape == (1, 16, 16, 3)
    assert not (base / STATE).exists()  # checkpoints are gone with the end
    assert list(base.parent.iterdir()) == [base]


def test_the_card_says_what_it_was_made_of(tiny: Any, base: Path) -> None:
    card = json.loads((base / CARD).read_text())
    assert card["complete"] is True
    assert card["dataset"] == PreparedDataset.open(tiny.data).fingerprint
    assert card["settings"]["steps"] == card["denoiser"]["steps"] == 5
    assert card["cases"] == len(PreparedDataset.open(tiny.data).cases("train"))
    assert card["truncated_texts"] == []  # the encoder was made for these texts
    assert 0 < card["loss"] < 10
    assert 0 < card["seconds"]["autoencoder"] <= card["seconds"]["total"]


def test_a_finished_training_is_not_done_again(tiny: Any, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (base / CARD).stat().st_mtime_ns
    assert train_base(tiny.data, base, SETTINGS)["complete"] is True
    assert "is complete already" in capsys.readouterr().err
    assert (base / CARD).stat().st_mtime_ns == before


def test_interrupted_and_started_again_it_is_bitwise_the_same(
    tiny: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "base"
    often(monkeypatch)
    with monkeypatch.context() as patch:
        interrupt(patch, step=4)
        with pytest.raises(KeyboardInterrupt):
            train_base(tiny.data, out, SETTINGS)
    with pytest.raises(UserError, match=r"model_index.json is missing"):
        Generator.load(out)  # half a training is no model

    def again(*inputs: Any) -> Any:
        raise AssertionError("autoencoder and tokenizer were finished before the interruption")

    monkeypatch.setattr(module, "train_autoencoder", again)
    monkeypatch.setattr(module, "fit_tokenizer", again)
    train_base(tiny.data, out, SETTINGS)
    whole, resumed = all_weights(base), all_weights(out)
    assert set(whole) == set(resumed)
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
    texts, seeds = ["a dermoscopic image", "ink"], [1, 2]
    assert torch.equal(
        Generator.load(out).generate(texts, seeds, steps=2), Generator.load(base).generate(texts, seeds, steps=2)
    )


def test_fine_tuning_trains_the_denoiser_alone(tiny: Any, tmp_path: Path) -> None:
    settings = replace(SETTINGS, from_model=str(tiny.model), steps=2, learning_rate=1e-3)
    card = train_base(tiny.data, tmp_path / "tuned", settings)
    assert card["autoencoder_psnr"] is None
    assert card["denoiser"]["ema_decay"] == 0.9999
    before, after = all_weights(tiny.model), all_weights(tmp_path / "tuned")
    changed = {name.split("/")[0] for name, value in before.items() if not torch.equal(after[name], value)}
    assert set(before) == set(after)
    assert changed == {"unet"}
    Generator.load(tmp_path / "tuned")


def test_fine_tuning_a_run_keeps_what_tuning_added(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a training that changes nothing leaves the tuned generator, its adapter made a part of the weights
    monkeypatch.setattr(module, "train_denoiser", lambda *inputs: 0.0)
    train_base(tiny.data, tmp_path / "out", replace(SETTINGS, from_model=str(tiny.run), steps=1))
    texts, seeds = ["a dermoscopic image", "ink"], [1, 2]
    tuned = Generator.load(tiny.run).generate(texts, seeds, steps=2)
    # rounding of W x + B A x against (W + B A) x; the adapter itself moves pixels by 0.01 and more
    torch.testing.assert_close(
        Generator.load(tmp_path / "out").generate(texts, seeds, steps=2), tuned, rtol=0, atol=1e-4
    )


def test_texts_past_the_limit_are_counted_and_kept_by_id(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = PreparedDataset.cases

    def longer(dataset: PreparedDataset, split: str | None = None) -> list[Any]:
        first, *others = cases(dataset, split)
        return [replace(first, text=first.text + " ink" * 100), *others]

    monkeypatch.setattr(PreparedDataset, "cases", longer)
    card = train_base(tiny.data, tmp_path / "out", replace(SETTINGS, from_model=str(tiny.model), steps=1))
    assert card["truncated_texts"] == [PreparedDataset.open(tiny.data).cases("train")[0].case_id]
    assert "1 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0: at least 1"),
        ({"batch_size": -1}, "batch_size is -1: at least 1"),
        ({"autoencoder_steps": 0}, "autoencoder_steps is 0: at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: above 0"),
        ({"caption_dropout": 1.5}, "caption_dropout is 1.5: from 0 to 1"),
        ({"width": 40}, "width is 40: a multiple of 16, such as 32 or 48"),
        ({"width": 8}, "width is 8: a multiple of 16, such as 16 or 32"),
        ({"split": "trian"}, "trian"),
        ({"device": "gpu"}, "unknown device 'gpu': auto, cpu, cuda or cuda:0"),
        ({"from_model": "./nowhere"}, "model folder nowhere does not exist"),
    ],
)
def test_wrong_settings_are_refused_before_the_folder_is_taken(
    tiny: Any, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train_base(tiny.data, tmp_path / "out", replace(SETTINGS, **settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("pixels", "fine_tuned", "message"),
    [
        (32, True, r"the model draws 16 px and .* has 32 px: prepare .* --image-size 16"),
        (40, False, r"images of 40 px cannot be trained from scratch: sizes are 16, 32"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int, fine_tuned: bool, message: str
) -> None:
    opened = PreparedDataset.open(tiny.data)
    opened.image_size = pixels
    monkeypatch.setattr(PreparedDataset, "open", lambda path: opened)
    with pytest.raises(UserError, match=message):
        train_base(tiny.data, tmp_path / "out", replace(SETTINGS, from_model=str(tiny.model) if fine_tuned else None))
    assert not (tmp_path / "out").exists()


def make_file(out: Path) -> None:
    out.write_text("notes")


def make_foreign(out: Path) -> None:
    out.mkdir()
    (out / "thesis.doc").write_text("years of work")


def make_broken(out: Path) -> None:
    out.mkdir()
    (out / CARD).write_text("{")


def make_other(out: Path) -> None:
    out.mkdir()
    (out / CARD).write_text(json.dumps({"settings": {"steps": 7}, "dataset": "x", "version": "0"}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_file, "is a file: choose a folder with --out"),
        (make_foreign, "is not empty and was not made by `train base`: choose another --out"),
        (make_broken, "is not readable as JSON"),
        (make_other, "holds another training .other settings or data.: choose another --out or delete it"),
    ],
)
def test_a_folder_that_holds_something_else_is_left_alone(
    tiny: Any, tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "out")
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(UserError, match=message):
        train_base(tiny.data, tmp_path / "out", SETTINGS)
    assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_other_settings_in_the_same_folder_are_refused(tiny: Any, base: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(base, tmp_path / "base"))
    with pytest.raises(UserError, match=r"holds another training"):
        train_base(tiny.data, out, replace(SETTINGS, seed=1))


def test_what_a_killed_process_left_of_its_card_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / f".{CARD}.123.tmp").write_text("{")
    assert not module._finished(tmp_path, {})


def test_mirror_images_are_served_where_asked(generator: Any) -> None:
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 16, 16), generator=chance, dtype=torch.uint8)
    plain = latent_source(generator, images, flips=False)(torch.tensor([0, 2, 2]), chance)
    torch.testing.assert_close(plain[1], plain[2], rtol=0, atol=0)
    direct = generator.encode_images(images.float() / 255)
    torch.testing.assert_close(plain, direct[[0, 2, 2]], rtol=0, atol=1e-5)  # another batch: rounding alone
    serve = latent_source(generator, images, flips=True)
    served = serve(torch.zeros(64, dtype=torch.long), chance)
    distinct = served.unique(dim=0)
    assert len(distinct) == 4  # itself, mirrored, upside down, both
    mirrored = generator.encode_images(images[:1].flip(-1).float() / 255)[0]
    assert min((row - mirrored).abs().max() for row in distinct) < 1e-5


def test_condition_tokens_are_learnt_alone(tiny: Any, tmp_path: Path) -> None:
    settings = BaseSettings(from_model=str(tiny.model), steps=4, batch_size=8, ace_tokens=2, learning_rate=0.1)
    train_base(tiny.data, tmp_path / "prompted", settings)
    before, after = Generator.load(tiny.model), Generator.load(tmp_path / "prompted")
    assert after.ace is not None
    assert after.ace.tokens.shape == (2, before.text_width)
    for part in ("unet", "text_encoder", "vae"):
        old, new = (getattr(generator, part).state_dict() for generator in (before, after))
        assert all(torch.equal(old[name], new[name]) for name in old)
    before.add_ace(2, derive_seed(0, "ace"))
    assert (after.ace.tokens - before.ace.tokens).abs().max() > 0.01  # type: ignore[union-attr]
    with pytest.raises(UserError, match="carries condition tokens, which cannot become a part of its weights"):
        train_base(tiny.data, tmp_path / "more", BaseSettings(from_model=str(tmp_path / "prompted"), steps=1))
    with pytest.raises(UserError, match="for a model that exists: give it with --from"):
        train_base(tiny.data, tmp_path / "none", BaseSettings(ace_tokens=2))
    with pytest.raises(UserError, match=r"balance is 0.5: 1 or more"):
        train_base(tiny.data, tmp_path / "none", BaseSettings(balance=0.5))
    with pytest.raises(UserError, match=r"snr_gamma is -1.0: 0 or more"):
        train_base(tiny.data, tmp_path / "none", BaseSettings(snr_gamma=-1.0))
    with pytest.raises(UserError, match="ace_tokens is 17: from 0 to 16"):
        train_base(tiny.data, tmp_path / "none", BaseSettings(from_model=str(tiny.model), ace_tokens=17))
