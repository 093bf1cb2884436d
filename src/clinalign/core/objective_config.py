"""The ``objective`` section of a config: one class an update rule, each with its own keys.

What a rule costs is told here too, because it follows from these keys alone: T steps trained of each picture, and q
passes without a gradient beside each of them (methods 4).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from clinalign.core.errors import UserError
from clinalign.core.registry import Registry


class Section(BaseModel):
    """A part of a config: unknown keys are refused, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ObjectiveSection(Section):
    """What every update rule has. That of another package's rule is found by entry point; docs/update_rules.md."""

    name: str
    kl: float = Field(default=0.0, ge=0, description="weight of the KL to the anchor; 0: none (P of both recipes)")
    kl_target: float | None = Field(
        default=None, gt=0, description="adapt the weight each epoch until the measured kl is this; null: fixed weight"
    )

    @model_validator(mode="after")
    def _a_target_needs_a_weight(self) -> ObjectiveSection:
        if self.kl_target is not None and not self.kl:
            raise ValueError("objective.kl_target adapts the weight objective.kl, which is 0: start at 0.01, say")
        return self

    @property
    def extra_passes(self) -> float:
        """Passes without a gradient beside each trained one, q; the anchor's when there is a KL term."""
        return 1.0 if self.kl else 0.0

    @abstractmethod
    def trained_steps(self, steps: int) -> int:
        """Return how many steps of each picture are trained, T."""

    def check(self, steps: int, eta: float) -> None:
        """Assert that the rule can work with a sampler of ``steps`` steps and stochasticity ``eta``.

        Raises:
            ValueError: When it cannot.
        """


class StepPolicyConfig(ObjectiveSection):
    """Rules on the probability of single denoising steps."""

    clip_range: float = Field(
        default=1e-4, gt=0, description="PPO clip, for log-probabilities averaged over elements (P)"
    )
    logprob_reduction: Literal["mean", "sum"] = Field(default="mean", description="over latent elements (P: mean)")
    ratio_norm: bool = Field(
        default=False,
        description="give every step's log-ratio the same scale, as GRPO-Guard; re-tune clip_range (P: no)",
    )
    ignore_last: int = Field(
        default=0,
        ge=0,
        description="last steps that are not trained (P: 0); without ratio_norm their tiny noise drowns the others",
    )

    def check(self, steps: int, eta: float) -> None:
        """Steps without noise have no probability, and some must be left to train."""
        if self.ignore_last >= steps:
            raise ValueError(
                f"objective.ignore_last {self.ignore_last} leaves none of the {steps} "
                f"rollout.steps to train: take {steps - 1} or fewer"
            )
        if eta == 0:
            name = getattr(self, "name", "")
            raise ValueError(f"objective {name} needs steps with noise: set rollout.eta above 0")


class DdpoConfig(StepPolicyConfig):
    """DDPO: clipped importance ratios of every step (arXiv 2305.13301; with ``kl`` DPOK)."""

    name: Literal["ddpo"] = "ddpo"
    timestep_fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of the steps trained, drawn per image (P: 1)"
    )

    def trained_steps(self, steps: int) -> int:
        """A share of the steps that may be trained."""
        return max(1, round(self.timestep_fraction * (steps - self.ignore_last)))


class DdpoWindowConfig(StepPolicyConfig):
    """DDPO on a window of noisy steps; all others are deterministic and not trained (MixGRPO, Flow-GRPO-Fast, B2)."""

    name: Literal["ddpo_window"] = "ddpo_window"
    window: int = Field(default=4, ge=1, description="steps in the window (MixGRPO: 4 of 25, P)")
    move: Literal["slide", "random", "backward", "decay"] = Field(
        default="slide",
        description="slide: from the noisiest step on, one step every `interval` epochs; random: anywhere, each epoch; "
        "backward: the last steps, reaching one step further back every `interval`; decay: as slide, but staying ever "
        "shorter",
    )
    interval: int = Field(default=25, ge=1, description="epochs between moves (MixGRPO: 25 iterations, P)")
    branch: bool = Field(
        default=False, description="the pictures of a prompt share noise and path up to the window, drawn once (R)"
    )
    ignore_last: int = Field(default=1, ge=0, description="last steps that are never in the window (P of flow code)")

    def trained_steps(self, steps: int) -> int:
        """The whole window (its first, where it grows)."""
        return min(self.window, steps - self.ignore_last)


class MatchingConfig(ObjectiveSection):
    """Rules that put fresh noise on the finished pictures; they need no probabilities, so any sampler serves."""

    timesteps: int = Field(default=4, ge=1, description="noise levels trained of each picture, T (R)")
    guidance: float = Field(
        default=1.0, ge=1.0, description="in the loss; that of the rollout may differ (P of AWM and NFT: none)"
    )

    def trained_steps(self, steps: int) -> int:
        """So many noise levels."""
        return min(self.timesteps, steps)


class AwmConfig(MatchingConfig):
    """Advantage-weighted matching (arXiv 2509.25050)."""

    name: Literal["awm"] = "awm"
    weight: Literal["snr", "clean", "none"] = Field(
        default="clean",
        description="of noise levels: snr: Min-SNR of gamma 5; clean: the error of the clean latents, divided by its "
        "own size (as NFT); none: the plain error of the prediction",
    )
    clip_range: float = Field(default=0.2, gt=0, description="PPO clip of exp(l - l_old) (R)")


class NftConfig(MatchingConfig):
    """Negative-aware fine-tuning (arXiv 2509.16117)."""

    name: Literal["nft"] = "nft"
    beta: float = Field(default=1.0, gt=0, description="b: how far the implied policies lie from the old one (P: 1)")
    advantage_scale: float = Field(default=5.0, gt=0, description="r = clip(A / scale, -1, 1) / 2 + 1/2 (P: 5)")
    old_decay: float = Field(default=0.001, ge=0, description="decay of the old policy: rises by this each epoch (P)")
    old_decay_max: float = Field(default=0.5, ge=0, lt=1, description="and no further than this (P)")

    @property
    def extra_passes(self) -> float:
        """The old policy's pass, and the anchor's."""
        return 1.0 + super().extra_passes


class DraftConfig(ObjectiveSection):
    """DRaFT: the gradient of a differentiable reward through the last steps (arXiv 2309.17400)."""

    name: Literal["draft"] = "draft"
    last_steps: int = Field(default=1, ge=1, description="K steps that are differentiated (P: 1)")

    def trained_steps(self, steps: int) -> int:
        """K."""
        return self.last_steps

    def check(self, steps: int, eta: float) -> None:
        """There must be so many steps."""
        if self.last_steps > steps:
            raise ValueError(f"objective.last_steps {self.last_steps}: the sampler has rollout.steps {steps}")


class PreferenceConfig(MatchingConfig):
    """Diffusion-DPO on pairs of the epoch's own pictures (arXiv 2311.12908)."""

    name: Literal["preference"] = "preference"
    beta: float = Field(default=2000.0, gt=0, description="B; 2000 to 5000 in the literature on natural images (R)")
    pairs: int = Field(default=2, ge=1, description="pairs a prompt: best and worst, second best and second worst, ...")

    @property
    def extra_passes(self) -> float:
        """The anchor's pass, which a KL term shares."""
        return 1.0


SECTIONS: Registry[type[ObjectiveSection]] = Registry("update rule", "clinalign.objective_sections")
for _section in (DdpoConfig, DdpoWindowConfig, AwmConfig, NftConfig, DraftConfig, PreferenceConfig):
    SECTIONS.add(_section.model_fields["name"].default, _section)


def _read_section(value: Any) -> Any:
    """Read the keys with the class of the update rule that they name; without a name it is ``ddpo``.

    Raises:
        ValueError: When there is no such rule.
    """
    if not isinstance(value, dict):
        return value
    try:
        section = SECTIONS.get(str(value.get("name", "ddpo")))
    except UserError as error:
        raise ValueError(f"key 'objective.name': {error}") from error
    return section.model_validate(value)


ObjectiveConfig = Annotated[SerializeAsAny[ObjectiveSection], BeforeValidator(_read_section)]
