from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from clinalign.core.errors import UserError
from clinalign.data.reports.indiana import LARGEST_REPORT, read_indiana, read_indiana_xml
from clinalign.data.reports.sections import Report, normalise, split_sections

TYPED = """
FINAL REPORT
EXAMINATION: CHEST (PA AND LAT)

INDICATION:  ___ year old woman with cough.

TECHNIQUE:  Chest PA and lateral

COMPARISON:  None.

FINDINGS:
The lungs are clear.  There is no pleural
effusion.

IMPRESSION:

1. No acute process.
2. Old rib fracture
"""


def test_a_typed_report_is_split_at_its_headings() -> None:
    report = split_sections(TYPED, "s1")
    assert report == Report(
        "s1",
        indication="XXXX year old woman with cough.",
        comparison="None.",
        findings="The lungs are clear. There is no pleural effusion.",
        impression="1. No acute process. 2. Old rib fracture",
    )


@pytest.mark.parametrize(
    "heading", ["IMPRESSION:", "Impression:", "impression :", "CONCLUSION:", "Conclusion:\n", "IMPRESSION\n"]
)
def test_headings_in_any_case_and_by_any_name(heading: str) -> None:
    assert split_sections(f"Findings: Clear lungs.\n{heading} Normal chest.").impression == "Normal chest."


def test_headings_on_one_line_need_capitals() -> None:
    report = split_sections("FINDINGS: Clear lungs. IMPRESSION: Normal chest.")
    assert (report.findings, report.impression) == ("Clear lungs.", "Normal chest.")
    # an ordinary word before a colon is none
    assert split_sections("FINDINGS: One lesion. Findings: two.").findings == "One lesion. Findings: two."


def test_a_word_of_a_sentence_is_no_heading() -> None:
    text = "Findings suggest pneumonia. The impression of a mass remains."
    assert split_sections(text) == Report("", findings=text)


def test_text_of_other_sections_is_left_out() -> None:
    report = split_sections("FINDINGS: Clear.\nRECOMMENDATION: CT.\nIMPRESSION: Normal.\nNOTIFICATION: By telephone.")
    assert (report.findings, report.impression) == ("Clear.", "Normal.")


def test_two_texts_of_one_section_are_joined() -> None:
    assert split_sections("IMPRESSION: One.\nFINDINGS: Two.\nCONCLUSION: Three.").impression == "One. Three."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\n c ", "a b c"),
        ("seen on ___ and [**2101**] ____", "seen on XXXX and [**2101**] XXXX"),
        ("xxxx XXXXXX x-XXXX", "XXXX XXXX x-XXXX"),
        ("- No effusion\n- Normal heart", "No effusion. Normal heart"),
        ("No effusion\n\nNormal heart", "No effusion. Normal heart"),
        ("no line\nbreaks of sentences", "no line breaks of sentences"),
    ],
)
def test_texts_are_normalised(text: str, expected: str) -> None:
    assert normalise(text) == expected


def xml(body: str = "", uid: str = '<uId id="CXR7"/>') -> bytes:
    mesh = "<MeSH><major>normal</major></MeSH>"
    return f'<?xml version="1.0"?><eCitation>{uid}<Abstract>{body}</Abstract>{mesh}</eCitation>'.encode()


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_a_report_of_the_indiana_collection_is_read_from_its_archive(tmp_path: Path) -> None:
    body = (
        '<AbstractText Label="FINDINGS">Heart  XXXX &amp; lungs clear.</AbstractText>'
        '<AbstractText Label="IMPRESSION">Normal.</AbstractText><AbstractText Label="INDICATION"/>'
    )
    archive = write_archive(tmp_path / "r.tgz", {"ecgen-radiology/7.xml": xml(body), "ecgen-radiology/read.me": b"no"})
    assert list(read_indiana(archive)) == [
        Report("CXR7", findings="Heart XXXX & lungs clear.", impression="Normal.", codes=("normal",))
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"r.tgz"}  # nothing unpacked


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<eCitation>", "7.xml is no XML"),
        (xml(uid=""), "7.xml has no <uId"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]>' + xml(), "has a document type"),
    ],
)
def test_a_damaged_report_is_told(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_indiana_xml(data, "7.xml")


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tgz does not exist"):
        list(read_indiana(tmp_path / "none.tgz"))
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(UserError, match="cannot be read"):
        list(read_indiana(tmp_path / "text.tgz"))
    whole = write_archive(tmp_path / "whole.tgz", {f"{n}.xml": xml("x" * 5000 + str(n) * n) for n in range(50)})
    (tmp_path / "cut.tgz").write_bytes(whole.read_bytes()[:300])
    with pytest.raises(UserError, match="cannot be read"):
        list(read_indiana(tmp_path / "cut.tgz"))
    with pytest.raises(UserError, match=r"holds no \.xml report"):
        list(read_indiana(write_archive(tmp_path / "empty.tgz", {"a.txt": b"a"})))
    with pytest.raises(UserError, match="that is no report"):
        list(read_indiana(write_archive(tmp_path / "large.tgz", {"a.xml": b" " * (LARGEST_REPORT + 1)})))


def test_the_real_collection_has_its_published_count(indiana: list[Report]) -> None:
    assert len(indiana) == 3955
    assert len({report.report_id for report in indiana}) == 3955
    assert sum(bool(report.impression) for report in indiana) == 3921
    assert sum(not (report.findings or report.impression) for report in indiana) == 28
