"""Chooses the text of a report that a generator is prompted with, and counts what is left out.

CXRL used impression-style text (P by its examples). 5 to 75 tokens of the impression is our choice (R).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from clinalign.core.errors import UserError
from clinalign.data.reports.sections import REMOVED, Report
from clinalign.data.reports.sentences import split_sentences

Status = Literal["impression", "findings", "missing", "short", "long"]


def count_words(text: str) -> int:
    """Count words parted by blanks. A tokenizer's tokens are more: pass its own count where the limit is its."""
    return len(text.split())


@dataclass(frozen=True)
class PromptTextSettings:
    """Which text of a report is the prompt.

    Attributes:
        or_findings: Take the findings where there is no impression (R: no).
        shortest: Fewest words; below it a report is left out (R: 5).
        longest: Most words (R: 75, the 77 of CLIP less its two marks).
        cut: What is too long ends after the last whole sentence that fits, instead of being left out (R: no).
        drop_removed: Leave out ``XXXX``, which no generator can draw and which takes up several tokens (R: yes).
        count: Counts the words of a text; give the tokenizer's own count to limit tokens.
    """

    or_findings: bool = False
    shortest: int = 5
    longest: int = 75
    cut: bool = False
    drop_removed: bool = True
    count: Callable[[str], int] = count_words

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest:
            raise UserError(
                f"a prompt of {self.shortest} to {self.longest} words: give 1 or more for the shortest, "
                "and no less for the longest"
            )


@dataclass(frozen=True)
class Choice:
    """The text of one report, or why there is none.

    Attributes:
        text: The prompt; ``""`` where the report is left out.
        status: The section that it is from, or ``missing``, ``short`` or ``long``.
        was_cut: Whether sentences were left out at its end.
    """

    text: str
    status: Status
    was_cut: bool = False


@dataclass(frozen=True)
class ChosenTexts:
    """The prompts of many reports, and the reports that give none.

    Attributes:
        texts: Report id to prompt, in the order given.
        from_findings: Ids whose prompt is from the findings.
        cut: Ids whose prompt was cut.
        missing: Ids without the sections asked for.
        short: Ids left out as too short.
        long: Ids left out as too long.
    """

    texts: dict[str, str] = field(default_factory=dict)
    from_findings: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    long: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many reports were taken, cut and left out, and why."""
        names = ("texts", "from_findings", "cut", "missing", "short", "long")
        return {name: len(getattr(self, name)) for name in names}


def choose_text(report: Report, settings: PromptTextSettings = PromptTextSettings()) -> Choice:
    """Choose the prompt of one report: its impression, else, where asked for, its findings."""
    section: Literal["impression", "findings"] = "impression"
    if not report.impression and settings.or_findings:
        section = "findings"
    text = getattr(report, section)
    sentences = [_cleaned(sentence, settings) for sentence in split_sentences(text)]
    sentences = [sentence for sentence in sentences if any(letter.isalpha() for letter in sentence)]
    if not sentences:
        return Choice("", "missing" if not text else "short")
    whole = len(sentences)
    while settings.cut and sentences and settings.count(" ".join(sentences)) > settings.longest:
        sentences.pop()
    text = " ".join(sentences)
    length = settings.count(text)
    if not sentences or length > settings.longest or (length < settings.shortest and len(sentences) < whole):
        return Choice("", "long")
    if length < settings.shortest:
        return Choice("", "short")
    return Choice(text, section, len(sentences) < whole)


def choose_texts(reports: Iterable[Report], settings: PromptTextSettings = PromptTextSettings()) -> ChosenTexts:
    """Choose the prompt of each report and count those that give none.

    Raises:
        UserError: When two reports have one id.
    """
    chosen = ChosenTexts()
    seen: set[str] = set()
    for report in reports:
        if report.report_id in seen:
            raise UserError(f"two reports are called '{report.report_id}': ids must differ")
        seen.add(report.report_id)
        choice = choose_text(report, settings)
        if not choice.text:
            {"missing": chosen.missing, "short": chosen.short, "long": chosen.long}[choice.status].append(
                report.report_id
            )
            continue
        chosen.texts[report.report_id] = choice.text
        if choice.status == "findings":
            chosen.from_findings.append(report.report_id)
        if choice.was_cut:
            chosen.cut.append(report.report_id)
    return chosen


def _cleaned(sentence: str, settings: PromptTextSettings) -> str:
    if not settings.drop_removed:
        return sentence
    words = [word for word in sentence.split() if REMOVED not in word]
    # a mark behind a removed word ("seen XXXX.") still ends the sentence
    return " ".join(words) + ("." if words and not words[-1].endswith((".", "!", "?")) else "")
