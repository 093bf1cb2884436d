from __future__ import annotations

import pytest

from clinalign.core.errors import UserError
from clinalign.data.reports.prompt_text import PromptTextSettings, choose_text, choose_texts
from clinalign.data.reports.sections import Report

IMPRESSION = Report(
    "a", findings="Findings of many words are here.", impression="1. Small left XXXX effusion. 2. Normal heart."
)
FINDINGS = Report("b", findings="There is no pleural effusion today.")


def test_the_impression_is_the_prompt_without_list_numbers_and_removed_words() -> None:
    choice = choose_text(IMPRESSION)
    assert (choice.text, choice.status) == ("Small left effusion. Normal heart.", "impression")
    kept = choose_text(IMPRESSION, PromptTextSettings(drop_removed=False))
    assert kept.text == "Small left XXXX effusion. Normal heart."


def test_the_findings_stand_in_only_where_asked_for() -> None:
    assert choose_text(FINDINGS).status == "missing"
    choice = choose_text(FINDINGS, PromptTextSettings(or_findings=True))
    assert (choice.text, choice.status) == (FINDINGS.findings, "findings")
    assert choose_text(IMPRESSION, PromptTextSettings(or_findings=True)).status == "impression"


def test_what_is_left_out_is_counted_with_its_reason() -> None:
    reports = [
        IMPRESSION,
        FINDINGS,
        Report("c", impression="Normal chest."),
        Report("d", impression="XXXX."),
        Report("e", impression="word " * 76),
        Report("f"),
    ]
    chosen = choose_texts(reports)
    assert chosen.counts == {"texts": 1, "from_findings": 0, "cut": 0, "missing": 2, "short": 2, "long": 1}
    assert (chosen.missing, chosen.short, chosen.long) == (["b", "f"], ["c", "d"], ["e"])
    assert choose_texts(reports, PromptTextSettings(or_findings=True)).from_findings == ["b"]


def test_a_long_text_ends_after_a_whole_sentence_where_asked_for() -> None:
    report = Report("a", impression="One two three four five. Six seven eight nine ten.")
    limits = {"shortest": 5, "longest": 9}
    assert choose_text(report, PromptTextSettings(**limits)).status == "long"
    choice = choose_text(report, PromptTextSettings(**limits, cut=True))
    assert (choice.text, choice.was_cut) == ("One two three four five.", True)
    assert choose_texts([report], PromptTextSettings(**limits, cut=True)).cut == ["a"]
    # no sentence fits, or what fits is too short
    assert choose_text(report, PromptTextSettings(shortest=1, longest=4, cut=True)).status == "long"
    assert choose_text(report, PromptTextSettings(shortest=6, longest=9, cut=True)).status == "long"


def test_a_tokenizers_count_can_take_the_place_of_words() -> None:
    report = Report("a", impression="No acute cardiopulmonary abnormality.")
    assert choose_text(report).status == "short"
    assert choose_text(report, PromptTextSettings(count=len)).status == "impression"


@pytest.mark.parametrize(("shortest", "longest"), [(0, 75), (10, 9)])
def test_impossible_lengths_are_told(shortest: int, longest: int) -> None:
    with pytest.raises(UserError, match=f"a prompt of {shortest} to {longest} words"):
        PromptTextSettings(shortest=shortest, longest=longest)


def test_an_id_given_twice_is_told() -> None:
    with pytest.raises(UserError, match="two reports are called 'a'"):
        choose_texts([IMPRESSION, IMPRESSION])


def test_the_real_collection(indiana: list[Report]) -> None:
    counts = choose_texts(indiana).counts
    assert counts == {"texts": 2089, "from_findings": 0, "cut": 0, "missing": 34, "short": 1825, "long": 7}
