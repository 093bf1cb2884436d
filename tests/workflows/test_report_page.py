"""The report page as a reader meets it: asked element by element, not by pieces of text."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as Tree
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.workflows.report import report
from clinalign.workflows.report_findings import summarise
from clinalign.workflows.report_forest import attribute_forest, left_out, subgroup_forests
from clinalign.workflows.report_keys import split_key, subgroups
from clinalign.workflows.report_metrics import Move
from clinalign.workflows.report_pictures import Card, sheets
from clinalign.workflows.report_summary import headline, lines
from clinalign.workflows.report_trends import difference, trends
from clinalign.workflows.report_verdicts import verdicts

ACCURACY, FID = "alignment/attribute_accuracy", "fidelity/fid"
JUDGE, DOMAIN = {"evaluator": "classifier:resnet10t:1a2b"}, {"extractor": "domain:classifier:resnet10t:1a2b:size=32"}

VOID = {"meta", "img", "br", "hr", "input", "link", "path", "rect", "line", "circle", "use"}


class Parser(HTMLParser):
    """Builds the tree; an element that is closed without being open, or left open, is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Tree.Element("page")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Tree.SubElement(self.open[-1], tag, {name: value or "" for name, value in attrs})
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        Tree.SubElement(self.open[-1], tag, {name: value or "" for name, value in attrs})

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        parent = self.open[-1]
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + data
        else:
            parent.text = (parent.text or "") + data


def parse(page: Path) -> Tree.Element:
    """Return the page as a tree."""
    parser = Parser()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == [parser.root], "an element is left open"
    return parser.root


def words(element: Tree.Element | None) -> str:
    """Return the text of an element, spaces made single."""
    assert element is not None
    return " ".join("".join(element.itertext()).replace("\u00a0", " ").split())


def section(root: Tree.Element, heading: str) -> Tree.Element:
    """Return the section with this heading."""
    found = [each for each in root.iter("section") if words(each.find("h2")) == heading]
    assert found, f"no section '{heading}'"
    return found[0]


def rows(table: Tree.Element) -> list[list[str]]:
    """Return the cells of each row of a table."""
    return [[words(cell) for cell in row if cell.tag in ("td", "th")] for row in table.iter("tr")]


def entry(value: float, low: float, high: float, n: int = 256, **more: Any) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": n, **more}


def some_metrics() -> dict[str, dict[str, Any]]:
    """Prompts are kept better, precision is worse, FID is not sure, and two sexes were measured apart."""
    return {
        f"base/{ACCURACY}": entry(0.80, 0.78, 0.82, **JUDGE),
        f"tuned/{ACCURACY}": entry(0.90, 0.88, 0.92, **JUDGE),
        f"real/{ACCURACY}": entry(0.95, 0.94, 0.96, **JUDGE),
        f"change/{ACCURACY}": entry(0.10, 0.08, 0.12, **JUDGE),
        "base/alignment/accuracy/hair": entry(0.70, 0.66, 0.74, **JUDGE),
        "tuned/alignment/accuracy/hair": entry(0.90, 0.86, 0.94, **JUDGE),
        "real/alignment/accuracy/hair": entry(0.98, 0.97, 0.99, **JUDGE),
        "change/alignment/accuracy/hair": entry(0.20, 0.15, 0.25, **JUDGE),
        f"base/{FID}": entry(20.0, 18.0, 22.0, **DOMAIN),
        f"tuned/{FID}": entry(19.0, 17.0, 21.0, **DOMAIN),
        f"real/{FID}": entry(4.0, 3.0, 5.0, n=128, **DOMAIN),
        f"change/{FID}": entry(-1.0, -3.0, 1.0, **DOMAIN),
        "base/fidelity/precision": entry(0.92, 0.90, 0.94, **DOMAIN),
        "tuned/fidelity/precision": entry(0.85, 0.83, 0.87, **DOMAIN),
        **subgroup("sex=female", ACCURACY, 0.79, 0.91, (0.09, 0.15), n=140, real=0.96, **JUDGE),
        **subgroup("sex=male", ACCURACY, 0.81, 0.89, (0.05, 0.11), n=116, real=0.94, **JUDGE),
        **subgroup("site=head/neck", ACCURACY, 0.85, 0.80, (-0.08, -0.02), n=40, real=0.95, **JUDGE),
        **subgroup("sex=female", FID, 30.0, 28.0, (-4.0, 0.0), n=140, **DOMAIN),
        **subgroup("sex=male", FID, 31.0, 36.0, (2.0, 8.0), n=116, **DOMAIN),
    }


def subgroup(
    cell: str, key: str, before: float, after: float, change: tuple[float, float], n: int, real: float | None = None,
    **more: Any,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    spread = 0.02 * before
    found = {
        f"{side}/subgroup/{cell}/{key}": entry(at, at - spread, at + spread, n, **more)
        for side, at in (("base", before), ("tuned", after), ("real", real))
        if at is not None
    }
    return found | {f"change/subgroup/{cell}/{key}": entry(after - before, *change, n, **more)}


CURVE = [
    {"epoch": i, "reward/mean": 0.5 + 0.02 * i, "reward/std": 0.1, "evaluate/attribute_accuracy": 0.7 + 0.01 * i,
     "evaluate/win_rate": 0.5 + 0.02 * i, "evaluate/ms_ssim": 0.4, "kl": 0.01 * i, "watch/edges": 0.2}
    for i in range(1, 9)
]  # fmt: skip


def make_run(
    folder: Path, seed: int = 0, metrics: dict[str, Any] | None = None, lift: float = 0.0, **config: Any
) -> Path:
    """A run with its evaluation: two prompts, three noises each."""
    evaluation = folder / "evaluation"
    evaluation.mkdir(parents=True)
    settings = {"seed": seed, "data": {"path": "data"}, "generator": {"model": "base"}, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    rows = [{**row, "reward/mean": row["reward/mean"] + lift} for row in CURVE]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made_of = {"generator": "base:1", "reward": "sum:2", "dataset": {"fingerprint": "3"}}
    (folder / "manifest.json").write_text(json.dumps(made_of))
    (evaluation / "metrics.json").write_text(json.dumps(some_metrics() if metrics is None else metrics))
    facts = {
        "notes": [],
        "subgroups": {"left_out": [{"cell": "site=oral", "n": 9, "n_real": 7, "left_out": ["alignment", "fidelity"]}]},
    }
    (evaluation / "evaluation.json").write_text(json.dumps(facts))
    pairs = []
    for i in range(6):
        names = {side: f"{side}/{i}.png" for side in ("base", "tuned", "real")}
        for side, name in names.items():
            (evaluation / side).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (40 * i, 0, len(side))).save(evaluation / name)
        pairs.append({
            "case_id": f"c{i}", "text": f"prompt {i % 2}", "attributes": {"hair": 1}, **names,
            "tuned_probabilities": {"hair": 0.1 if i == 4 else 0.9},
        })  # fmt: skip
    (evaluation / "pairs.json").write_text(json.dumps(pairs))
    return folder


class TestSummary:
    def test_the_headline_counts_what_moved_and_which_goals_were_met(self) -> None:
        told = headline(some_metrics(), verdicts(some_metrics()))
        # attributes kept and hair rose, precision fell, FID is not sure
        assert told.startswith("Of 4 numbers measured before and after tuning, 2 got better, 1 got worse and 1 did not")
        assert re.search(r"Of 5 goals: .*not measured", told)
        assert headline({}, []) == ""

    def test_a_metric_without_a_sentence_of_its_own_is_named_when_it_got_worse(self) -> None:
        bad = [finding.text for finding in summarise(some_metrics()) if finding.kind == "bad"]
        assert "Worse: Precision (92.0 % to 85.0 %)." in bad

    def test_nothing_is_called_worse_when_nothing_moved(self) -> None:
        still = {key: found for key, found in some_metrics().items() if key.startswith(("base/", "real/"))}
        still |= {key.replace("base/", "tuned/", 1): found for key, found in still.items() if key.startswith("base/")}
        assert {which for _, which in trends(still)} == {""}
        assert not [finding for finding in summarise(still) if finding.text.startswith(("Worse", "Also better"))]

    def test_lower_is_better_where_it_is(self) -> None:
        metrics = {f"base/{FID}": entry(20, 19, 21), f"tuned/{FID}": entry(30, 29, 31)}
        assert trends(metrics) == [(FID, "worse")]

    def test_the_numbers_that_matter_have_their_interval_and_n(self) -> None:
        first, second, third = lines(some_metrics())
        assert (first.before, first.after, first.change, first.trend) == (
            "80.0 %", "90.0 %", "+10.0 points [8.0, 12.0]", "better",
        )  # fmt: skip
        assert (second.label, second.trend, second.size) == ("FID", "", "256")
        assert second.real == "4.00 (n 128)"  # FID falls with n, so another n is said
        assert (third.change, third.trend) == ("\u22127.0 points", "worse")

    def test_a_difference_has_its_sign(self) -> None:
        assert difference(Move(2.0, 1.0, -1.5, -0.5, True), "number") == "\u22121.00 [\u22121.50, \u22120.500]"
        assert difference(Move(0.5, 0.6, None, None, False), "percent") == "+10.0 points"


class TestKeys:
    @pytest.mark.parametrize(
        ("key", "parts"),
        [
            ("tuned/fidelity/fid@inception", ("tuned", "", "fidelity", "fid@inception")),
            ("fidelity/fid", ("", "", "fidelity", "fid")),
            ("change/fid", ("change", "", "", "fid")),
            ("gap/attribute_accuracy_closed", ("gap", "", "", "attribute_accuracy_closed")),
            ("real/subgroup/sex=female/alignment/accuracy/hair", ("real", "sex=female", "alignment", "accuracy/hair")),
            ("subgroup/site=head/neck/fidelity/fid", ("", "site=head/neck", "fidelity", "fid")),
            ("tuned/subgroup/attribute:MEL=1/privacy/x", ("tuned", "attribute:MEL=1", "privacy", "x")),
        ],
    )
    def test_a_key_is_taken_apart_and_put_together(self, key: str, parts: tuple[str, ...]) -> None:
        found = split_key(key)
        assert (found.prefix, found.subgroup, found.family, found.name) == parts
        assert str(found) == key

    def test_subgroups_keep_their_order(self) -> None:
        assert subgroups(some_metrics()) == {"sex": ["female", "male"], "site": ["head/neck"]}


class TestForest:
    def test_places_are_in_the_order_of_the_values_and_within_the_strip(self) -> None:
        plot = subgroup_forests(some_metrics())[0]
        rows = {row.label: row for _, group in plot.groups for row in group}
        before, after, real = rows["female"].marks
        assert 0 <= before.low < before.at < before.high < after.at < real.at <= 100
        assert rows["male"].marks[1].at < after.at  # 0.89 lies left of 0.91
        assert plot.line == plot.overall.marks[1].at  # the dashed line is the value of all images

    def test_changes_are_beside_zero_as_they_should(self) -> None:
        plot = subgroup_forests(some_metrics())[0]
        rows = {row.label: row for _, group in plot.groups for row in group}
        assert rows["head/neck"].moved.high < plot.zero < rows["male"].moved.low
        assert [rows[name].trend for name in ("female", "male", "head/neck")] == ["better", "better", "worse"]
        assert rows["male"].change == "+8.0 points [5.0, 11.0]"
        assert rows["male"].size == "116"

    def test_fid_of_rows_of_different_n_is_not_put_beside_the_whole(self) -> None:
        plot = subgroup_forests(some_metrics())[1]
        assert plot.metric == FID
        assert plot.line is None
        assert "not rows with one another" in plot.caption
        assert [mark.side for mark in plot.overall.marks] == ["base", "tuned"]  # real images have another n

    def test_without_subgroups_there_is_none(self) -> None:
        plain = {key: found for key, found in some_metrics().items() if "subgroup" not in key}
        assert subgroup_forests(plain) == []
        assert attribute_forest({f"tuned/{ACCURACY}": entry(0.9, 0.8, 1.0)}) is None

    def test_one_value_alone_still_has_a_place(self) -> None:
        plot = attribute_forest({"images/alignment/accuracy/hair": {"value": 0.5, "n": 9}})
        assert plot is not None
        assert plot.groups[0][1][0].marks[0].at == 50.0
        assert plot.change_ticks == ()

    def test_what_was_left_out_has_its_n(self) -> None:
        cells = [{"cell": "attribute:MEL=1", "n": 30, "n_real": 21, "left_out": ["fidelity"]}]
        (cell,) = left_out({"subgroups": {"left_out": cells}})
        assert (cell.name, cell.size, cell.real, cell.families) == ("MEL: asked for", "30", "21", "fidelity")
        assert left_out({}) == []

    def test_a_subgroup_that_lost_is_a_marked_sentence(self) -> None:
        findings = summarise(some_metrics())
        good = [finding.text for finding in findings if finding.kind == "good"]
        bad = [finding.text for finding in findings if finding.kind == "bad"]
        assert "Prompts are kept better beyond chance in 2 of 3 subgroups." in good
        assert any(text.startswith("Attributes kept: worse in 1 subgroup: site head/neck (\u22125.0") for text in bad)
        assert any(text.startswith("FID: worse in 1 subgroup: sex male (+5.00 [2.00, 8.00])") for text in bad)


class TestGallery:
    def test_pictures_of_one_prompt_come_together_none_chosen(self) -> None:
        cards = [Card(f"prompt {i % 3}", (), float(i), 0.0) for i in range(30)]
        found = sheets(cards)
        assert [sheet.text for sheet in found] == ["prompt 0", "prompt 1", "prompt 2"]
        assert [card.kept for card in found[1].cards] == [1.0, 4.0, 7.0, 10.0]  # the first four

    def test_there_is_an_end(self) -> None:
        many = sheets([Card(f"prompt {i // 4}", (), None, 0.0) for i in range(400)])
        assert sum(len(sheet.cards) for sheet in many) == 32
        assert len(sheets([Card(f"prompt {i}", (), None, 0.0) for i in range(400)])) == 12


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Tree.Element:
    return parse(report(make_run(tmp_path_factory.mktemp("page") / "run")))


class TestPage:
    def test_the_first_section_parts_good_from_bad(self, page: Tree.Element) -> None:
        first = section(page, "In a minute")
        halves = next(each for each in first.iter("div") if each.get("class") == "halves")
        good, bad = ([words(item) for item in half.iter("li")] for half in halves)
        assert any("Prompts are kept in 90 % of attributes instead of 80 %" in text for text in good)
        assert any("Precision (92.0 % to 85.0 %)" in text for text in bad)
        assert not set(good) & set(bad)
        assert "This is one run" in words(first)  # how sure
        assert "256 pictures of each generator" in words(first)  # on how many
        assert JUDGE["evaluator"] in [words(code) for code in first.iter("code")]  # with what

    def test_the_table_at_a_glance(self, page: Tree.Element) -> None:
        table = next(each for each in page.iter("table") if each.get("class") == "glance")
        assert rows(table)[1] == [
            "Attributes kept higher is better, n 256", "80.0 % to 90.0 %", "+10.0 points [8.0, 12.0] \u25b2 better",
            "95.0 %",
        ]  # fmt: skip

    def test_a_prompt_has_a_row_before_a_row_after_and_a_row_of_real_images(self, page: Tree.Element) -> None:
        part = section(page, "Before and after")
        figures = list(part.iter("figure"))
        assert [words(figure.find("figcaption")) for figure in figures] == ["“prompt 0”", "“prompt 1”"]
        labels = [each.text for each in figures[0].iter("div") if (each.get("class") or "").startswith("label")]
        assert labels == ["Before", "After", "Real"]
        alts = [image.get("alt") for image in figures[0].iter("img")]
        assert alts[:4] == [
            "Before, picture 1 of 3: prompt 0", "After, picture 1 of 3: prompt 0", "Real, picture 1 of 3: prompt 0",
            "Before, picture 2 of 3: prompt 0",
        ]  # fmt: skip
        assert "6 of 6; none was picked or left out" in words(part)
        assert words(figures[0]).count("hair is missing") == 1  # the third picture of the first prompt, case 4

    def test_subgroups_have_rows_with_n_and_the_left_out_are_listed(self, page: Tree.Element) -> None:
        part = section(page, "Subgroups")
        plots = [table for table in part.iter("table") if table.get("class") == "forest"]
        shown = {row[0]: row for row in rows(plots[0])}
        assert shown["male n 116"][1:] == [
            "before 81.0 %, after 89.0 %, real images 94.0 %", "+8.0 points [5.0, 11.0] \u25b2 better",
        ]  # fmt: skip
        assert ["site: oral", "n 9", "n 7", "alignment, fidelity"] in rows(list(part.iter("table"))[-1])
        # they are not among the plain numbers
        assert "female" not in words(section(page, "All numbers"))

    def test_what_the_reward_says_is_not_called_held_out(self, page: Tree.Element) -> None:
        part = section(page, "How tuning went")
        plots = {words(figure.find("h3")): figure for figure in part.iter("figure")}
        assert {"Reward", "Held-out evaluator", "Wins against the model before tuning", "Likeness within a prompt",
                "Watch metrics"} <= plots.keys()  # fmt: skip
        label = next(plots["Held-out evaluator"].iter("svg")).get("aria-label")
        assert label == "Held-out evaluator by epoch: attribute accuracy 0.710 at epoch 1, 0.780 at 8"

    def test_everything_has_a_text_for_those_who_do_not_see_it(self, page: Tree.Element) -> None:
        assert all(image.get("alt") for image in page.iter("img"))
        drawings = list(page.iter("svg"))
        assert drawings
        assert all(svg.get("aria-label") or svg.get("aria-hidden") == "true" for svg in drawings)
        html = page.find("html")
        assert html is not None
        assert html.get("lang") == "en"

    def test_tables_have_headers_with_a_scope(self, page: Tree.Element) -> None:
        for table in page.iter("table"):
            heads = list(table.iter("th"))
            assert heads
            assert all(head.get("scope") and words(head) for head in heads)

    def test_headings_go_down_one_level_at_a_time(self, page: Tree.Element) -> None:
        levels = [int(each.tag[1]) for each in page.iter() if re.fullmatch("h[1-6]", each.tag)]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))

    def test_letters_stand_out_from_their_ground(self, page: Tree.Element) -> None:
        style = words(next(page.iter("style")))
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style))
        grounds = {
            "ink": "paper",
            "soft": "panel",
            "good": "good-bg",
            "bad": "bad-bg",
            "open": "paper",
            "tuned": "paper",
        }
        for ink, ground in grounds.items():
            assert contrast(colors[ink], colors[ground]) >= 4.5, ink  # WCAG 2.1, 1.4.3


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.1."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


class TestSeeds:
    def test_several_seeds_have_a_table_with_mean_interval_and_range(self, tmp_path: Path) -> None:
        first = make_run(tmp_path / "a")
        changes = {1: 0.08, 2: 0.12}
        others = []
        for seed, change in changes.items():
            metrics = some_metrics() | {f"tuned/{ACCURACY}": entry(0.80 + change, 0.85, 0.95, **JUDGE)}
            others.append(make_run(tmp_path / f"b{seed}", seed, metrics, lift=0.1 * seed))
        page = parse(report(first, also=others))
        table = next(section(page, "How tuning went").iter("table"))
        assert rows(table)[0][:5] == ["Metric", "a", "b1", "b2", "Mean [95 %]"]
        # 0.10, 0.08, 0.12: mean 0.10, sd 0.02, t(2) 4.303, half width 0.0497
        assert rows(table)[1] == [
            "Attributes kept higher is better", "+10.0 points", "+8.0 points", "+12.0 points",
            "+10.0 points [5.0, 15.0]", "+8.0 points to +12.0 points", "\u25b2 better",
        ]  # fmt: skip
        # lifted by 0, 0.1 and 0.2: the line is 0.1 above the first run
        reward = next(section(page, "How tuning went").iter("svg"))
        assert reward.get("aria-label") == (
            "Reward by epoch: reward 0.620 at epoch 1, 0.760 at 8 (band 0.660 to 0.860)"
        )
        assert "Over 3 seeds of tuning, mean change: Attributes kept +10.0 points" in words(
            section(page, "In a minute")
        )

    def test_what_one_run_shows_and_the_seeds_do_not_is_said(self, tmp_path: Path) -> None:
        metrics = some_metrics() | {f"tuned/{ACCURACY}": entry(0.75, 0.73, 0.77, **JUDGE)}
        page = parse(report(make_run(tmp_path / "a"), also=[make_run(tmp_path / "b", 1, metrics)]))
        told = words(section(page, "In a minute"))
        assert "Beyond chance in a, but not over the seeds: Attributes kept." in told  # +10 and -5 points

    def test_another_config_is_refused_by_name(self, tmp_path: Path) -> None:
        first = make_run(tmp_path / "a", rollout={"steps": 10})
        other = make_run(tmp_path / "b", 1, rollout={"steps": 20})
        with pytest.raises(UserError, match="is another experiment: rollout: steps differ"):
            report(first, also=[other])

    def test_another_base_or_other_data_are_refused(self, tmp_path: Path) -> None:
        first, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", 1)
        made_of = {"generator": "base:9", "reward": "sum:2", "dataset": {"fingerprint": "8"}}
        (other / "manifest.json").write_text(json.dumps(made_of))
        with pytest.raises(UserError, match="generator, the data differ"):
            report(first, also=[other])

    def test_one_seed_twice_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="has seed 0, as a has"):
            report(make_run(tmp_path / "a"), also=[make_run(tmp_path / "b")])

    def test_numbers_of_different_networks_are_not_put_together(self, tmp_path: Path) -> None:
        metrics = some_metrics()
        metrics[f"tuned/{ACCURACY}"] = metrics[f"tuned/{ACCURACY}"] | {"evaluator": "classifier:other:9"}
        page = parse(report(make_run(tmp_path / "a"), also=[make_run(tmp_path / "b", 1, metrics)]))
        part = section(page, "How tuning went")
        assert "Measured with different networks in these runs, so not put together: Attributes kept." in words(part)
        assert [row[0] for row in rows(next(part.iter("table")))][1].startswith("FID")

    def test_an_evaluation_elsewhere_is_found_by_its_option(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "a")
        (run / "evaluation").rename(tmp_path / "elsewhere")
        assert "was not evaluated" in words(parse(report(run)))
        assert "Prompts are kept in 90 %" in words(parse(report(run, evaluation=tmp_path / "elsewhere")))
        with pytest.raises(UserError, match=r"--evaluation .* has no metrics.json"):
            report(run, evaluation=tmp_path)
        (tmp_path / "elsewhere" / "metrics.json").write_text(json.dumps({FID: entry(1, 0, 2)}))
        with pytest.raises(UserError, match="measures one set of images"):
            report(run, evaluation=tmp_path / "elsewhere")
