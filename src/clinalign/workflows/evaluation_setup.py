"""Everything an evaluation needs before it looks at a generated image: cases, instruments, and the real images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clinalign.core.config import TuneConfig
from clinalign.core.errors import UserError
from clinalign.core.progress import track
from clinalign.core.types import Case, Extractor, Reward
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.extractors import load_extractor
from clinalign.evaluation.independence import check_independence
from clinalign.evaluation.subgroups import ALIGNMENT, FIDELITY
from clinalign.evaluation.suite import case_groups
from clinalign.networks.classifier import AttributeClassifier
from clinalign.networks.lpips import load_lpips
from clinalign.networks.network_folder import read_card
from clinalign.rewards import load_reward
from clinalign.workflows.evaluation_cases import MINIMUM_CASES, artifact_attributes, judged_attributes, select_cases
from clinalign.workflows.evaluation_measure import Instruments, Measured, measure, real_prompt_ids

READ_AT_ONCE = 64  # real images
# What the mean of an evaluator of a kind is called; the kind itself where it is not here.
METRIC_OF = {"consistency": "clip_score"}
_DATASET_FACTS = ("source", "modality", "licence", "citation", "image_size")


@dataclass(frozen=True)
class EvaluateSettings:
    """What ``evaluate`` can be told.

    Attributes:
        split: Split whose prompts are asked and whose images are the reference.
        cases: Most cases; chosen so that rare prompts are all there.
        images_per_case: Images drawn for each case.
        seed: Of the choice of cases, the noise and the resamples.
        steps: Denoising steps; ``None`` takes those of the run, else 20.
        guidance: Guidance scale; ``None`` takes that of the run, else 5.
        eta: Stochasticity of DDIM; ``None`` takes that of the run, else 1.
        attributes: Judge these only; empty for those that the texts speak of.
        extractors: Further feature extractors beside the evaluator's features, for example ``inception:FILE``.
        scorers: Folders of further evaluators, of any other kind that ``train reward --split judge`` makes (posture,
            consistency, region): the mean of each is a metric.
        lpips: File of AlexNet's weights; LPIPS is measured only with it.
        subgroup_minimum: Images that a subgroup needs on each side.
        subgroup_minimum_fidelity: The same for its FID and KID.
        rewards: Folders of reward models that the evaluator must not be; those of a run are found by themselves.
        allow_reward_evaluator: Go on with an evaluator that is not independent, and say so in the result.
        keep_images: Write so many images; ``None`` writes all.
        real_images: Show real images beside generated ones; off for data that must not be passed on.
        batch_size: Images drawn at once; derived when ``None``, never a result.
        device: ``auto``, ``cpu`` or ``cuda``.
        resamples: Bootstrap resamples.
        report: Build the report page too.
        privacy: Look for memorised training images.
        train_split: What the generator was trained on.
        identity: Folder of an encoder by ``train identity``, for privacy.
    """

    split: str = "test"
    cases: int = 512
    images_per_case: int = 1
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    eta: float | None = None
    attributes: tuple[str, ...] = ()
    extractors: tuple[str, ...] = ()
    scorers: tuple[Path, ...] = ()
    lpips: Path | None = None
    subgroup_minimum: int = ALIGNMENT
    subgroup_minimum_fidelity: int = FIDELITY
    rewards: tuple[Path, ...] = ()
    allow_reward_evaluator: bool = False
    keep_images: int | None = 64
    real_images: bool = True
    batch_size: int | None = None
    device: str = "auto"
    resamples: int = 1000
    report: bool = True
    privacy: bool = False
    train_split: str = "train"
    identity: Path | None = None


@dataclass(frozen=True)
class Bench:
    """What images are measured against and with.

    Attributes:
        dataset: The prepared dataset.
        cases: The chosen cases, each once.
        instruments: What measures.
        real: What the real images of the cases gave.
        left_out: Attribute to the reason why it is not judged.
        notes: What a reader of the numbers must know.
    """

    dataset: PreparedDataset
    cases: list[Case]
    instruments: Instruments
    real: Measured
    left_out: dict[str, str]
    notes: list[str]

    def facts(self, settings: EvaluateSettings) -> dict[str, Any]:
        """Return what ``evaluation.json`` says of all this."""
        card = self.instruments.evaluator.card
        return {
            "evaluator": {
                "identity": self.instruments.evaluator.identity,
                "split": card.get("split"),
                "dataset": card.get("dataset"),
            },
            "extractors": {name: extractor.identity for name, extractor in self.instruments.extractors.items()},
            "lpips": None if settings.lpips is None else settings.lpips.name,
            "scorers": {name: scorer.identity for name, scorer in self.instruments.scorers.items()},
            "dataset": {
                **{key: self.dataset.info[key] for key in _DATASET_FACTS if key in self.dataset.info},
                "fingerprint": self.dataset.fingerprint,
                "split": settings.split,
            },
            "cases": len(self.cases),
            "texts": len({case.text for case in self.cases}),
            "groups": len(set(case_groups(self.cases))),
            "attributes": list(self.instruments.judged),
            "thresholds": self.instruments.thresholds,
            "attributes_left_out": self.left_out,
            "seed": settings.seed,
            "resamples": settings.resamples,
            "allow_reward_evaluator": settings.allow_reward_evaluator,
            "notes": self.notes,
        }


def check_settings(settings: EvaluateSettings) -> None:
    """Refuse numbers that make no evaluation.

    Raises:
        UserError: Naming the first.
    """
    if settings.cases < MINIMUM_CASES:
        raise UserError(f"--cases {settings.cases}: an evaluation needs at least {MINIMUM_CASES}")
    for name in ("images_per_case", "batch_size", "subgroup_minimum", "subgroup_minimum_fidelity"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: write a number of at least 1")
    if settings.identity is not None and not settings.privacy:
        raise UserError("--identity is an encoder for --privacy: give both, or neither")
    if settings.resamples < 2:
        raise UserError("an interval needs at least 2 resamples: 1000 are usual")


def need_evaluator(evaluator: str | Path | None) -> str | Path:
    """Return the evaluator's folder.

    Raises:
        UserError: When there is none.
    """
    if evaluator is None:
        raise UserError(
            "evaluate needs --evaluator DIR, a classifier that never rewarded: train one with "
            "`clinalign train reward attributes --split judge --data DIR --out DIR`"
        )
    return evaluator


def open_bench(
    data: str | Path,
    evaluator: str | Path,
    settings: EvaluateSettings,
    config: TuneConfig | None,
    device: torch.device,
    image_size: int | None = None,
    choose: Callable[[Sequence[Case]], list[Case]] | None = None,
) -> Bench:
    """Open dataset, evaluator and extractors, check that they fit, and measure the real images.

    Args:
        data: Prepared dataset.
        evaluator: Folder of the evaluator.
        settings: See :class:`EvaluateSettings`.
        config: Of the run that is evaluated, whose rewards the evaluator must not be.
        device: Where networks compute.
        image_size: Side of the generated images in pixels, which must be the dataset's.
        choose: Maps the split's cases to those evaluated; :func:`select_cases` when ``None``.

    Raises:
        UserError: For whatever is missing, does not fit or is not independent; before any image is drawn.
    """
    dataset = PreparedDataset.open(data)
    if image_size not in (None, dataset.image_size):
        raise UserError(
            f"the model draws {image_size} px and {data} has {dataset.image_size} px: prepare the data with "
            f"--image-size {image_size}"
        )
    split = dataset.cases(settings.split)
    judge = AttributeClassifier.load(evaluator, device)
    extractors = _extractors(evaluator, settings.extractors, dataset.image_size, device)
    lpips = None if settings.lpips is None else load_lpips(settings.lpips, device)
    notes = _independence(judge.card, dataset, settings, config, extractors)
    scorers, told = _scorers(dataset, settings, config, device)
    notes = list(dict.fromkeys([*notes, *told]))
    judged, left_out = judged_attributes(dataset, judge.attribute_names, settings.attributes)
    cases = choose(split) if choose else select_cases(split, settings.cases, settings.seed, judged)
    if len(cases) < MINIMUM_CASES:
        raise UserError(
            f"{data} has {len(cases)} usable cases in split '{settings.split}', an evaluation needs at least "
            f"{MINIMUM_CASES}: prepare more cases, or give another --split"
        )
    artifacts = artifact_attributes(judged)
    instruments = Instruments(judge, extractors, judged, artifacts, settings.resamples, settings.seed, scorers, lpips)
    parts = [cases[start : start + READ_AT_ONCE] for start in range(0, len(cases), READ_AT_ONCE)]
    batches = (dataset.images(part) for part in track(parts, "measuring real images"))
    real = measure(batches, cases, instruments, real_prompt_ids(cases))
    return Bench(dataset, cases, instruments, real, left_out, notes)


def _extractors(
    evaluator: str | Path, further: Sequence[str], image_size: int, device: torch.device
) -> dict[str, Extractor]:
    """Open the evaluator's own features, radiomics and the further extractors, each under a name of its own.

    Raises:
        UserError: When one cannot be opened, or radiomics are asked for at two sizes.
    """
    found: dict[str, Extractor] = {}
    sized = [spec for spec in further if spec.startswith("radiomics:")]
    if len(sized) > 1:
        raise UserError(f"radiomics at two sizes ({', '.join(sized)}): one is FRD's, give one")
    for spec in (f"domain:{evaluator}", *further, *(() if sized else (f"radiomics:{image_size}",))):
        name = spec.partition(":")[0]
        name = name if name not in found else f"{name}{len(found) + 1}"
        found[name] = load_extractor(spec, device)
    return found


def _scorers(
    dataset: PreparedDataset, settings: EvaluateSettings, config: TuneConfig | None, device: torch.device
) -> tuple[dict[str, Reward], list[str]]:
    """Open the further evaluators, each under the name of its metric, check that none of them rewarded, and note what.

    Raises:
        UserError: When one cannot be opened, is not independent, or two measure the same.
    """
    found: dict[str, Reward] = {}
    notes: list[str] = []
    for folder in settings.scorers:
        card = read_card(folder)
        name = METRIC_OF.get(str(card["kind"]), str(card["kind"]))
        if name in found:
            raise UserError(f"two scorers measure '{name}', the second is {folder}: give one of a kind")
        notes += [f"{name}: {note}" for note in _independence(card, dataset, settings, config, {})]
        found[name] = load_reward(str(card["kind"]), folder, device=device)
    return found, notes


def _independence(
    judge: Mapping[str, Any],
    dataset: PreparedDataset,
    settings: EvaluateSettings,
    config: TuneConfig | None,
    extractors: Mapping[str, Extractor],
) -> list[str]:
    """Check that neither evaluator nor extractors rewarded; return notes for the result."""
    folders = [
        *settings.rewards,
        *(folder for reward in (config.rewards if config else ()) for folder in reward.folders),
    ]
    cards = [reward_card(folder, settings.allow_reward_evaluator) for folder in dict.fromkeys(folders)]
    notes = check_independence(judge, cards, settings.allow_reward_evaluator)
    for name, extractor in extractors.items():
        if any(card.get("identity", "-") in extractor.identity for card in cards):
            if not settings.allow_reward_evaluator:
                raise UserError(f"extractor '{name}' is a reward of this run: fidelity would be what was trained on")
            notes.append(f"not independent: extractor '{name}' is a reward of this run")
    if judge.get("dataset") == dataset.fingerprint and judge.get("split") == settings.split:
        raise UserError(
            f"the evaluator was trained on split '{settings.split}', which it is to judge here: give another --split"
        )
    if judge.get("dataset") != dataset.fingerprint:
        notes.append("the evaluator was trained on another dataset than the one evaluated")
    if not folders and config is None:
        notes.append("no reward is known, so the evaluator could not be compared with one")
    return notes


def reward_card(folder: Path, allow: bool) -> dict[str, Any]:
    """Return the card of a reward model: the JSON file in its folder that states the weights' hash.

    Args:
        folder: The reward's folder.
        allow: Return an empty card where there is none.

    Raises:
        UserError: When there is none and ``allow`` is off.
    """
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            card = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(card, dict) and "weights_hash" in card:
            return card
    if allow:
        return {}
    raise UserError(
        f"reward {folder} has no card, so it is not known whether the evaluator is independent of it: put the folder "
        "back, or add --allow-reward-evaluator, which the result will say"
    )
