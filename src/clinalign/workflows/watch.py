"""Looking on while a generator is tuned: fixed prompts and noise every few epochs, TensorBoard, the guard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from clinalign.core.config import TuneConfig
from clinalign.core.files import write_json
from clinalign.core.images import to_pil
from clinalign.core.progress import say
from clinalign.core.runs import RunFolder
from clinalign.core.types import Case, RewardResult
from clinalign.data.prepared import PreparedDataset
from clinalign.evaluation.diversity import ms_ssim, prompt_means, text_ids, within_prompt_pairs
from clinalign.evaluation.extractors import FeatureExtractor
from clinalign.generation.generator import Generator
from clinalign.networks.classifier import AttributeClassifier
from clinalign.tuning.feedback import Signal, win_rate
from clinalign.tuning.guards import review
from clinalign.tuning.loop import Tuner
from clinalign.tuning.prompts import PromptSource, Request
from clinalign.workflows.front import Front
from clinalign.workflows.watch_metrics import Look, WatchMetrics
from clinalign.workflows.watch_reference import real_range


class Watch:
    """Looks on: fixed prompts with fixed noise every few epochs, TensorBoard, one line an epoch.

    Args:
        config: The run's config.
        prompts: Where the fixed requests come from.
        generator: The policy.
        run: The run folder.
        evaluator: Independent classifier, if any.
        epoch: Epochs done before; what TensorBoard holds of later ones is hidden.
        dataset: Where the real images lie that the guard compares with.
        weights: Of the run's rewards, by name.
    """

    def __init__(
        self,
        config: TuneConfig,
        prompts: PromptSource,
        generator: Generator,
        run: RunFolder,
        evaluator: AttributeClassifier | None,
        epoch: int,
        dataset: PreparedDataset,
        weights: dict[str, float],
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.config, self.generator, self.run, self.evaluator = config, generator, run, evaluator
        self.requests: list[Request] = prompts.fixed(config.evaluate.prompts, config.evaluate.images_per_prompt)
        self.pairs = within_prompt_pairs(text_ids([r.case for r in self.requests]))
        self.anchor: Signal | None = None
        self.board = SummaryWriter(str(run.logs), purge_step=epoch + 1 if epoch else None)
        self.start = time.perf_counter()
        write_json(
            run.samples / "prompts.json",
            [{"text": r.case.text, "case_id": r.case.case_id, "seed": r.seed} for r in self.requests],
        )
        self.guard = None if config.evaluate.guard == "off" else Guard(self, dataset, weights)

    def look(self, tuner: Tuner, epoch: int) -> dict[str, float]:
        """Draw the fixed requests with the averaged weights, save the grid, and measure them.

        The win rate is against the anchor's pictures of the same noise: 0.5 as long as the policy is the anchor.
        """
        if self.anchor is None:
            with tuner.anchor():
                images = self.draw(tuner)
                scores = self.score(tuner, images)
            self.anchor = Signal(scores.values, scores.valid)
            if self.guard is not None:
                self.guard.anchor = self.guard.metrics.see(images, scores, self.likeness(images))
        with tuner.average.applied_to(tuner.parameters):
            images = self.draw(tuner)
        save_grid(images, self.config.evaluate.images_per_prompt, self.run.samples / f"epoch_{epoch:04d}.png")
        for folder in ("first",) if epoch == 0 else ("last",):
            place = self.run.samples / folder
            place.mkdir(parents=True, exist_ok=True)
            for number, picture in enumerate(to_pil(images)):
                picture.save(place / f"{number:03d}.png")
        scores = self.score(tuner, images)
        seen = {"evaluate/reward": float(scores.values[scores.valid].mean())} if scores.valid.any() else {}
        seen["evaluate/win_rate"] = win_rate(Signal(scores.values, scores.valid), self.anchor)
        if self.evaluator is not None:
            accuracy = attribute_accuracy(self.evaluator, images, [r.case for r in self.requests])
            if accuracy is not None:
                seen["evaluate/attribute_accuracy"] = accuracy
        likeness = self.likeness(images)
        if len(self.pairs.first):
            seen["evaluate/ms_ssim"] = float(prompt_means(likeness, self.pairs).mean())
        if self.guard is not None:
            seen |= self.guard.look(tuner, epoch, seen, self.guard.metrics.see(images, scores, likeness))
        for name, value in seen.items():
            self.board.add_scalar(name, value, epoch)
        return seen

    def draw(self, tuner: Tuner) -> torch.Tensor:
        """Return the pictures of the fixed requests."""
        rollout = self.config.rollout
        return self.generator.generate(
            [r.case.text for r in self.requests], [r.seed for r in self.requests],
            rollout.steps, rollout.guidance, rollout.eta, tuner.plan.rollout_batch,
        )  # fmt: skip

    def score(self, tuner: Tuner, images: torch.Tensor) -> RewardResult:
        """Return what the rewards' sum says of them, on the CPU."""
        scores = tuner.reward(images.to(self.generator.device), [r.case for r in self.requests])
        parts = {name: values.cpu() for name, values in scores.parts.items()}
        return RewardResult(scores.values.cpu(), scores.valid.cpu(), parts)

    def likeness(self, images: torch.Tensor) -> torch.Tensor:
        """Return the MS-SSIM of each pair of pictures of a prompt."""
        return ms_ssim(images.cpu(), self.pairs) if len(self.pairs.first) else torch.empty(0)

    def tell(self, row: dict[str, Any], epochs: int) -> None:
        """Print one line and feed TensorBoard."""
        for name, value in row.items():
            if name != "epoch":
                self.board.add_scalar(name, value, row["epoch"])
        spent = time.perf_counter() - self.start
        say(
            f"epoch {row['epoch']}/{epochs}  reward {row['reward/mean']:.3f} ± {row['reward/std']:.3f}  "
            f"kl {row['kl']:.2g}  {row['network_evaluations']:,} evaluations  {spent:.0f} s"
        )

    def told_to_stop(self, epoch: int, epochs: int) -> bool:
        """Tell whether the guard ends the run here, and say why where it does."""
        return self.guard is not None and self.guard.told_to_stop(epoch, epochs)

    def close(self) -> None:
        """Flush TensorBoard."""
        self.board.close()


class Guard:
    """Measures looks in ways that no reward sees, warns once for each cause, and keeps the best epochs.

    Args:
        watch: Whose requests are measured.
        dataset: Where real images lie.
        weights: Of the run's rewards, by name.
    """

    def __init__(self, watch: Watch, dataset: PreparedDataset, weights: dict[str, float]) -> None:
        config, evaluator, self.run = watch.config, watch.evaluator, watch.run
        self.settings = config.evaluate
        extractor = None
        if evaluator is not None:
            identity = f"domain:{evaluator.identity}:size={evaluator.image_size}"
            extractor = FeatureExtractor(identity, evaluator.features, evaluator.device)
        cases = [request.case for request in watch.requests]
        prompts = list({request.prompt_id: request.case for request in watch.requests}.values())
        real = real_range(
            dataset, config.data.split, prompts, config.evaluate.images_per_prompt, extractor, config.seed
        )
        self.metrics = WatchMetrics(cases, watch.pairs, weights, real, extractor, evaluator, config.seed)
        self.anchor: Look | None = None
        self.rows = self.run.read_metrics()
        self.verdict = review(self.rows, self.settings)
        self.front = Front(self.run, config, self.rows)
        for reason in self.verdict.reasons:
            say(f"warning: before it was interrupted: {reason}")

    def look(self, tuner: Tuner, epoch: int, seen: dict[str, float], look: Look) -> dict[str, float]:
        """Return the watch metrics of a look; warn, and keep the adapter, where there is reason to."""
        assert self.anchor is not None  # the anchor's pictures are the first that are seen
        found = self.metrics.row(look, self.anchor)
        self.rows.append({"epoch": epoch, **seen, **found})
        told = {parting.metric for parting in self.verdict.partings}
        self.verdict = review(self.rows, self.settings)
        for parting in self.verdict.partings:
            if parting.metric not in told:
                say(f"warning: epoch {epoch}: {parting.reason}; look at {self.run.samples}")
        self.write(stopped=False)
        with tuner.average.applied_to(tuner.parameters):
            self.front.offer(self.rows[-1], tuner.generator)
        return found

    def told_to_stop(self, epoch: int, epochs: int) -> bool:
        """Tell whether the run ends here, and say why where it does."""
        if self.settings.guard != "stop" or self.verdict.state != "stop" or epoch >= epochs:
            return False
        self.write(stopped=True)
        better = f"; earlier adapters lie in {self.run.front}" if self.front.kept else ""
        say(
            f"stopped by the guard after epoch {epoch} of {epochs}: {'; '.join(self.verdict.reasons)}{better}. "
            "To go on all the same, resume with --set evaluate.guard=warn"
        )
        return True

    def write(self, stopped: bool) -> None:
        """Write what the guard says into the run folder."""
        content = {
            "guard": self.settings.guard,
            "state": self.verdict.state,
            "epoch": self.verdict.epoch,
            "stopped": stopped,
            "reasons": [{"epoch": parting.epoch, "reason": parting.reason} for parting in self.verdict.partings],
        }
        write_json(self.run.guard, content)


def guard_state(out: Path) -> dict[str, Any]:
    """Return ``guard``, what the guard says of a run (the content of ``guard.json``); empty where it did not look."""
    file = RunFolder(out).guard
    return {"guard": json.loads(file.read_text(encoding="utf-8"))} if file.is_file() else {}


def attribute_accuracy(classifier: AttributeClassifier, images: torch.Tensor, cases: list[Case]) -> float | None:
    """Return the share of known attributes that the classifier finds as asked, ``None`` when it knows none of them."""
    probabilities = classifier.probabilities(images)
    right = [
        (float(probabilities[row, column]) > 0.5) == bool(case.attributes[name])
        for row, case in enumerate(cases)
        for column, name in enumerate(classifier.attribute_names)
        if case.attributes.get(name) is not None
    ]
    return sum(right) / len(right) if right else None


def save_grid(images: torch.Tensor, columns: int, path: Path) -> None:
    """Save ``(N, 3, H, W)`` images as one picture, ``columns`` images a row, two pixels apart."""
    from torchvision.utils import make_grid  # type: ignore[import-untyped]

    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(make_grid(images, nrow=columns, padding=2, pad_value=1.0).unsqueeze(0))[0].save(path)
