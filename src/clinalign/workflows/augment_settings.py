"""What ``augment`` can be told, and the folder that remembers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinalign.augmentation.learn import LearnSettings
from clinalign.augmentation.plan import PlanRules
from clinalign.core.errors import UserError
from clinalign.core.files import write_json

SETTINGS = "settings.json"


@dataclass(frozen=True)
class AugmentSettings:
    """What ``augment`` can be told.

    Attributes:
        classes: Attributes that are classes; the dataset's only group of diagnoses when empty.
        subgroups: Columns or attributes that divide a class into cells.
        rules: When a cell is rare and how far it is filled.
        learn: How classifiers are trained; its ``augmentation`` is replaced by that of the dataset's modality.
        arms: Names of the arms; all when empty.
        seeds: Number of training seeds, 0, 1, 2, ...
        seed: Of prompts, noise and resamples.
        pass_rate: Share of the real images of a class that would pass the judge's filter.
        every_class: Pictures of each class drawn for training or testing on generated images alone; 0 for none.
        fill_unmeasured: Fill cells whose fidelity cannot be measured; the result says so.
        steps: Denoising steps; ``None`` takes those of the run, else 20.
        guidance: Guidance scale; ``None`` takes that of the run, else 5.
        eta: Stochasticity of DDIM; ``None`` takes that of the run, else 1.
        batch_size: Images drawn at once; derived when ``None``, never a result.
        rewards: Folders of reward models that the judge must not be; those of a run are found by themselves.
        allow_reward_evaluator: Go on with a judge that is not independent, and say so in the result.
        resamples: Bootstrap resamples.
        device: ``auto``, ``cpu`` or ``cuda``.
        real_images: Show real images on the report page.
        report: Build the report page.
    """

    classes: tuple[str, ...] = ()
    subgroups: tuple[str, ...] = ()
    rules: PlanRules = field(default_factory=PlanRules)
    learn: LearnSettings = field(default_factory=LearnSettings)
    arms: tuple[str, ...] = ()
    seeds: int = 5
    seed: int = 0
    pass_rate: float = 0.8
    every_class: int = 200
    fill_unmeasured: bool = False
    steps: int | None = None
    guidance: float | None = None
    eta: float | None = None
    batch_size: int | None = None
    rewards: tuple[Path, ...] = ()
    allow_reward_evaluator: bool = False
    resamples: int = 1000
    device: str = "auto"
    real_images: bool = True
    report: bool = True

    def __post_init__(self) -> None:
        """Refuse what makes no experiment.

        Raises:
            UserError: Naming the option.
        """
        if self.seeds < 1:
            raise UserError(f"--seeds {self.seeds}: write a number of at least 1 (5 are usual)")
        if not 0 < self.pass_rate <= 1:
            raise UserError(f"--pass-rate {self.pass_rate:g}: write a share of the real images, above 0 and at most 1")
        if self.every_class < 0:
            raise UserError(f"--every-class {self.every_class}: write a number of images, or 0 for none")
        if self.resamples < 2:
            raise UserError(f"{self.resamples} bootstrap resamples: give at least 2 (1000 is usual)")


def take_folder(out: Path, told: Mapping[str, Any]) -> None:
    """Take the output folder, or go on in it when it holds the same experiment.

    Args:
        out: The folder.
        told: Everything that decides the pictures and the trainings; arms and seeds are not among it, they may be
            added.

    Raises:
        UserError: When it holds something else, or the same experiment with another setting, which is named.
    """
    if out.is_file():
        raise UserError(f"{out} is a file: choose a folder with --out")
    content = json.loads(json.dumps(dict(told), default=str))
    if out.is_dir() and any(out.iterdir()):
        try:
            former = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{out} is not empty and holds no augmentation: choose another --out") from error
        for key, value in content.items():
            if former.get(key) != value:
                raise UserError(
                    f"{out} holds an augmentation with another '{key}' ({former.get(key)}, now {value}): choose "
                    "another --out, or give the settings of before to go on"
                )
    write_json(out / SETTINGS, content)
