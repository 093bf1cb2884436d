"""One optimiser step: replay the chosen (sample, step) pairs, sum the loss over micro-batches, step once."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from clinalign.core.errors import UserError
from clinalign.core.precision import Precision, autocast
from clinalign.core.seeds import derive_seed
from clinalign.generation.ddim import DdimSchedule, Reduction, ddim_mean, gaussian_kl, gaussian_log_prob
from clinalign.generation.generator import Generator
from clinalign.generation.sampling import at_step
from clinalign.tuning.objectives.ddpo import ddpo_loss, normalised_log_ratio
from clinalign.tuning.rollout import Rollout

Anchor = Callable[[], AbstractContextManager[None]]

# Largest |log-ratio| (mean reduction) that rounding explains when the weights have not moved: replayed in another
# batch, the network's output differs in its last bits, which the last step's sigma, 0.02 at eta 1, divides. Measured on
# a CPU with a trained generator, 10 to 50 steps, guidance 5: 2e-6 in float32 (1e-5 with sigma 0.002) and 0 in bfloat16,
# while a guidance wrong by 0.01 makes 1e-4 and replaying bfloat16 in float32 2e-2. Kernels of a GPU depend on the batch
# and round float32 to TF32, so it is given more; those two figures are not measured.
FIRST_UPDATE_TOLERANCE = {"fp32": 2e-5, "bf16": 1e-3}
FIRST_UPDATE_TOLERANCE_GPU = {"fp32": 1e-4, "bf16": 5e-2}
LAST_SIGMA = 0.02  # of Stable Diffusion's schedule at eta 1; the tolerances belong to it


@dataclass(frozen=True)
class Replay:
    """Settings of the replay that must equal those of the rollout.

    Attributes:
        schedule: Steps of the sampler.
        guidance: Classifier-free guidance scale.
        reduction: Of log-probabilities.
        precision: Of the network.
    """

    schedule: DdimSchedule
    guidance: float
    reduction: Reduction
    precision: Precision


@dataclass
class UpdateLog:
    """Sums over the rows of this process; :meth:`tensor` goes through the all-reduce.

    Attributes:
        rows: Rows replayed.
        loss: Sum of the loss's rows, already divided by the global count.
        ratio: Sum of importance ratios.
        clipped: Rows outside the clip range.
        kl_old: Sum of 0.5 (log rho)^2, an estimate of the distance to the policy that drew the sample.
        kl_anchor: Sum of the closed-form KL to the anchor, where it is part of the loss.
        worst: Largest |log-ratio|.
        evaluations: Network evaluations, forward and backward counted as three.
    """

    rows: float = 0.0
    loss: float = 0.0
    ratio: float = 0.0
    clipped: float = 0.0
    kl_old: float = 0.0
    kl_anchor: float = 0.0
    worst: float = 0.0
    evaluations: float = 0.0

    def sums(self) -> torch.Tensor:
        """Return what is summed over processes."""
        values = [self.rows, self.loss, self.ratio, self.clipped, self.kl_old, self.kl_anchor, self.evaluations]
        return torch.tensor(values, dtype=torch.float64)


def choose_steps(seed: int, epoch: int, samples: list[int], steps: int, fraction: float) -> torch.Tensor:
    """Return the steps trained of each sample, ``(N, T')``, in a random order of its own (methods 3.4).

    Args:
        seed: The run's seed.
        epoch: Current epoch.
        samples: Global numbers of the samples, so that the choice does not depend on the process.
        steps: T, less the last ones that are ignored.
        fraction: Share of these steps that is trained; at least one.
    """
    count = max(1, round(fraction * steps))
    rows = [
        torch.randperm(steps, generator=torch.Generator().manual_seed(derive_seed(seed, "steps", epoch, sample)))
        for sample in samples
    ]
    return torch.stack(rows)[:, :count] if rows else torch.empty((0, count), dtype=torch.long)


def replay_log_prob(
    generator: Generator, rollout: Rollout, samples: torch.Tensor, steps: torch.Tensor, replay: Replay
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log-probability ``(R,)``, mean and sigma of R (sample, step) rows under the current policy."""
    x_t, x_s = rollout.latents[samples, steps], rollout.latents[samples, steps + 1]
    with autocast(replay.precision, generator.device):
        prediction, _ = generator.predict(x_t, steps, replay.schedule, rollout.condition[samples], replay.guidance)
    alpha_t, alpha_s = (at_step(values, steps, x_t) for values in (replay.schedule.alpha_t, replay.schedule.alpha_s))
    sigma = at_step(replay.schedule.sigma, steps, x_t)
    mean = ddim_mean(prediction.float(), x_t, alpha_t, alpha_s, sigma, generator.prediction_type)
    return gaussian_log_prob(x_s, mean, sigma, replay.reduction), mean, sigma


def accumulate(
    generator: Generator,
    rollout: Rollout,
    advantages: torch.Tensor,
    samples: torch.Tensor,
    steps: torch.Tensor,
    replay: Replay,
    clip_range: float,
    kl_weight: float,
    count: int,
    micro_batch: int,
    anchor: Anchor | None = None,
    ratio_norm: bool = False,
) -> UpdateLog:
    """Add the gradient of the loss over this process's rows to the parameters.

    The loss is a sum over rows divided by the *global* number of rows, so micro-batches and processes only change how
    the sum is cut.

    Args:
        generator: The policy.
        rollout: This process's pictures.
        advantages: ``(N,)`` of these pictures.
        samples: ``(R,)`` picture of each row.
        steps: ``(R,)`` step of each row.
        replay: Settings of the rollout.
        clip_range: PPO clip.
        kl_weight: Weight of the closed-form KL to the anchor (DPOK); 0 costs nothing.
        count: Rows over all processes.
        micro_batch: Rows at once.
        anchor: Context in which the generator is the anchor; the one with the adapter off by default.
        ratio_norm: Give every step's log-ratio the same scale.

    Returns:
        What is logged.
    """
    log, anchor = UpdateLog(), anchor or generator.anchor
    branches = 1 if replay.guidance == 1.0 else 2
    for start in range(0, len(samples), micro_batch):
        rows, at = samples[start : start + micro_batch], steps[start : start + micro_batch]
        anchor_mean = None
        if kl_weight:  # before the policy's forward: what the anchor switches must not change under a graph
            with torch.no_grad(), anchor():
                _, anchor_mean, _ = replay_log_prob(generator, rollout, rows, at, replay)
        log_prob, mean, sigma = replay_log_prob(generator, rollout, rows, at, replay)
        plain = log_prob - rollout.log_probs[rows, at]
        log_ratio = plain
        if ratio_norm:
            x_s, noise = rollout.latents[rows, at + 1], rollout.noise[rows, at]
            log_ratio = normalised_log_ratio(mean, x_s, noise, sigma, replay.reduction)
        terms = ddpo_loss(log_ratio, advantages[rows], clip_range)
        loss = terms.loss.sum()
        log.evaluations += 3 * branches * len(rows)
        if anchor_mean is not None:
            divergence = gaussian_kl(mean, anchor_mean, sigma, replay.reduction).sum()
            loss = loss + kl_weight * divergence
            log.kl_anchor += float(divergence.detach())
            log.evaluations += branches * len(rows)
        torch.autograd.backward(loss / count)
        log.rows += len(rows)
        log.loss += float(loss.detach()) / count
        log.ratio += float(terms.ratio.sum())
        log.clipped += float(terms.clipped.sum())
        moved = plain.detach()  # of the policies themselves, whatever scale the loss has
        log.kl_old += float(0.5 * moved.square().sum())
        worst = float(moved.abs().max())
        log.worst = max(log.worst, worst) if math.isfinite(worst) else math.inf  # max() would let NaN through
    return log


def check_first_update(worst: float, replay: Replay, elements: int, device: str = "cpu") -> None:
    """Assert that the replayed log-probabilities equal the sampled ones while the weights have not moved.

    Args:
        worst: Largest |log-ratio| of the first update.
        replay: Tells precision and reduction.
        elements: Number of latent elements, which scales the tolerance when log-probabilities are summed.
        device: Type of the device, ``cpu`` or ``cuda``.

    Raises:
        UserError: When they differ by more than rounding explains: sampling and training then run different networks
            (training mode, dropout, another guidance or precision), and every update would be wrong.
    """
    table = FIRST_UPDATE_TOLERANCE if device == "cpu" else FIRST_UPDATE_TOLERANCE_GPU
    tolerance = table["fp32" if replay.precision == "fp32" else "bf16"]
    tolerance *= max(1.0, LAST_SIGMA / float(replay.schedule.sigma.min()))
    tolerance *= elements if replay.reduction == "sum" else 1
    if not worst <= tolerance:
        raise UserError(
            f"replayed log-probabilities differ from the sampled ones by {worst:.2g} before any update "
            f"(rounding explains {tolerance:.2g}): sampling and training differ in mode, dropout, guidance or precision"
        )


def choose_kl_rows(seed: int, epoch: int, images: int, steps: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (sample, step) pairs of an epoch on which the KL is measured, the same for every number of processes.

    Args:
        seed: The run's seed.
        epoch: Current epoch.
        images: Images of the epoch, over all processes.
        steps: T.
        rows: Number of pairs wanted; never more than there are.

    Returns:
        Global numbers of the samples, and steps, each ``(R,)`` int64.
    """
    chance = torch.Generator().manual_seed(derive_seed(seed, "kl", epoch))
    pairs = torch.randperm(images * steps, generator=chance)[:rows]
    return pairs // steps, pairs % steps


@torch.no_grad()
def sum_kl(
    generator: Generator,
    rollout: Rollout,
    samples: torch.Tensor,
    steps: torch.Tensor,
    replay: Replay,
    micro_batch: int,
    anchor: Anchor | None = None,
) -> tuple[float, int]:
    """Return the sum of the closed-form KL to the anchor over (sample, step) rows, and the evaluations spent.

    Args:
        generator: The policy.
        rollout: This process's pictures.
        samples: ``(R,)`` picture of each row.
        steps: ``(R,)`` step of each row.
        replay: Settings of the rollout.
        micro_batch: Rows at once.
        anchor: As in :func:`accumulate`.
    """
    total, anchor = 0.0, anchor or generator.anchor
    for start in range(0, len(samples), micro_batch):
        rows, at = samples[start : start + micro_batch], steps[start : start + micro_batch]
        _, mean, sigma = replay_log_prob(generator, rollout, rows, at, replay)
        with anchor():
            _, anchor_mean, _ = replay_log_prob(generator, rollout, rows, at, replay)
        total += float(gaussian_kl(mean, anchor_mean, sigma, replay.reduction).sum())
    return total, 2 * (1 if replay.guidance == 1.0 else 2) * len(samples)
