"""What every update rule owes: an honest count, a resumable state, and a gradient that does not depend on the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

WINDOW = {"name": "ddpo_window", "window": 2, "interval": 1}
RULES: dict[str, dict[str, Any]] = {
    "ddpo": {"name": "ddpo"},
    "ddpo-kl": {"name": "ddpo", "kl": 0.1, "ratio_norm": True, "timestep_fraction": 0.5},
    "window": WINDOW,
    "window-random-kl": {**WINDOW, "move": "random", "kl": 0.1},
    "branch": {**WINDOW, "branch": True},
    "awm": {"name": "awm"},
    "awm-kl": {"name": "awm", "kl": 0.1, "timesteps": 2, "weight": "snr"},
    "nft": {"name": "nft", "old_decay": 0.25},
    "nft-kl": {"name": "nft", "kl": 0.1, "old_decay": 0.25, "timesteps": 2},
    "draft": {"name": "draft"},
    "draft-2": {"name": "draft", "last_steps": 2},
    "draft-2-kl": {"name": "draft", "last_steps": 2, "kl": 0.1},
    "preference": {"name": "preference", "beta": 50.0},
    "preference-kl": {"name": "preference", "beta": 50.0, "kl": 0.1, "timesteps": 2, "pairs": 1},
}
GENTLE = torch.tensor([1.0, -0.5, 2.0, -1.5])


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("seconds/")}


@pytest.mark.parametrize(("guided", "updates"), [(False, 2), (True, 1)])
@pytest.mark.parametrize("rule", RULES)
def test_the_count_is_the_plans_and_that_of_real_forwards(
    make_tuner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, rule: str, guided: bool, updates: int
) -> None:
    objective = dict(RULES[rule])
    if guided and objective["name"] in ("awm", "nft", "preference"):
        objective["guidance"] = 2.0
    tuner = make_tuner(
        {"rollout.guidance": 3.0 if guided else 1.0, "train.micro_batch": 7, "train.updates_per_epoch": updates,
         "objective": objective},
        toy=True,
    )  # fmt: skip
    with_graph, without = [0], [0]
    forward = tuner.generator.unet.forward

    def counted(x: torch.Tensor, *rest: Any, **more: Any) -> Any:
        (with_graph if torch.is_grad_enabled() else without)[0] += len(x)
        return forward(x, *rest, **more)

    monkeypatch.setattr(tuner.generator.unet, "forward", counted)
    rows = [tuner.step().metrics for _ in range(2)]
    real = 3 * with_graph[0] + without[0] - sum(row["network_evaluations_kl"] for row in rows)
    assert rows[-1]["network_evaluations"] == real
    assert with_graph[0] > 0
    for epoch, row in enumerate(rows):
        saved = 0
        if rule == "branch":  # of four pictures of a prompt, three are spared the steps before the window
            saved = 4 * 3 * epoch * tuner.plan.branches
        assert row["network_evaluations_epoch"] == tuner.plan.evaluations - saved
        assert row["network_evaluations_epoch"] - tuner.plan.evaluations_training <= tuner.plan.evaluations_sampling


@pytest.mark.parametrize("rule", RULES)
def test_a_run_taken_up_again_is_the_same_to_the_bit(make_tuner: Callable[..., Any], rule: str) -> None:
    objective = dict(RULES[rule])
    if "kl" in objective:
        objective["kl_target"] = 1e-6  # the weight rises: it must be remembered
    changes = {"objective": objective, "train.learning_rate": 0.05}
    straight, cut, again = (make_tuner(changes, toy=True) for _ in range(3))
    for _ in range(2):  # after the second epoch the old policy of NFT is neither the first nor the current one
        straight.step()
        cut.step()
    cut.save()
    again.load(again.run.checkpoints / "epoch_00002")
    before = straight.parameters["shift"].detach().clone()
    assert without_seconds(again.step().metrics) == without_seconds(straight.step().metrics)
    assert torch.equal(again.parameters["shift"], straight.parameters["shift"])
    assert torch.equal(again.average.shadow["shift"], straight.average.shadow["shift"])
    assert again.objective.state() == straight.objective.state()
    for name, value in straight.objective.tensors().items():
        assert torch.equal(again.objective.tensors()[name], value)
    if rule != "draft":  # the toy predicts nothing in the last step
        assert not torch.equal(straight.parameters["shift"], before)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.endswith("kl") or rule in ("branch", "draft")])
def test_micro_batches_change_neither_gradient_nor_log(
    make_tuner: Callable[..., Any], drawn: Callable[..., Any], gradients: Callable[..., Any],
    perturb: Callable[..., None], rule: str,
) -> None:  # fmt: skip
    objective = dict(RULES[rule])
    if objective["name"].startswith("ddpo"):
        objective["clip_range"] = 0.1  # of which every row is far away: there the gradient would jump
    tuner = make_tuner({"rollout.guidance": 3.0, "objective": objective})
    perturb(tuner, 0.05)
    # the second of three steps, after the first moved the weights: AWM looks back
    rollout, rows = drawn(tuner, GENTLE.repeat(3), update=1, updates=3)
    perturb(tuner, 0.01)
    assert len(rows) >= 2
    whole, wanted = gradients(tuner, rollout, rows, len(rows))
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert largest > 1e-4
    log, found = gradients(tuner, rollout, rows, 1 if len(rows) < 4 else 3)
    for name, gradient in found.items():
        # float32 sums in another order; a row that is lost or counted twice changes a sixteenth
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-4 * largest)
    torch.testing.assert_close(log.sums(), whole.sums(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log.worst(), whole.worst(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.endswith("kl")])
def test_the_kl_is_a_part_of_the_loss_and_zero_at_the_anchor(
    make_tuner: Callable[..., Any], drawn: Callable[..., Any], perturb: Callable[..., None], rule: str
) -> None:
    tuner = make_tuner({"objective": RULES[rule]}, toy=True)
    rollout, rows = drawn(tuner, GENTLE)
    assert not tuner.objective.terms(rollout, rows).log["kl_trained"].any()
    perturb(tuner, 0.5)
    terms = {}
    for weight in (0.0, 1e3):  # so large because the toy hardly moves in the last steps of draft
        tuner.objective.kl.weight = weight
        terms[weight] = tuner.objective.terms(rollout, rows)
    distance = terms[1e3].log["kl_trained"]
    assert float(distance.max()) > 1e-5
    torch.testing.assert_close(terms[1e3].loss - terms[0.0].loss, 1e3 * distance, rtol=1e-3, atol=1e-4)
    # it pulls back to the anchor, which is at 0: what the weight adds rises with each of the four numbers' size
    shift = tuner.parameters["shift"]
    (pull,) = torch.autograd.grad((terms[1e3].loss - terms[0.0].loss).sum(), shift)
    assert float((pull * shift.detach()).sum()) > 1e-3
