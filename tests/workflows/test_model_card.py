"""The model card: what the hub reads of it, what a person reads of it, and what must never stand in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from clinalign.core.errors import UserError
from clinalign.workflows.model_card import may_write_card, plain
from clinalign.workflows.model_licence import Base, hub_licence, read_base, terms_of
from clinalign.workflows.report import export_report

JUDGE, DOMAIN = {"evaluator": "classifier:resnet10t:1a2b"}, {"extractor": "domain:resnet10t:1a2b:size=64"}
SECRET = str(Path("/", "home", "jane", "clinic", "films"))  # a path of somebody's machine
PATIENT = "patient-4711"


def entry(value: float, low: float, high: float, n: int = 256, **more: Any) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": n, **more}


METRICS = {
    "base/alignment/attribute_accuracy": entry(0.80, 0.78, 0.82, **JUDGE),
    "tuned/alignment/attribute_accuracy": entry(0.90, 0.88, 0.92, **JUDGE),
    "real/alignment/attribute_accuracy": entry(0.95, 0.94, 0.96, **JUDGE),
    "change/alignment/attribute_accuracy": entry(0.10, 0.08, 0.12, **JUDGE),
    "base/fidelity/fid": entry(12.0, 11.0, 13.0, **DOMAIN),
    "tuned/fidelity/fid": entry(16.5, 15.0, 18.0, **DOMAIN),
    "real/fidelity/fid": entry(4.0, 3.0, 5.0, n=128, **DOMAIN),
    "change/fidelity/fid": entry(4.5, 3.0, 6.0, **DOMAIN),
    "tuned/subgroup/sex=female/alignment/attribute_accuracy": entry(0.91, 0.88, 0.94, n=140, **JUDGE),
}
DATASET = {
    "source": "ham10000", "modality": "dermoscopy", "licence": "CC BY-NC 4.0", "citation": "Tschandl et al., 2018",
    "image_size": 64, "counts": {"train": 4698, "test": 1269}, "groups": {"train": 3137, "test": 1097},
}  # fmt: skip


def make_run(folder: Path, dataset: dict[str, Any] | None = None, base: dict[str, Any] | None = None) -> Path:
    """A run with an evaluation, full of what belongs to one machine and to one patient."""
    (folder / "evaluation").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "model" / "pytorch_lora_weights.safetensors").write_bytes(b"weights")
    config = {
        "seed": 7, "data": {"path": f"{SECRET}/data"},
        "generator": {"model": f"{SECRET}/base", "adapter": {"kind": "lora", "rank": 8}},
        "rollout": {"steps": 10, "guidance": 1.5, "eta": 1.0, "prompts_per_epoch": 12, "images_per_prompt": 8},
        "rewards": [{"name": "attributes", "path": f"{SECRET}/reward", "weight": 2.0}],
        "feedback": {"name": "absolute"}, "objective": {"name": "awm"}, "train": {"learning_rate": 0.002},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [{"epoch": 20, "reward/mean": 0.7, "network_evaluations": 123456}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made_of = {
        "clinalign": "0.1.0", "versions": {"torch": "2.14.0"}, "generator": "base:77aa", "reward": "sum:55bb",
        "dataset": {"path": f"{SECRET}/data", "fingerprint": "33cc", **(DATASET if dataset is None else dataset)},
        "base": {"hub_id": "", "from_scratch": True, "licence": ""} if base is None else base,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(made_of))
    (folder / "evaluation" / "metrics.json").write_text(json.dumps(METRICS))
    facts = {
        "base": {"truncated_prompts": [PATIENT]}, "cases": 256, "groups": 200, "seed": 0,
        "dataset": {"split": "test"}, "notes": [f"the evaluator lies in {SECRET}/evaluator"],
    }  # fmt: skip
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(facts))
    pair = {"case_id": PATIENT, "text": "Chest of Jane Doe", "attributes": {}}
    (folder / "evaluation" / "pairs.json").write_text(json.dumps([pair]))
    return folder


def card_of(run: Path) -> ModelCard:
    path = export_report(run, card=True)["card"]
    assert path == run / "model" / "README.md"
    return ModelCard.load(path)


def section(card: ModelCard, heading: str) -> str:
    return card.text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


class TestHeader:
    def test_the_hub_reads_licence_tags_and_results(self, tmp_path: Path) -> None:
        data = card_of(make_run(tmp_path / "run")).data
        assert data.license == "cc-by-nc-4.0"
        assert (data.library_name, data.pipeline_tag, data.datasets) == ("diffusers", "text-to-image", ["ham10000"])
        assert {"lora", "medical", "text-to-image", "synthetic", "dermoscopy", "non-commercial"} <= set(data.tags)
        assert data.base_model is None  # built here: nothing on the hub to point at
        results = {result.metric_type: result for result in data.eval_results}
        assert set(results) == {"attribute_accuracy", "fid"}  # of the tuned model, of all images
        fid = results["fid"]
        assert (fid.metric_value, fid.dataset_type, fid.dataset_split) == (16.5, "ham10000", "test")
        assert fid.metric_args == {"n": 256, "ci95": [15.0, 18.0], "measured_with": DOMAIN["extractor"]}

    def test_the_card_survives_the_hubs_own_library(self, tmp_path: Path) -> None:
        card = card_of(make_run(tmp_path / "run"))
        card.save(tmp_path / "again.md")
        again = ModelCard.load(tmp_path / "again.md")
        assert again.data.to_dict() == card.data.to_dict()
        assert again.text == card.text

    def test_a_model_of_the_hub_is_named(self, tmp_path: Path) -> None:
        base = {"hub_id": "owner/model", "from_scratch": False, "licence": "creativeml-openrail-m"}
        card = card_of(make_run(tmp_path / "run", base=base))
        assert card.data.base_model == "owner/model"
        assert (card.data.license, card.data.license_name) == ("other", "cc-by-nc-4.0-and-creativeml-openrail-m")
        assert "creativeml-openrail-m" in section(card, "Licence")

    def test_a_run_that_was_not_evaluated_claims_nothing(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        (run / "evaluation" / "metrics.json").unlink()
        card = card_of(run)
        assert card.data.eval_results is None
        assert "**Not evaluated.**" in section(card, "Evaluation")
        assert "This run was not evaluated" in section(card, "Limits")


class TestText:
    def test_every_section_that_a_reader_needs(self, tmp_path: Path) -> None:
        card = card_of(make_run(tmp_path / "run"))
        assert "Synthetic images, for research only. This is not a medical device." in card.text
        assert "Diagnosis, treatment, triage" in section(card, "Out of scope")
        data = section(card, "Training data")
        assert "| train | 4698 | 3137 |" in data
        assert "Tschandl et al., 2018" in data
        training = section(card, "Training")
        for expected in (
            "awm",
            "attributes, weight 2.0",
            "sum:55bb",
            "20 epochs, 123,456 network evaluations",
            "Seed: 7",
        ):
            assert expected in training
        for expected in ("base:77aa", "33cc", "torch | 2.14.0", *JUDGE.values(), *DOMAIN.values()):
            assert expected in section(card, "Versions and hashes")

    def test_numbers_have_interval_n_and_identity(self, tmp_path: Path) -> None:
        evaluation = section(card_of(make_run(tmp_path / "run")), "Evaluation")
        assert (
            "| FID ↓ | 12.0 [11.0, 13.0] | 16.5 [15.0, 18.0] | +4.50 [3.00, 6.00] | 4.00 [3.00, 5.00] (n 128) | 256 | "
            f"{DOMAIN['extractor']} |" in evaluation
        )
        assert "| sex: female | 140 | after 91.0 % |" in evaluation

    def test_a_config_and_metrics_alone_are_enough(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "config.yaml").write_text("seed: 3\n")
        (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "reward/mean": 0.5}\n')
        card = card_of(tmp_path)
        assert card.data.license == "unknown"
        assert "Objective: unknown" in section(card, "Training")
        assert "Source: unknown" in section(card, "Training data")

    def test_what_got_worse_is_a_limit(self, tmp_path: Path) -> None:
        limits = section(card_of(make_run(tmp_path / "run")), "Limits")
        assert "Pictures look less real than before tuning: FID 16.5" in limits
        assert "Prompts are kept in 90 %" not in limits

    def test_the_lines_that_load_it_are_those_of_the_run(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        code = section(card_of(run), "How to load it")
        assert "pipe.load_lora_weights(folder)" in code
        assert "num_inference_steps=10, guidance_scale=1.5, eta=1.0" in code
        compile(code.split("```python")[1].split("```")[0], "card", "exec")
        (run / "model" / "pytorch_lora_weights.safetensors").unlink()
        (run / "model" / "ace.safetensors").write_bytes(b"")
        code = section(card_of(run), "How to load it")
        assert "load_lora_weights" not in code
        assert "prompt_embeds" in code
        compile(code.split("```python")[1].split("```")[0], "card", "exec")

    def test_no_path_of_a_machine_no_case_and_no_text_of_the_data(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        text = str(card_of(run))
        for private in (SECRET, "jane", "films", PATIENT, "Jane Doe", str(tmp_path)):
            assert private not in text, private
        assert "The evaluator lies in …/evaluator." in text  # the note itself is kept

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (f"in {SECRET}/a.png, twice", "in …/a.png, twice"),
            ("at ~/study/data", "at …/data"),
            ("C:\\Users\\jane\\x", "…/x"),
            ("CC BY-NC 4.0; see https://creativecommons.org/licenses/by-nc/4.0/ and/or 3/4",
             "CC BY-NC 4.0; see https://creativecommons.org/licenses/by-nc/4.0/ and/or 3/4"),
            ("<script>a|b\nc", "&lt;script>a\\|b c"),
        ],
    )  # fmt: skip
    def test_text_of_others_is_made_plain(self, text: str, expected: str) -> None:
        assert plain(text) == expected


class TestLicence:
    SCRATCH = Base(from_scratch=True)

    @pytest.mark.parametrize(
        ("data", "base", "licence", "name", "non_commercial"),
        [
            ("CC BY-NC 4.0", SCRATCH, "cc-by-nc-4.0", "", True),
            ("CC BY 4.0", SCRATCH, "cc-by-4.0", "", False),
            ("CC BY-NC 4.0", Base(licence="mit"), "other", "cc-by-nc-4.0-and-mit", True),
            ("mit", Base(licence="mit"), "mit", "", False),
            ("CC BY 4.0", Base(), "unknown", "", False),  # nobody says what the base is under
            ("unknown: the owner of the folder knows", SCRATCH, "unknown", "", False),
            ("", Base(licence="cc-by-nc-4.0"), "unknown", "", True),  # unknown, and what is known is said
            ("none needed: drawn by this program", SCRATCH, "unknown", "", False),
            ("none needed: drawn by this program", Base(licence="apache-2.0"), "apache-2.0", "", False),
            ("PhysioNet Credentialed, non-commercial", SCRATCH, "other", "physionet-credentialed-non-commercial", True),
        ],
    )
    def test_terms_of_data_and_base_hold_together(
        self, data: str, base: Base, licence: str, name: str, non_commercial: bool
    ) -> None:
        terms = terms_of(data, base)
        assert (terms.licence, terms.name, terms.non_commercial) == (licence, name, non_commercial)

    def test_names_of_the_hub(self) -> None:
        assert hub_licence("CC0") == "cc0-1.0"
        assert hub_licence("Apache 2.0") == "apache-2.0"
        assert hub_licence("ours") is None

    def test_a_non_commercial_licence_is_said_in_words(self, tmp_path: Path) -> None:
        card = card_of(make_run(tmp_path / "run"))
        assert "- Data: CC BY-NC 4.0" in section(card, "Licence")
        assert "**Commercial use is not allowed.**" in section(card, "Licence")
        free = card_of(make_run(tmp_path / "free", DATASET | {"licence": "CC BY 4.0"}))
        assert "ommercial" not in str(free)

    def test_unknown_is_said_as_unknown(self, tmp_path: Path) -> None:
        card = card_of(make_run(tmp_path / "run", {"source": "folder"}, {"hub_id": "", "licence": ""}))
        assert card.data.license == "unknown"
        text = section(card, "Licence")
        assert "- Data: unknown" in text
        assert "- Base model: unknown" in text
        assert "- This model: unknown." in text
        assert "- Citation: unknown" in section(card, "Training data")

    def test_the_base_says_where_it_comes_from(self, tmp_path: Path) -> None:
        folder = tmp_path / "base"
        folder.mkdir()
        assert read_base(str(folder)) == Base()
        (folder / "README.md").write_text("---\nlicense: openrail\n---\n# a model\n")
        assert read_base(str(folder)) == Base(licence="openrail")
        (folder / "README.md").write_text("---\nlicense: [unclosed\n---\n")
        assert read_base(str(folder)) == Base()
        (folder / "clinalign.json").write_text(json.dumps({"settings": {"from_model": None}}))
        assert read_base(str(folder)) == Base(from_scratch=True)
        (folder / "clinalign.json").write_text(json.dumps({"settings": {"from_model": "no/such"}}))
        assert read_base(str(folder)) == Base()  # looks like a hub id, and may be a folder that is gone

    def test_a_hub_id_is_one_where_the_cache_knows_it(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: ours\n---\n")
        files = {"README.md": str(tmp_path / "README.md"), "model_index.json": "cached"}
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, name: files.get(name))
        assert read_base("owner/model") == Base(hub_id="owner/model", licence="ours")


class TestWriting:
    def test_a_card_is_replaced_but_not_one_that_somebody_changed(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        assert may_write_card(run)
        first = str(card_of(run))
        assert may_write_card(run)
        assert str(card_of(run)) == first
        path = run / "model" / "README.md"
        path.write_text(path.read_text(encoding="utf-8").replace("# run", "# my model"), encoding="utf-8")
        assert not may_write_card(run)
        with pytest.raises(UserError, match="was written or changed by hand: move it away"):
            export_report(run, card=True)
        assert "# my model" in path.read_text(encoding="utf-8")

    def test_a_run_without_a_model_has_no_card(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        (run / "model").rename(run / "elsewhere")
        assert not may_write_card(run)
        with pytest.raises(UserError, match="model does not exist yet"):
            export_report(run, card=True)

    def test_an_evaluation_alone_has_no_card(self, tmp_path: Path) -> None:
        (tmp_path / "metrics.json").write_text(json.dumps({"fidelity/fid": entry(1, 0, 2)}))
        with pytest.raises(UserError, match="is an evaluation without a run"):
            export_report(tmp_path, card=True)
