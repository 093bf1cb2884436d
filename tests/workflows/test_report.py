"""The report: what it says, what it shows, and that it is one page that fetches nothing."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clinalign.core.errors import UserError
from clinalign.workflows.report import report, report_demo, report_evaluation, report_run
from clinalign.workflows.report_evidence import Goals, reward_rise
from clinalign.workflows.report_findings import describe, summarise
from clinalign.workflows.report_metrics import bracket, move, number, percents
from clinalign.workflows.report_pictures import marks
from clinalign.workflows.report_sources import short_paths
from clinalign.workflows.report_verdicts import verdicts

ACCURACY, FID = "alignment/attribute_accuracy", "fidelity/fid"
NOT_INDEPENDENT = "not independent: the evaluator is the reward itself (weights abc)"


def entry(value: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": 256, **more}


def good_metrics() -> dict[str, dict[str, Any]]:
    """A tuning that went well."""
    judge, domain = (
        {"evaluator": "classifier:resnet10t:1a2b"},
        {"extractor": "domain:classifier:resnet10t:1a2b:size=32"},
    )
    floor = {**domain, "floor": 3.1, "floor_n": 120, "at_floor_n": 13.0, "n_reference": 240}
    return {
        f"base/{ACCURACY}": entry(0.78, 0.76, 0.80, **judge),
        f"tuned/{ACCURACY}": entry(0.91, 0.89, 0.93, **judge),
        f"real/{ACCURACY}": entry(0.95, 0.94, 0.96, **judge),
        f"change/{ACCURACY}": entry(0.13, 0.11, 0.15),
        "gap/attribute_accuracy_closed": entry(0.76, 0.68, 0.83),
        "base/alignment/apr": entry(0.41, 0.36, 0.46, **judge),
        "tuned/alignment/apr": entry(0.66, 0.61, 0.71, **judge),
        "base/alignment/accuracy/hair": entry(0.70, 0.66, 0.74, **judge),
        "tuned/alignment/accuracy/hair": entry(0.90, 0.87, 0.93, **judge),
        "real/alignment/accuracy/hair": entry(0.97, 0.95, 0.99, **judge),
        "base/alignment/accuracy/dark_corner": entry(0.90, 0.87, 0.93, **judge),
        "tuned/alignment/accuracy/dark_corner": entry(0.91, 0.88, 0.94, **judge),
        f"base/{FID}": entry(15.0, 14.0, 16.0, **floor),
        f"tuned/{FID}": entry(12.0, 11.2, 12.9, **floor),
        f"change/{FID}": entry(-3.0, -4.0, -2.0),
        "base/diversity/feature_distance": entry(1.00, 0.97, 1.03, **domain),
        "tuned/diversity/feature_distance": entry(0.96, 0.93, 0.99, **domain),
        "change/diversity/feature_distance": entry(-0.04, -0.06, -0.02),
        "base/diversity/ms_ssim": entry(0.40, 0.38, 0.42, extractor="ms-ssim:scales=2"),
        "tuned/diversity/ms_ssim": entry(0.41, 0.39, 0.43, extractor="ms-ssim:scales=2"),
    }


def changed(**entries: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The good metrics with some of them replaced, or left out with None; ``__`` stands for ``/``."""
    metrics = good_metrics() | {key.replace("__", "/"): value for key, value in entries.items()}
    return {key: value for key, value in metrics.items() if value is not None}


RISING = [
    {"epoch": i, "reward/mean": 0.50 + 0.02 * i, "reward/std": 0.3, "kl": 0.001 * i, "network_evaluations": 100 * i,
     "seconds/rollout": 2.0, "seconds/reward": 0.5, "seconds/update": 3.0}
    for i in range(1, 13)
]  # fmt: skip


def texts(kind: str, findings: list[Any]) -> str:
    return " ".join(finding.text for finding in findings if finding.kind == kind)


class TestFindings:
    def test_the_headline_gives_after_before_ceiling_and_gap(self) -> None:
        first = summarise(good_metrics(), curve=RISING)[0]
        assert first.kind == "good"
        assert first.text == (
            "Prompts are kept in 91 % of attributes instead of 78 % (real images: 95 %): "
            "76 % [68, 83] of the gap closed."
        )

    def test_a_good_run_has_no_marked_sentence(self) -> None:
        assert texts("bad", summarise(good_metrics(), curve=RISING)) == ""

    def test_what_it_was_measured_with_is_said(self) -> None:
        assert (
            "Measured on 256 pictures of each generator and 256 real ones, by an evaluator that gave no reward"
            in texts("neutral", summarise(good_metrics()))
        )

    @pytest.mark.parametrize(
        ("tuned", "change", "word"),
        [
            (entry(0.70, 0.68, 0.72), entry(-0.08, -0.1, -0.06), "less well than before"),
            (entry(0.79, 0.77, 0.81), entry(0.01, -0.01, 0.03), "not kept better beyond chance"),
        ],
    )
    def test_no_gain_is_marked(self, tuned: dict[str, Any], change: dict[str, Any], word: str) -> None:
        metrics = changed(tuned__alignment__attribute_accuracy=tuned, change__alignment__attribute_accuracy=change)
        assert word in texts("bad", summarise(metrics))

    def test_a_rising_reward_without_a_rising_evaluator_is_reward_hacking(self) -> None:
        flat = changed(
            tuned__alignment__attribute_accuracy=entry(0.79, 0.77, 0.81),
            change__alignment__attribute_accuracy=entry(0.01, -0.01, 0.03),
        )
        assert "Possible reward hacking: the reward rose from" in texts("bad", summarise(flat, curve=RISING))
        assert "hacking" not in texts("bad", summarise(flat))  # without a curve nothing is claimed
        assert "hacking" not in texts("bad", summarise(good_metrics(), curve=RISING))

    def test_a_reward_rises_when_its_ends_differ_beyond_the_scatter_of_epochs(self) -> None:
        def curve(*means: float) -> list[dict[str, float]]:
            return [{"epoch": i, "reward/mean": mean, "reward/std": 0.4} for i, mean in enumerate(means, 1)]

        assert reward_rise(curve(0.50, 0.52, 0.55, 0.60, 0.70, 0.72)) == pytest.approx((0.51, 0.71))
        assert reward_rise(curve(0.30, 0.70, 0.50, 0.50, 0.32, 0.72)) is None  # thirds differ by 0.02, scatter by 0.28
        assert reward_rise(curve(0.50, 0.65)) == (0.50, 0.65)  # above a quarter of 0.4
        assert reward_rise(curve(0.50, 0.55)) is None
        assert reward_rise(curve(0.50)) is None

    def test_a_reward_that_stays_is_said(self) -> None:
        still = [{**row, "reward/mean": 0.5} for row in RISING]
        assert "The reward did not rise" in texts("bad", summarise(good_metrics(), curve=still))

    # 1.00 -> 0.85 is 15 %; likeness 0.40 -> 0.52 leaves 0.48 of 0.60, which is 20 % less
    @pytest.mark.parametrize(
        ("key", "after", "change", "share"),
        [("feature_distance", 0.85, (-0.18, -0.12), "15 % [12, 18]"), ("ms_ssim", 0.52, (0.09, 0.15), "20 % [15, 25]")],
    )
    def test_diversity_that_falls_by_more_than_a_tenth_is_marked(
        self, key: str, after: float, change: tuple[float, float], share: str
    ) -> None:
        metrics = good_metrics()
        metrics[f"tuned/diversity/{key}"] = entry(after, after - 0.02, after + 0.02)
        metrics[f"change/diversity/{key}"] = entry(sum(change) / 2, *change)
        assert f"diversity within a prompt fell by {share}" in texts("bad", summarise(metrics))

    def test_the_relative_interval_of_diversity_is_used_where_there_is_one(self) -> None:
        metrics = changed(change__diversity=entry(-0.04, -0.07, -0.01))
        assert "diversity fell by 4 % [1, 7]" in texts("good", summarise(metrics))

    def test_diversity_that_may_have_fallen_by_more_is_not_called_kept(self) -> None:
        findings = summarise(changed(change__diversity=entry(-0.04, -0.15, 0.07)))
        assert "may have become more alike: diversity fell by 4 % [-7, 15]" in texts("neutral", findings)
        assert "diversity" not in texts("good", findings)

    def test_diversity_that_falls_by_less_is_not(self) -> None:
        assert "diversity fell by 4 % [2, 6]" in texts("good", summarise(good_metrics()))

    def test_fid_that_rises_beyond_its_interval_is_marked(self) -> None:
        paired = changed(tuned__fidelity__fid=entry(18.0, 17, 19), change__fidelity__fid=entry(3.0, 2.0, 4.0))
        unpaired = changed(tuned__fidelity__fid=entry(16.5, 15.5, 17.5), change__fidelity__fid=None)
        for metrics in (paired, unpaired):
            assert "look less real than before" in texts("bad", summarise(metrics))

    def test_fid_that_rises_within_its_interval_is_not(self) -> None:
        paired = changed(tuned__fidelity__fid=entry(15.5, 14, 17), change__fidelity__fid=entry(0.5, -0.5, 1.5))
        unpaired = changed(tuned__fidelity__fid=entry(15.5, 14, 17), change__fidelity__fid=None)
        for metrics in (paired, unpaired):
            assert "about as real as before" in texts("neutral", summarise(metrics))
            assert "real" not in texts("bad", summarise(metrics))

    def test_fid_is_read_beside_its_floor_at_the_same_n(self) -> None:
        metrics = good_metrics()
        metrics[f"tuned/{FID}"] |= {"floor": 3.1, "at_floor_n": 13.0, "floor_n": 120}
        expected = "at 120 pictures a side 13.0, where real images among themselves have 3.10"
        assert expected in texts("good", summarise(metrics))

    def test_a_single_attribute_that_got_worse_is_named(self) -> None:
        metrics = changed(tuned__alignment__accuracy__dark_corner=entry(0.80, 0.77, 0.83))
        assert "Kept less well, one by one: dark corner (90 to 80 %)." in texts("bad", summarise(metrics))
        assert "Kept better, one by one: hair (70 to 90 %)." in texts("good", summarise(metrics))

    def test_lost_coverage_is_marked(self) -> None:
        metrics = changed(
            base__fidelity__coverage=entry(0.8, 0.76, 0.84), tuned__fidelity__coverage=entry(0.5, 0.46, 0.54)
        )
        assert "Less of the variety of real images is reached: coverage 50 % instead of 80 %" in texts(
            "bad", summarise(metrics)
        )

    def test_a_dependent_evaluator_is_marked_and_not_called_independent(self) -> None:
        findings = summarise(good_metrics(), notes=[NOT_INDEPENDENT])
        assert "Not independent: the evaluator is the reward itself" in texts("bad", findings)
        assert "gave no reward" not in texts("neutral", findings)

    def test_an_evaluator_that_could_not_be_compared_is_not_called_independent(self) -> None:
        notes = ["no reward is known, so the evaluator could not be compared with one"]
        assert "gave no reward" not in texts("neutral", summarise(good_metrics(), notes=notes))
        assert verdicts(good_metrics(), notes=notes)[-1].state == "unknown"

    def test_a_run_without_evaluation_proves_nothing(self) -> None:
        findings = summarise({}, curve=RISING)
        assert "This run was not evaluated" in texts("bad", findings)
        assert "The reward rose from 0.540 to 0.720" in texts("neutral", findings)  # means of epochs 1-3 and 10-12

    def test_the_gap_is_computed_where_the_evaluation_does_not_give_it(self) -> None:
        metrics = changed(gap__attribute_accuracy_closed=None)
        assert "76 % of the gap closed" in summarise(metrics)[0].text  # 13 of 17 points

    def test_without_pairing_both_values_must_lie_outside_the_others_interval(self) -> None:
        metrics = {"base/x": entry(1.0, 0.8, 1.2), "tuned/x": entry(1.3, 0.9, 1.7)}
        found = move(metrics, "x")
        assert found is not None
        assert not found.sure
        found = move(metrics | {"tuned/x": entry(1.3, 1.1, 1.5)}, "x")
        assert found is not None
        assert found.rose
        assert move({"base/x": entry(1.0, 0.8, 1.2)}, "x") is None

    def test_one_set_of_images_is_described_without_a_comparison(self) -> None:
        real = {f"real/{ACCURACY}": entry(0.95, 0.94, 0.96)}
        found = describe({f"images/{ACCURACY}": entry(0.82, 0.80, 0.84), f"images/{FID}": entry(12, 11, 13), **real})
        assert found[0].text == "Prompts are kept in 82 % [80, 84] of attributes (real images: 95 %)."
        assert found[1].text == "FID is 12.0 [11.0, 13.0]; lower is better."
        assert {finding.kind for finding in found} == {"neutral"}


class TestVerdicts:
    def test_a_good_run_meets_every_criterion(self) -> None:
        assert [verdict.state for verdict in verdicts(good_metrics(), curve=RISING)] == ["met"] * 5

    def test_a_goal_inside_the_interval_is_open(self) -> None:
        assert verdicts(good_metrics(), goals=Goals(gap_closed=0.7))[0].state == "open"
        assert verdicts(good_metrics(), goals=Goals(gap_closed=0.8))[0].state == "open"
        assert verdicts(good_metrics(), goals=Goals(gap_closed=0.9))[0].state == "missed"

    def test_failures_are_missed(self) -> None:
        bad = changed(
            tuned__alignment__attribute_accuracy=entry(0.78, 0.76, 0.80),
            change__alignment__attribute_accuracy=entry(0.0, -0.02, 0.02),
            gap__attribute_accuracy_closed=entry(0.0, -0.1, 0.1),
            tuned__diversity__feature_distance=entry(0.5, 0.4, 0.6),
            tuned__fidelity__fid=entry(30.0, 29.0, 31.0),
            change__fidelity__fid=entry(15.0, 14.0, 16.0),
        )
        assert [verdict.state for verdict in verdicts(bad, curve=RISING, notes=[NOT_INDEPENDENT])] == ["missed"] * 5

    def test_what_was_not_measured_is_unknown(self) -> None:
        assert {verdict.state for verdict in verdicts({})} == {"unknown"}

    def test_without_a_gap_nothing_can_be_closed(self) -> None:
        metrics = changed(real__alignment__attribute_accuracy=entry(0.7, 0.6, 0.8), gap__attribute_accuracy_closed=None)
        assert verdicts(metrics)[0].detail == "there was no gap before tuning"


class TestWriting:
    def test_percents_get_a_decimal_only_to_tell_values_apart(self) -> None:
        assert percents(0.91, 0.78) == ["91", "78"]
        assert percents(0.912, 0.908) == ["91.2", "90.8"]

    @pytest.mark.parametrize(
        ("amount", "text"),
        [
            (0.0, "0.000"),
            (0.00012, "0.00012"),
            (-0.0000012, "-1.2e-06"),
            (0.034, "0.0340"),
            (3.14159, "3.14"),
            (1234.5, "1234"),
        ],
    )
    def test_numbers_have_about_three_digits(self, amount: float, text: str) -> None:
        assert number(amount) == text

    def test_an_interval_follows_its_number(self) -> None:
        assert bracket((0.68, 0.83), "percent") == " [68, 83]"
        assert bracket(None) == ""

    def test_marks_leave_out_what_is_unknown(self) -> None:
        found = marks(
            {"hair": 1, "ruler": 0, "ink": None, "MEL": 1}, {"hair": 0.6, "ruler": 0.6, "ink": 0.9}, {"hair": 0.7}
        )
        assert [(mark.name, mark.asked, mark.found, mark.right) for mark in found] == [
            ("hair", True, False, False),  # 0.6 is below its threshold 0.7
            ("ruler", False, True, False),
        ]

    def test_absolute_paths_lose_their_beginning(self) -> None:
        tree = {"path": str(Path("/", "home", "someone", "demo", "data")), "list": ["relative/a/b/c"]}
        assert short_paths(tree) == {"path": "…/demo/data", "list": ["relative/a/b/c"]}


# ---------------------------------------------------------------------------------------------------------------- page


def draw(path: Path, color: tuple[int, int, int], size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = PngInfo()
    secret.add_text("comment", "secret-metadata")
    Image.new("RGB", (size, size), color).save(path, pnginfo=secret)


def make_run(folder: Path, epochs: int = 6) -> Path:
    """A run folder as ``tune`` leaves it."""
    folder.mkdir(parents=True)
    config = {
        "seed": 0,
        "data": {"path": "data"},
        "generator": {"model": str(Path("/", "home", "someone", "x", "base"))},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [{**row, "evaluate/attribute_accuracy": 0.7 + 0.02 * row["epoch"]} for row in RISING[:epochs]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "manifest.json").write_text(json.dumps({"generator": "pipeline:77aa", "versions": {"torch": "2.x"}}))
    prompts = [{"text": f"prompt {i // 2}", "case_id": f"c{i // 2}", "seed": i} for i in range(4)]
    (folder / "samples").mkdir()
    (folder / "samples" / "prompts.json").write_text(json.dumps(prompts))
    for i in range(4):
        draw(folder / "samples" / "first" / f"{i:03d}.png", (120, 90, 80))
        draw(folder / "samples" / "last" / f"{i:03d}.png", (150, 110, 90))
    for epoch in (0, 2, 4, 5, 6):
        draw(folder / "samples" / f"epoch_{epoch:04d}.png", (epoch, 0, 0), 40)
    return folder


def add_pair(folder: Path, metrics: dict[str, Any], cases: int = 16, text: str = "a prompt") -> Path:
    """An evaluation before and after; only the last case loses an attribute."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "evaluation.json").write_text(json.dumps({"evaluator": "classifier:x:1", "notes": [], "seed": 0}))
    pairs = []
    for i in range(cases):
        names = {side: f"images/{side}/{i:04d}.png" for side in ("base", "tuned", "real")}
        for side, name in names.items():
            draw(folder / name, {"base": (90, 0, 0), "tuned": (0, 90, 0), "real": (0, 0, 90)}[side])
        kept = 0.1 if i == cases - 1 else 0.9
        pairs.append({
            "case_id": str(i), "text": f"{text} {i}", "attributes": {"hair": 1, "dark_corner": 0, "ink": None}, **names,
            "base_probabilities": {"hair": 0.2, "dark_corner": 0.9},
            "tuned_probabilities": {"hair": kept, "dark_corner": 0.1},
        })  # fmt: skip
    (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder


class Page(HTMLParser):
    """What a browser would fetch or run, and the sentences of the summary."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]

    @property
    def words(self) -> str:
        """The text without tags, spaces made single."""
        return " ".join(re.sub(r"<[^>]*>", " ", self.html).replace("\u00a0", " ").split())


def section(page: Page, heading: str) -> str:
    return page.html.split(f"<h2>{heading}</h2>")[1].split("<h2>")[0]


def test_a_page_fetches_and_runs_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_pair(run / "evaluation", good_metrics())
    page = Page(report_run(run))
    assert page.references
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "@import" not in page.html
    assert not re.search(r"url\((?!#)", page.html)  # clip paths only


def test_everything_of_a_run_is_on_its_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_pair(run / "evaluation", good_metrics())
    page = Page(report_run(run))
    for expected in (
        "Prompts are kept in 91 % of attributes instead of 78 %", "Verdict by criterion", "Before and after",
        "Failures", "hair is missing", "dark corner, not asked for", "Attribute by attribute", "Held-out evaluator",
        "600 network evaluations", "learning (update)", "Real against real", "classifier:resnet10t:1a2b", "n 256",
        "[68, 83]", "pipeline:77aa", "Not for diagnosis", "…/x/base", "After epoch 6",
    ):  # fmt: skip
        assert expected in page.words, expected
    assert "someone" not in page.html


def test_failures_are_the_tuned_pictures_that_keep_their_prompt_worst(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_pair(run / "evaluation", good_metrics(), cases=16)
    page = Page(report_run(run))
    failures = section(page, "Failures")
    assert "Of 16 pictures drawn after tuning, 15 keep everything their prompt asks for and 1 does not" in page.words
    assert failures.count('<figure class="card">') == 1
    assert "a prompt 15" in failures
    assert "a prompt 15" not in section(page, "Before and after")  # the first twelve, not the best twelve


def test_the_worst_failure_comes_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pair = add_pair(run / "evaluation", good_metrics(), cases=4)
    cases = json.loads((pair / "pairs.json").read_text())
    cases[0]["tuned_probabilities"] = {"hair": 0.4, "dark_corner": 0.1}  # one wrong, by a little
    cases[1]["tuned_probabilities"] = {"hair": 0.4, "dark_corner": 0.6}  # two wrong
    cases[2]["tuned_probabilities"] = {"hair": 0.9, "dark_corner": 0.1}  # none wrong
    (pair / "pairs.json").write_text(json.dumps(cases))  # and the last one: one wrong, by a lot
    assert re.findall(r"“a prompt (\d)”", section(Page(report_run(run)), "Failures")) == ["1", "3", "0"]


def test_text_of_others_is_escaped(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    hostile = "<script>alert(1)</script>\"'"
    add_pair(run / "evaluation", good_metrics(), text=hostile)
    page = Page(report_run(run))
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)" in page.html


def test_pictures_lose_their_metadata(tmp_path: Path) -> None:
    page = Page(report_run(make_run(tmp_path / "run")))
    pictures = [base64.b64decode(uri.split(",")[1]) for uri in page.references if uri.startswith("data:")]
    assert pictures
    for data in pictures:
        assert b"secret-metadata" not in data
        assert Image.open(io.BytesIO(data)).size in ((16, 16), (40, 40))


def test_a_run_without_evaluation_says_so_and_shows_its_samples(tmp_path: Path) -> None:
    page = Page(report_run(make_run(tmp_path / "run")))
    assert "This run was not evaluated" in page.words
    assert section(page, "Before and after").count('<figure class="card">') == 2  # one card a prompt, not one a noise
    assert "Verdict by criterion" not in page.words
    assert "Failures" not in page.words


def test_config_and_metrics_are_enough(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 3\n")
    (run / "metrics.jsonl").write_text('{"epoch": 1, "reward/mean": 0.5}\n{"epoch": 2, "rew')  # cut short by a crash
    page = Page(report_run(run))
    assert "1 epoch" in page.words
    assert "img" not in page.tags


def test_no_real_images_where_the_licence_forbids_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_pair(run / "evaluation", good_metrics())
    assert "also holds real images" in Page(report_run(run)).words
    page = Page(report_run(run, real_images=False))
    assert 'alt="Real' not in page.html
    assert "also holds real images" not in page.words


@pytest.mark.parametrize(("source", "phantom", "goal"), [("phantom-skin", True, "60 %"), ("ham10000", False, "40 %")])
def test_phantoms_are_called_phantoms_and_have_the_higher_goal(
    tmp_path: Path, source: str, phantom: bool, goal: str
) -> None:
    run = make_run(tmp_path / "run")
    pair = add_pair(run / "evaluation", good_metrics())
    (pair / "evaluation.json").write_text(json.dumps({"dataset": {"source": source, "licence": "CC0"}}))
    page = Page(report_run(run))
    assert ("The data are phantoms" in page.words) is phantom
    assert f"At least {goal} of the gap" in page.words


def test_a_second_report_replaces_the_first_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    first = report_run(run).read_text()
    add_pair(run / "evaluation", good_metrics())
    (run / "evaluation" / "metrics.json").write_text("{broken")
    with pytest.raises(UserError, match="not readable as JSON"):
        report_run(run)
    assert (run / "report" / "index.html").read_text() == first  # a failure leaves the earlier page
    (run / "evaluation" / "metrics.json").write_text(json.dumps(good_metrics()))
    page = report_run(run)
    assert page == run / "report" / "index.html"
    assert page.read_text() != first
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert report_run(run).read_text() == report_run(run).read_text()


def test_an_evaluation_of_one_model_has_a_page(tmp_path: Path) -> None:
    metrics = good_metrics()
    plain = {key.removeprefix("tuned/"): entry for key, entry in metrics.items() if key.startswith(("tuned/", "real/"))}
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.json").write_text(json.dumps(plain))
    (out / "evaluation.json").write_text(json.dumps({"notes": ["only 256 images"], "dataset": {"source": "ham10000"}}))
    draw(out / "images" / "000000.png", (1, 2, 3))
    (out / "images" / "metadata.csv").write_text("file_name,text\n000000.png,a prompt of its own\n")
    page = Page(report_evaluation(out))
    assert "a prompt of its own" in section(page, "Pictures")
    assert "Prompts are kept in 91 % [89, 93] of attributes (real images: 95 %)." in page.words
    assert "These images" in page.words
    assert "Before" not in page.words
    assert "Only 256 images." in page.words
    assert "ham10000" in page.words
    assert page.tags.count("img") == 1
    assert "tuning" not in section(page, "Pictures")


def test_a_demo_has_a_page(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    add_pair(tmp_path / "evaluation", {})
    (tmp_path / "metrics.json").write_text(json.dumps(good_metrics()))
    (tmp_path / "demo.json").write_text(json.dumps({"seconds": {"base": 61.2}}))
    page = Page(report_demo(tmp_path))
    assert "Seconds of the whole job base 61" in page.words
    assert "76 % [68, 83] of the gap closed" in page.words
    assert "How tuning went" in page.words
    assert report(tmp_path) == tmp_path / "report" / "index.html"


def test_report_knows_what_a_folder_is(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "Tuning report" in report(run).read_text()
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.json").write_text("{}")
    assert "Evaluation report" in report(out).read_text()


def test_a_large_picture_is_scaled_down(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    draw(run / "samples" / "first" / "000.png", (9, 9, 9), 600)
    uri = next(uri for uri in Page(report_run(run)).references if uri.startswith("data:"))
    assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (256, 256)


class TestMistakes:
    def test_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        for call in (report, report_run):
            with pytest.raises(UserError, match=r"is not a run: it has no config\.yaml"):
                call(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such folder"):
            report(tmp_path / "nowhere")

    def test_a_run_that_has_not_begun(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text("seed: 0\n")
        with pytest.raises(UserError, match="has no epoch yet"):
            report_run(tmp_path)

    def test_no_evaluation(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="is not an evaluation"):
            report_evaluation(tmp_path)

    def test_no_demo(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="is not a finished demo"):
            report_demo(tmp_path)

    @pytest.mark.parametrize(("content", "message"), [("a: [", "not readable as YAML"), ("- 1", "not a table of keys")])
    def test_a_broken_config(self, tmp_path: Path, content: str, message: str) -> None:
        run = make_run(tmp_path / "run")
        (run / "config.yaml").write_text(content)
        with pytest.raises(UserError, match=message):
            report_run(run)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("metrics.json", "[]", "not a table of keys"),
            ("metrics.json", '{"base/x": 1.5}', "'base/x' is not an entry"),
            ("pairs.json", '[{"case_id": "1"}]', "not a list of cases with a text"),
            ("pairs.json", '[{"text": "t", "tuned": "../../../secret.png"}]', "lies outside the folder"),
        ],
    )
    def test_broken_evaluation_files(self, tmp_path: Path, name: str, content: str, message: str) -> None:
        run = make_run(tmp_path / "run")
        add_pair(run / "evaluation", good_metrics())
        (run / "evaluation" / name).write_text(content)
        with pytest.raises(UserError, match=message):
            report_run(run)

    def test_a_broken_picture(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        (run / "samples" / "first" / "000.png").write_bytes(b"no picture")
        with pytest.raises(UserError, match="not a readable picture"):
            report_run(run)
