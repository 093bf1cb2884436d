"""Reads the reports of the Indiana University collection (Demner-Fushman et al., JAMIA 2016) from their archive."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from clinalign.core.errors import UserError
from clinalign.data.reports.sections import Report, merge

LARGEST_REPORT = 2**20
"""Bytes. The largest report of the collection has some 20 KB."""


def read_indiana_xml(data: bytes, where: str) -> Report:
    """Read one report: its ``AbstractText`` elements by their ``Label``, its id and its MeSH terms.

    Args:
        data: The XML document.
        where: File name for messages.

    Raises:
        UserError: When it is no XML, has a document type (entities could fill the memory), or no ``uId``.
    """
    if b"<!DOCTYPE" in data:
        raise UserError(f"{where} has a document type, which no report of the collection has: download it again")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise UserError(f"{where} is no XML ({error}): download the archive again") from None
    uid = root.find("uId")
    if uid is None or not uid.get("id"):
        raise UserError(f"{where} has no <uId id=...>: it is no report of the Indiana collection")
    parts = [(element.get("Label", ""), "".join(element.itertext())) for element in root.iter("AbstractText")]
    codes = [term.text.strip() for term in root.findall("MeSH/major") if term.text]
    return merge(parts, str(uid.get("id")), codes)


def read_indiana(archive: Path) -> Iterator[Report]:
    """Yield the reports of ``NLMCXR_reports.tgz`` in the order of the archive; nothing is unpacked to disk.

    Raises:
        UserError: When the archive is missing, damaged or holds no report; see also :func:`read_indiana_xml`.
    """
    count = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if not member.isfile() or not member.name.endswith(".xml"):
                    continue
                if member.size > LARGEST_REPORT:
                    raise UserError(f"{archive}: {member.name} has {member.size} bytes: that is no report")
                stream = tar.extractfile(member)
                if stream is not None:
                    count += 1
                    yield read_indiana_xml(stream.read(), f"{archive}: {member.name}")
    except FileNotFoundError:
        raise UserError(f"{archive} does not exist: give the path of NLMCXR_reports.tgz") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{archive} cannot be read ({error}): download it again") from None
    if not count:
        raise UserError(f"{archive} holds no .xml report: give the path of NLMCXR_reports.tgz")
