"""The model card: what a tuned model is, for whom, from what, and how well, in the format of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinalign import __version__
from clinalign.core.errors import UserError
from clinalign.core.files import hash_file, hash_json, write_text
from clinalign.core.runs import RunFolder
from clinalign.generation.ace import ACE_FILE
from clinalign.generation.model_folder import LORA_FILE
from clinalign.workflows.model_licence import Base, Terms, is_unknown, read_base, slug, terms_of
from clinalign.workflows.report_findings import Finding
from clinalign.workflows.report_forest import left_out, subgroup_forests
from clinalign.workflows.report_keys import split_key
from clinalign.workflows.report_metrics import Metrics, instrument, interval, meaning, move, value, written
from clinalign.workflows.report_sources import Material
from clinalign.workflows.report_trends import difference
from clinalign.workflows.report_verdicts import Verdict

CARD = "README.md"
_TAGS = (
    "clinalign",
    "diffusers",
    "text-to-image",
    "stable-diffusion",
    "medical",
    "synthetic",
    "reinforcement-learning",
)
_SIGNED = re.compile(r"\n<!-- written by clinalign: ([0-9a-f]+) -->\n\Z")
# A path with at least two parts, of this system or another; not within a word, a URL or a date.
_PATH = re.compile(r"(?<![\w.:/\\-])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}[/\\]?")


def write_card(material: Material, findings: Sequence[Finding], verdicts: Sequence[Verdict]) -> Path:
    """Write ``RUN/model/README.md``.

    Args:
        material: Of a run, with its evaluation where there is one.
        findings: What the report says in sentences; those that are bad become the limits.
        verdicts: Of the report.

    Returns:
        The file.

    Raises:
        UserError: When there is no exported model, or the card in its place was written or changed by hand.
    """
    if material.run is None:
        raise UserError(f"--card: {material.name} is an evaluation without a run; give the output folder of a run")
    folder = RunFolder(material.run).model
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist yet: a card needs the exported model; let the tuning end first")
    path = folder / CARD
    if not _is_ours(path):
        raise UserError(f"{path} was written or changed by hand: move it away to have it written anew")
    text = build_card(material, findings, verdicts)
    write_text(path, f"{text}\n<!-- written by clinalign: {hash_json(text)} -->\n")
    return path


def may_write_card(run: Path) -> bool:
    """Tell whether the card of a run can be written: there is a model, and nobody wrote or changed its card by hand."""
    folder = RunFolder(run).model
    return folder.is_dir() and _is_ours(folder / CARD)


def _is_ours(path: Path) -> bool:
    """Tell whether a card is missing, or is as it was written here."""
    if not path.exists():
        return True
    text = path.read_text(encoding="utf-8", errors="replace")
    signed = _SIGNED.search(text)
    return signed is not None and hash_json(text[: signed.start()]) == signed[1]


def build_card(material: Material, findings: Sequence[Finding], verdicts: Sequence[Verdict]) -> str:
    """Return the card as Markdown with its header of metadata.

    It names no path of a machine, no case, no patient and no text of the data.

    Args:
        material: Of a run.
        findings: See :func:`write_card`.
        verdicts: See :func:`write_card`.
    """
    from huggingface_hub import ModelCard
    from jinja2 import Environment, PackageLoader, StrictUndefined

    base = base_of(material)
    terms = terms_of(str(material.dataset.get("licence") or ""), base)
    environment = Environment(
        loader=PackageLoader("clinalign.workflows"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    body = environment.get_template("model_card.md.j2").render(_content(material, findings, verdicts, base, terms))
    card = ModelCard(f"---\n{_header(material, base, terms)}\n---\n\n{body}")
    return str(card).rstrip() + "\n"


def base_of(material: Material) -> Base:
    """Return what is known of the base model: as the run recorded it, else as it lies on this machine."""
    recorded = material.manifest.get("base")
    if isinstance(recorded, Mapping):
        return Base(**{name: recorded[name] for name in ("hub_id", "from_scratch", "licence") if name in recorded})
    return read_base(str(_section(material.config, "generator").get("model") or ""))


def plain(text: object) -> str:
    """Return a text as one line without paths of a machine and without anything that Markdown would take for a tag."""
    line = " ".join(str(text).split()).replace("<", "&lt;").replace("|", "\\|")
    return _PATH.sub(lambda found: "…/" + re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], line)


def _header(material: Material, base: Base, terms: Terms) -> str:
    from huggingface_hub import ModelCardData

    source = slug(str(material.dataset.get("source") or ""))
    modality = slug(str(material.dataset.get("modality") or ""))
    adapter = material.run is not None and (RunFolder(material.run).model / LORA_FILE).is_file()
    tags = list(_TAGS)
    tags += ["lora"] if adapter else []
    tags += [modality] if modality else []
    tags += ["non-commercial"] if terms.non_commercial else []
    results = _results(material, source or "unknown")
    data = ModelCardData(
        license=terms.licence,
        license_name=terms.name or None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        base_model=base.hub_id or None,
        datasets=[source] if source else None,
        tags=tags,
        model_name=material.name if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _results(material: Material, source: str) -> list[Any]:
    """Return the numbers of the tuned generator as the hub's `model-index` holds them; subgroups stay in the text."""
    from huggingface_hub import EvalResult

    found = []
    for key, entry in material.metrics.items():
        parts, amount = split_key(key), value(material.metrics, key)
        known = meaning(parts.metric)
        if parts.prefix != "tuned" or parts.subgroup or known is None or amount is None:
            continue
        ends = interval(material.metrics, key)
        facts = {"n": entry.get("n"), "ci95": None if ends is None else list(ends), "measured_with": instrument(entry)}
        found.append(
            EvalResult(
                task_type="text-to-image", dataset_type=source, dataset_name=source,
                dataset_split=str(_evaluated(material).get("split") or "test"),
                metric_type=parts.name, metric_name=known.label, metric_value=amount,
                metric_args={name: fact for name, fact in facts.items() if fact},
            )
        )  # fmt: skip
    return found


def _content(
    material: Material, findings: Sequence[Finding], verdicts: Sequence[Verdict], base: Base, terms: Terms
) -> dict[str, Any]:
    config, manifest, dataset = material.config, material.manifest, material.dataset
    folder = RunFolder(material.run).model if material.run is not None else Path()
    last = material.curve[-1] if material.curve else {}
    licence = str(dataset.get("licence") or "")
    adapter = folder / LORA_FILE
    counts, groups = dataset.get("counts") or {}, dataset.get("groups") or {}
    return {
        "name": material.name,
        "phantom": str(dataset.get("source", "")).startswith("phantom"),
        "dataset": _Facts(dataset),
        "data_licence": "unknown: the data state none" if is_unknown(licence) else licence,
        "base": base,
        "base_identity": manifest.get("generator") or "unknown",
        "base_licence": _base_licence(base),
        "terms": terms,
        "splits": [(split, counts[split], groups.get(split, "")) for split in counts],
        "objective": _section(config, "objective"),
        "train": _section(config, "train"),
        "rollout": _section(config, "rollout"),
        "adapter": _section(_section(config, "generator"), "adapter"),
        "feedback": _section(config, "feedback"),
        "rewards": [_Facts(reward) for reward in config.get("rewards") or []],
        "reward_identity": manifest.get("reward") or "unknown",
        "epochs": last.get("epoch"),
        "evaluations": last.get("network_evaluations"),
        "seed": config.get("seed"),
        "improved": [finding.text for finding in findings if finding.kind == "good"],
        "limits": [finding.text for finding in findings if finding.kind == "bad"],
        "remarks": [finding.text for finding in findings if finding.kind == "neutral"],
        "verdicts": verdicts,
        "rows": _rows(material.metrics),
        "subgroups": subgroup_forests(material.metrics),
        "left_out": left_out(material.details),
        "evaluated": _evaluated(material),
        "instruments": list(dict.fromkeys(name for entry in material.metrics.values() if (name := instrument(entry)))),
        "lora": adapter.is_file(),
        "ace": (folder / ACE_FILE).is_file(),
        "weights": hash_file(adapter) if adapter.is_file() else "",
        "sampling": _sampling(_section(config, "rollout")),
        "fingerprint": _section(manifest, "dataset").get("fingerprint") or "unknown",
        "privacy": any(split_key(key).family == "privacy" for key in material.metrics),
        "versions": {"clinalign": manifest.get("clinalign", __version__), **(manifest.get("versions") or {})},
    }


def _base_licence(base: Base) -> str:
    if base.from_scratch:
        return "none of its own: built from nothing on the data below"
    return "unknown: its card is not at hand or states none" if is_unknown(base.licence) else base.licence


def _rows(metrics: Metrics) -> list[tuple[str, ...]]:
    """Return name, before, after, change, real, n and instrument of every metric of the whole test set."""
    found = []
    for key, entry in metrics.items():
        parts = split_key(key)
        known = meaning(parts.metric)
        if parts.prefix != "tuned" or parts.subgroup or known is None or value(metrics, key) is None:
            continue
        change = move(metrics, parts.metric)
        cells = [_cell(metrics, f"{side}/{parts.metric}", known.unit) for side in ("base", "tuned")]
        told = "" if change is None else difference(change, known.unit)
        label = f"{known.label} {'↑' if known.better == 'higher' else '↓'}"
        real = _cell(metrics, f"real/{parts.metric}", known.unit)
        size, real_size = entry.get("n"), metrics.get(f"real/{parts.metric}", {}).get("n")
        real += f" (n {real_size})" if real and real_size != size else ""
        found.append((label, *cells, told, real, "" if size is None else str(size), instrument(entry)))
    return found


def _cell(metrics: Metrics, key: str, unit: str) -> str:
    amount = value(metrics, key)
    return "" if amount is None else " ".join(filter(None, written(amount, unit, interval(metrics, key))))


def _evaluated(material: Material) -> dict[str, Any]:
    """Return on what the evaluation was done: split, cases, groups, seed."""
    details = material.details
    stated = details.get("dataset")
    split = stated.get("split") if isinstance(stated, Mapping) else None
    return {"split": split, "cases": details.get("cases"), "groups": details.get("groups"), "seed": details.get("seed")}


def _sampling(rollout: Mapping[str, Any]) -> str:
    """Return the arguments that draw as the run did; none where it is not known."""
    named = (("num_inference_steps", "steps"), ("guidance_scale", "guidance"), ("eta", "eta"))
    return "".join(f", {argument}={rollout[name]}" for argument, name in named if name in rollout)


class _Facts(dict[str, Any]):
    """A record in which what is not known is ``None``: runs of other versions lack some of it."""

    def __missing__(self, key: str) -> None:
        return None


def _section(tree: Mapping[str, Any], name: str) -> _Facts:
    section = tree.get(name)
    return _Facts(section) if isinstance(section, Mapping) else _Facts()
