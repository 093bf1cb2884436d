from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clinalign.data.reports.indiana import read_indiana
from clinalign.data.reports.score import Address
from clinalign.data.reports.sections import Report
from clinalign.data.reports.sentences import split_sentences


@pytest.fixture(scope="session")
def indiana() -> list[Report]:
    """The real reports of the Indiana collection, where they are at hand."""
    folder = Path(os.environ.get("CLINALIGN_REAL_DATA", "../shared/data"))
    archive = folder / "iu-xray-reports" / "NLMCXR_reports.tgz"
    if not archive.is_file():
        pytest.skip(f"needs the real reports in {archive} (or in the folder that CLINALIGN_REAL_DATA names)")
    return list(read_indiana(archive))


@pytest.fixture(scope="session")
def indiana_sentences(indiana: list[Report]) -> dict[Address, str]:
    """Every sentence of their findings and impressions."""

    def each() -> Iterator[tuple[Address, str]]:
        for report in indiana:
            for section in ("findings", "impression"):
                for number, sentence in enumerate(split_sentences(getattr(report, section))):
                    yield Address(report.report_id, section, number), sentence

    return dict(each())
