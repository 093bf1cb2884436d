"""The metrics of the test split, against scikit-learn and against what must hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn import metrics as sk

from clinalign.augmentation.cells import Cell, Problem
from clinalign.augmentation.learn import Learned
from clinalign.augmentation.plan import CellPlan
from clinalign.core.types import Case
from clinalign.workflows.augment_result import (
    arm_values,
    hierarchical,
    make_exam,
    result_entries,
    seed_choices,
)
from clinalign.workflows.augment_scores import Exam, Region, at_even_prior, exam_values

N, K = 300, 3


def ones(n: int = N) -> torch.Tensor:
    return torch.ones(1, n, dtype=torch.float64)


def multiclass(seed: int = 0) -> tuple[Exam, torch.Tensor, torch.Tensor]:
    """Return an exam with one region, log-probabilities that know a little, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), N, replacement=True, generator=generator)
    labels = torch.nn.functional.one_hot(classes, K).bool()
    logits = (torch.randn(N, K, generator=generator) + 1.2 * labels).log_softmax(1)
    young = torch.rand(N, generator=generator) < 0.5
    region = Region("cell=c2,age=young", 2, young, int((young & labels[:, 2]).sum()))
    everyone = Region("class=c2", 2, torch.ones(N, dtype=torch.bool), int(labels[:, 2].sum()))
    exam = Exam(labels, torch.ones(N, K, dtype=torch.bool), True, [everyone, region], {"cell=rare": [region]})
    return exam, logits, classes


EVEN = torch.full((K,), 1 / K)


def test_multiclass_metrics_are_those_of_scikit_learn() -> None:
    exam, logits, classes = multiclass()
    found = {key: float(value[0]) for key, value in exam_values(logits, EVEN, exam, ones()).items()}
    said, chances, truth = logits.argmax(1).numpy(), logits.exp().double().numpy(), classes.numpy()
    one_hot = exam.labels.numpy()
    expected = {
        "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
        "accuracy": sk.accuracy_score(truth, said),
        "f1": sk.f1_score(truth, said, average="macro"),
        "auroc": sk.roc_auc_score(one_hot, logits.numpy(), average="macro"),
        "recall": sk.recall_score(truth, said, average="macro"),
        "brier": ((chances - one_hot) ** 2).sum(1).mean(),
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert found["even_balanced_accuracy"] == found["balanced_accuracy"]  # it was trained at an even prior


def test_a_cell_is_its_class_against_the_rest_within_its_subgroup() -> None:
    exam, logits, classes = multiclass()
    found = {key: float(value[0]) for key, value in exam_values(logits, EVEN, exam, ones()).items()}
    rows = exam.regions[1].rows.numpy()
    truth, said = (classes == 2).numpy()[rows], (logits.argmax(1) == 2).numpy()[rows]
    name = "cell=c2,age=young"
    assert found[f"auroc/{name}"] == pytest.approx(sk.roc_auc_score(truth, logits[:, 2].numpy()[rows]), abs=1e-9)
    assert found[f"balanced_accuracy/{name}"] == pytest.approx(sk.balanced_accuracy_score(truth, said), abs=1e-9)
    assert found[f"f1/{name}"] == pytest.approx(sk.f1_score(truth, said), abs=1e-9)
    assert found[f"recall/{name}"] == pytest.approx(sk.recall_score(truth, said), abs=1e-9)
    assert found["auroc/cell=rare"] == pytest.approx(found[f"auroc/{name}"])  # a pool of one


def test_weights_are_images_drawn_so_often() -> None:
    exam, logits, _ = multiclass()
    weights = torch.randint(0, 3, (1, N), generator=torch.Generator().manual_seed(1)).double()
    rows = torch.repeat_interleave(torch.arange(N), weights[0].long())
    regions = [Region(each.name, each.class_index, each.rows[rows], each.count) for each in exam.regions]
    repeated = Exam(exam.labels[rows], exam.known[rows], True, regions, {"cell=rare": [regions[1]]})
    one = exam_values(logits, EVEN, exam, weights)
    other = exam_values(logits[rows], EVEN, repeated, ones(len(rows)))
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], msg=key)


def test_a_pool_weighs_cells_by_their_test_images() -> None:
    labels = torch.tensor([[True], [False], [True], [True], [False]])
    logits = torch.tensor([[1.0], [2.0], [3.0], [4.0], [0.0]])  # wrong in the first cell, right in the second
    first, second = torch.tensor([1, 1, 0, 0, 0]).bool(), torch.tensor([0, 0, 1, 1, 1]).bool()
    regions = [Region("cell=a", 0, first, 1), Region("cell=b", 0, second, 2)]
    exam = Exam(labels, torch.ones(5, 1, dtype=torch.bool), False, regions, {"cell=rare": regions})
    found = exam_values(logits, torch.tensor([0.5]), exam, ones(5))
    assert (float(found["auroc/cell=a"]), float(found["auroc/cell=b"])) == (0.0, 1.0)
    assert float(found["auroc/cell=rare"]) == pytest.approx(2 / 3)


def test_a_changed_class_frequency_alone_gains_nothing_at_an_even_prior() -> None:
    exam, logits, _ = multiclass()
    shares = torch.tensor([0.9, 0.07, 0.03])
    shifted = (logits + shares.log()).log_softmax(1)  # the same network, trained where the first class is common
    even, skewed = exam_values(logits, EVEN, exam, ones()), exam_values(shifted, shares, exam, ones())
    assert float(skewed["balanced_accuracy"]) < float(even["balanced_accuracy"]) - 0.1
    assert float(skewed["even_balanced_accuracy"]) == pytest.approx(float(even["even_balanced_accuracy"]))
    assert at_even_prior(torch.zeros(1, 1), torch.tensor([0.2]), False).item() == pytest.approx(math.log(4))


def test_multilabel_metrics_skip_unknown_labels() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.rand(N, 2, generator=generator) < 0.4
    known = torch.rand(N, 2, generator=generator) < 0.7
    logits = torch.randn(N, 2, generator=generator) + labels
    exam = Exam(labels, known, False, [], {})
    found = {key: float(value[0]) for key, value in exam_values(logits, torch.full((2,), 0.5), exam, ones()).items()}

    def mean(score: Any) -> float:
        return float(sum(score(labels[known[:, k], k].numpy(), logits[known[:, k], k].numpy()) for k in range(2)) / 2)

    assert found["auroc"] == pytest.approx(mean(sk.roc_auc_score))
    assert found["balanced_accuracy"] == pytest.approx(mean(lambda y, s: sk.balanced_accuracy_score(y, s > 0)))
    assert found["accuracy"] == pytest.approx(mean(lambda y, s: sk.accuracy_score(y, s > 0)))
    assert found["f1"] == pytest.approx(mean(lambda y, s: sk.f1_score(y, s > 0)))
    chance = torch.sigmoid(logits)
    expected = [sk.brier_score_loss(labels[known[:, k], k].numpy(), chance[known[:, k], k].numpy()) for k in range(2)]
    assert found["brier"] == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_calibration_error_of_the_said_class() -> None:
    labels = torch.eye(2).bool()[[0, 0, 0, 1]]
    exam = Exam(labels, torch.ones(4, 2, dtype=torch.bool), True, [], {})
    sure = torch.tensor([[0.95, 0.05]] * 4).log()  # says the first class at 95 %, is right in three of four
    assert float(exam_values(sure, torch.tensor([0.5, 0.5]), exam, ones(4))["ece"]) == pytest.approx(0.20, abs=1e-6)


def test_what_is_undefined_is_left_out() -> None:
    exam, logits, _ = multiclass()
    nobody = Region("cell=c2,age=old", 2, torch.zeros(N, dtype=torch.bool), 0)
    exam = Exam(exam.labels, exam.known, True, [nobody], {})
    answers = {"real": [Learned({"test": logits}, EVEN, 1, 0.5)]}
    values = arm_values(answers, "test", exam, [str(row) for row in range(N)], 20, 0)
    entries = result_entries(values, exam, 20, 0, {"classifier": "c"})
    assert "real/auroc" in entries
    assert not [key for key in entries if "age=old" in key]
    assert all(math.isfinite(entry["value"]) for entry in entries.values())


def test_with_endless_test_images_the_interval_is_students() -> None:
    seeds = torch.tensor([0.70, 0.74, 0.73, 0.78, 0.75], dtype=torch.float64)
    values = seeds[:, None].expand(5, 4001)
    value, (low, high) = hierarchical(values, seed_choices(5, 4000, 0))
    half = 2.776 * float(seeds.std()) / math.sqrt(5)
    assert value == pytest.approx(float(seeds.mean()))
    # the bootstrap of five numbers has lighter tails than a normal
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_with_seeds_alike_the_interval_is_that_of_the_patients() -> None:
    drawn = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.cat([torch.zeros(1, dtype=torch.float64), drawn]).expand(3, 4001)
    _, ends = hierarchical(values, seed_choices(3, 4000, 0))
    assert ends == pytest.approx((-1.96, 1.96), abs=0.1)
    assert hierarchical(values[:1], seed_choices(1, 4000, 0))[1] == pytest.approx(ends)


def learned(exam: Exam, skill: float, seed: int) -> Learned:
    noise = torch.randn(N, K, generator=torch.Generator().manual_seed(seed))
    return Learned({"test": (noise + skill * exam.labels).log_softmax(1)}, EVEN, 1, 0.5)


def test_differences_are_paired_and_a_null_difference_contains_zero() -> None:
    exam, _, _ = multiclass()
    answers = {
        "classical": [learned(exam, 1.0, seed) for seed in range(5)],
        "balanced": [learned(exam, 1.0, 100 + seed) for seed in range(5)],  # as good, other errors
        "tuned": [learned(exam, 1.5, seed) for seed in range(5)],  # the same noise, more skill
    }
    values = arm_values(answers, "test", exam, [str(row // 2) for row in range(N)], 400, 0)
    entries = result_entries(values, exam, 400, 0, {"classifier": "c"})
    gain = entries["change/tuned-classical/auroc"]
    assert gain["value"] == pytest.approx(entries["tuned/auroc"]["value"] - entries["classical/auroc"]["value"])
    assert gain["ci95"][0] > 0
    width = gain["ci95"][1] - gain["ci95"][0]
    assert width < entries["tuned/auroc"]["ci95"][1] - entries["tuned/auroc"]["ci95"][0]
    null = entries["change/balanced-classical/auroc"]["ci95"]
    assert null[0] < 0 < null[1]
    cell = "change/tuned-classical/auroc/cell=c2,age=young"
    assert (entries[cell]["n"], gain["n"]) == (exam.regions[1].count, N)
    assert len(gain["seeds"]) == 5
    assert gain["classifier"] == "c"


def test_lesions_are_drawn_whole() -> None:
    exam, _, _ = multiclass()
    answers = {"real": [learned(exam, 1.0, 0)]}

    def width(groups: list[str]) -> float:
        values = arm_values(answers, "test", exam, groups, 300, 0)
        low, high = result_entries(values, exam, 300, 0, {})["real/accuracy"]["ci95"]
        return float(high - low)

    order = torch.cat([(answers["real"][0].logits["test"].argmax(1) == exam.labels.int().argmax(1)).int()])
    clumped = [f"{int(right)} {row // 20}" for row, right in enumerate(order)]  # a lesion is all right or all wrong
    assert width(clumped) > 1.5 * width([str(row) for row in range(N)])


def test_rare_cells_and_small_ones_are_pooled() -> None:
    problem = Problem(("A", "B"), True)
    cases = [Case(str(row), "t", {"A": int(row < 9), "B": int(row >= 9)}) for row in range(40)]
    plans = [CellPlan(Cell(name), 500, 500, False, 0, 0) for name in ("A", "B")]
    exam = make_exam(cases, problem, plans, ["B"])
    assert [region.name for region in exam.pools["cell=rare"]] == ["cell=A"]  # nine test images
    assert [region.name for region in exam.pools["cell=filled"]] == ["cell=B"]
    assert [region.count for region in exam.regions] == [9, 31, 9, 31]
