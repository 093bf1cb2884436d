"""Splits a radiology report into its sections.

Reports of public collections had words removed for privacy: ``XXXX`` in the Indiana collection, ``___`` in MIMIC-CXR.
:func:`normalise` writes both as ``XXXX``. The text keeps the mark; the labeller passes over it as over a word that it
does not know, so that a removed word never turns a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

REMOVED = "XXXX"
"""What stands where a word was removed."""

SECTIONS = ("indication", "comparison", "findings", "impression")

HEADINGS: dict[str, str] = {
    "indication": "indication",
    "indications": "indication",
    "clinical indication": "indication",
    "clinical information": "indication",
    "clinical history": "indication",
    "history": "indication",
    "reason for exam": "indication",
    "reason for examination": "indication",
    "reason for study": "indication",
    "comparison": "comparison",
    "comparisons": "comparison",
    "comparison study": "comparison",
    "findings": "findings",
    "finding": "findings",
    "impression": "impression",
    "impressions": "impression",
    "conclusion": "impression",
    "conclusions": "impression",
    "opinion": "impression",
    "findings and impression": "impression",
    "findings/impression": "impression",
    # known, and told apart so that their text does not run into the section before
    "examination": "",
    "exam": "",
    "study": "",
    "technique": "",
    "procedure": "",
    "views": "",
    "view": "",
    "recommendation": "",
    "recommendations": "",
    "notification": "",
    "addendum": "",
    "wet read": "",
    "final report": "",
}
"""Heading in lower case to section; text under a heading with ``""`` belongs to none of the four."""


def _any_of(headings: Iterable[str]) -> str:
    longest_first = sorted(headings, key=len, reverse=True)
    return "|".join(r"\s+".join(re.escape(word) for word in heading.split()) for heading in longest_first)


# At the start of a line with or without a colon (then alone on it), or after the end of a sentence in capitals.
_HEADING = re.compile(
    rf"(?im)^[ \t]*(?P<line>{_any_of(HEADINGS)})[ \t]*(?::|(?=\n|\Z))"
    rf"|(?<=[.!?\]])[ \t]+(?P<inline>(?-i:{_any_of(heading.upper() for heading in HEADINGS)})):"
)
_NEW_ITEM = re.compile(r"(?<![.!?:;,])[ \t]*\n(?=[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]|[ \t]*\n)")
_BULLET = re.compile(r"(?m)^[ \t]*[-*•][ \t]+")


@dataclass(frozen=True)
class Report:
    """One radiology report.

    Attributes:
        report_id: Name of the report in its source.
        indication: Why the film was taken. Each section is ``""`` where the report has none.
        comparison: What it is compared with.
        findings: What is seen.
        impression: What it means.
        codes: Index terms that the source gives (MeSH), as the source writes them.
    """

    report_id: str
    indication: str = ""
    comparison: str = ""
    findings: str = ""
    impression: str = ""
    codes: tuple[str, ...] = ()


def normalise(text: str) -> str:
    """Write a text on one line with single blanks, and every removed word as ``XXXX``.

    An item of a list, or a paragraph, that ends without a mark gets a full stop, so that it stays a sentence.
    """
    text = _NEW_ITEM.sub(".\n", text.replace("\r\n", "\n").strip())
    text = re.sub(r"_{3,}|\bX{4,}\b|\bxxxx+\b", REMOVED, _BULLET.sub("", text))
    return " ".join(text.split())


def merge(parts: Iterable[tuple[str, str]], report_id: str = "", codes: Iterable[str] = ()) -> Report:
    """Make a report of (heading, text) pairs; texts of one section are joined, unknown headings are left out."""
    texts: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for heading, text in parts:
        section = HEADINGS.get(" ".join(heading.lower().split()), "")
        if section and normalise(text):
            texts[section].append(normalise(text))
    indication, comparison, findings, impression = (" ".join(texts[section]) for section in SECTIONS)
    return Report(report_id, indication, comparison, findings, impression, tuple(codes))


def split_sections(text: str, report_id: str = "") -> Report:
    """Split a free-text report at its headings.

    A heading is one of ``HEADINGS`` in any case at the start of a line, followed by a colon or alone on the line, or in
    capitals with a colon after the end of a sentence. Text before the first heading, and text under a heading that is
    none of the four sections (TECHNIQUE), belongs to no section. A text without any heading is all findings.

    Args:
        text: The report as it was typed.
        report_id: Its name.

    Returns:
        The report; each section normalised.
    """
    marks = list(_HEADING.finditer(text))
    if not marks:
        return Report(report_id, findings=normalise(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return merge(
        ((mark["line"] or mark["inline"], text[mark.end() : end]) for mark, end in zip(marks, ends)), report_id
    )
