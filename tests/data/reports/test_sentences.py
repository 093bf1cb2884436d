from __future__ import annotations

import pytest

from clinalign.data.reports.sentences import sentence_hash, split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion. Heart normal.", ["No effusion.", "Heart normal."]),
        ("1. No effusion. 2. Heart normal.", ["No effusion.", "Heart normal."]),
        ("1) No effusion 2. stays", ["No effusion 2.", "stays"]),
        ("A 1.5 cm nodule. Lung clear", ["A 1.5 cm nodule.", "Lung clear"]),
        (
            "Atelectasis vs. infiltrate. Seen by Dr. XXXX today.",
            ["Atelectasis vs. infiltrate.", "Seen by Dr. XXXX today."],
        ),
        ("No effusion.Heart normal..", ["No effusion.", "Heart normal.."]),
        ("Fracture of rib 7. No effusion.", ["Fracture of rib 7.", "No effusion."]),
        ("- No effusion\n- Heart normal", ["No effusion.", "Heart normal"]),
        ("XXXX. Clear lungs? Yes!", ["XXXX.", "Clear lungs?", "Yes!"]),
        ("Growth of C. difficile. End.", ["Growth of C. difficile.", "End."]),
        ("", []),
        ("3. ...", []),
    ],
)
def test_sentences_of_reports(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def test_a_hash_tells_sentences_apart_and_ignores_blanks_and_case() -> None:
    assert sentence_hash("No  Effusion.") == sentence_hash("no effusion.")
    assert sentence_hash("No effusion.") != sentence_hash("No effusions.")
    assert len(sentence_hash("a")) == 8
