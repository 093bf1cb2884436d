"""Who is asked for, and with which noise."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from clinalign.core.errors import UserError
from clinalign.core.types import Case
from clinalign.tuning.prompts import PromptSource, prompt_id

# five cases, three prompts: "a" is twice as frequent, and "c" differs from "b" in an attribute alone
CASES = [
    Case("0", "a", {"hair": 1}), Case("1", "b", {"hair": 0}), Case("2", "a", {"hair": 1}),
    Case("3", "b", {"hair": 1}), Case("4", "a", {"hair": 1}),
]  # fmt: skip


def test_prompts_are_told_apart_by_text_and_attributes_not_by_case() -> None:
    assert prompt_id(CASES[0]) == prompt_id(CASES[2])
    assert prompt_id(CASES[1]) != prompt_id(CASES[3])
    assert prompt_id(CASES[0]) == prompt_id(replace(CASES[0], case_id="other", split="test"))
    assert len(PromptSource(CASES, "texts", 0).choices) == 3


def test_same_seed_and_epoch_same_requests() -> None:
    first, second = (PromptSource(CASES, "texts", 3) for _ in range(2))
    assert first.epoch(5, 2, 4) == second.epoch(5, 2, 4)
    first.epoch(1, 2, 4)  # what was asked before does not matter
    assert first.epoch(5, 2, 4) == second.epoch(5, 2, 4)
    assert first.epoch(6, 2, 4) != first.epoch(5, 2, 4)
    assert PromptSource(CASES, "texts", 4).epoch(5, 2, 4) != first.epoch(5, 2, 4)


@pytest.mark.parametrize("mode", ["texts", "cases"])
def test_seeds_are_unique_within_an_epoch_and_between_epochs(mode: str) -> None:
    source = PromptSource(CASES, mode, 0)
    seeds = [request.seed for epoch in range(1, 4) for request in source.epoch(epoch, 20, 3)]  # prompts come again
    seeds += [request.seed for request in source.fixed(5, 3)]
    assert len(set(seeds)) == len(seeds)


def test_a_sample_keeps_its_seed_when_more_is_asked_for() -> None:
    source = PromptSource(CASES, "texts", 0)
    few = {(r.prompt_id, r.seed) for r in source.epoch(1, 3, 2)}
    many = {(r.prompt_id, r.seed) for r in source.epoch(1, 3, 8)}
    assert few < many


def test_requests_are_grouped_by_prompt() -> None:
    ids = [request.prompt_id for request in PromptSource(CASES, "texts", 0).epoch(1, 3, 4)]
    assert [ids[i : i + 4] for i in range(0, 12, 4)] == [[ids[i]] * 4 for i in range(0, 12, 4)]


def test_texts_are_uniform_and_cases_as_frequent_as_in_the_data() -> None:
    sources = {mode: PromptSource(CASES, mode, 0) for mode in ("texts", "cases")}
    drawn = {
        mode: Counter(
            request.case.text + str(request.case.attributes["hair"])
            for epoch in range(500)
            for request in source.epoch(epoch, 1, 1)
        )
        for mode, source in sources.items()
    }
    # binomial spread of 500 draws is at most 11; 45 is four of them
    for text in ("a1", "b0", "b1"):
        assert abs(drawn["texts"][text] - 500 / 3) < 45
    assert abs(drawn["cases"]["a1"] - 300) < 45
    # without replacement: three prompts an epoch are all three, every time
    assert all(len({request.prompt_id for request in sources["texts"].epoch(epoch, 3, 1)}) == 3 for epoch in range(20))


@pytest.mark.parametrize("mode", ["texts", "cases"])
def test_fixed_requests_stay_and_show_each_prompt_once(mode: str) -> None:
    source = PromptSource(CASES, mode, 0)
    fixed = source.fixed(8, 2)
    source.epoch(1, 4, 4)
    assert source.fixed(8, 2) == fixed == PromptSource(CASES, mode, 0).fixed(8, 2)
    assert len(fixed) == 3 * 2  # there are three prompts
    assert len({request.seed for request in fixed}) == 6
    assert len(source.fixed(2, 2)) == 4


def test_no_case_is_an_error() -> None:
    with pytest.raises(UserError, match=r"no case is left to take prompts from: look at data.split and data.known"):
        PromptSource([], "texts", 0)
