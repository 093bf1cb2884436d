"""NIH ChestX-ray14: frontal chest films with 14 findings read from their reports, with the official csv columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePath

from clinalign.core.errors import UserError, nearest
from clinalign.data.prompts import age_band, chest_prompt
from clinalign.data.read_image import read_image
from clinalign.data.sources.base import Item, Picture, SourceInfo, SourceOptions
from clinalign.data.sources.settings import refuse_settings
from clinalign.data.sources.tables import check_unique, choose_groups, find_file, index_images, read_table, require_root

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
NO_FINDING = "No Finding"
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
SEXES: Mapping[str, str | None] = {"M": "male", "F": "female", "": None}
VIEWS: Mapping[str, str | None] = {"PA": "PA", "AP": "AP", "": None}


class NihCxr14:
    """The user's copy of ChestX-ray14.

    ``root`` holds ``Data_Entry_2017.csv`` and, anywhere below it, the PNG images. The group is ``Patient ID``. The
    labels are read by a program from reports and are noisy; ``No Finding`` means all 14 absent. No settings.

    Args:
        options: Root, size, number of cases.

    Raises:
        UserError: When the folder, a file, a column or a label is not as it must be.
    """

    info = SourceInfo(
        name="nih-cxr14",
        modality="chest x-ray",
        licence="no restriction on use, attribution asked: NIH Clinical Center",
        citation="Wang et al.: ChestX-ray8, CVPR (2017)",
        channels=1,
        attribute_names=FINDINGS,
        subgroup_names=("sex", "age_band", "view"),
    )

    def __init__(self, options: SourceOptions) -> None:
        refuse_settings(options.settings, self.info.name, ["none"])
        root = require_root(options.root, self.info.name)
        table = find_file(root, TABLES)
        rows = read_table(table, COLUMNS)
        check_unique([row["Image Index"] for row in rows], table, "Image Index")
        for number, row in enumerate(rows, start=2):
            _check(row, f"{table} line {number}")
        groups = [row["Patient ID"] for row in rows]
        self._rows = [rows[index] for index in choose_groups(groups, options.cases, options.seed)]
        self._files = index_images(root)
        self._size = options.image_size

    def __len__(self) -> int:
        """Return the number of films."""
        return len(self._rows)

    def missing(self) -> Sequence[str]:
        """Return the file names of the films that are not in the folder."""
        return [row["Image Index"] for row in self._rows if _stem(row) not in self._files]

    def items(self) -> Iterator[Item]:
        """Go through the films in the order of the table."""
        for row in self._rows:
            labels = row["Finding Labels"].split("|")
            attributes = {name: int(name in labels) for name in FINDINGS}
            view = VIEWS[row["View Position"]]
            subgroups = {
                "sex": SEXES[row["Patient Gender"]],
                "age_band": age_band(_years(row["Patient Age"])),
                "view": view,
            }
            text = chest_prompt(attributes, view)
            read = partial(self._read, _stem(row))
            yield Item(row["Image Index"], row["Patient ID"], text, attributes, subgroups, read)

    def _read(self, stem: str) -> Picture:
        """Read one film."""
        return Picture(read_image(self._files[stem], self._size, channels=1))


def _stem(row: Mapping[str, str]) -> str:
    """The image's name without its suffix."""
    return PurePath(row["Image Index"]).stem


def _years(age: str) -> float | None:
    """Read an age such as ``57``, ``057Y``, ``011M`` (months), ``003D`` (days); nothing is unknown."""
    text = age.strip()
    parts = {"Y": 1.0, "M": 12.0, "D": 365.25}
    divisor = parts.get(text[-1:].upper())
    return float(text[:-1]) / divisor if divisor else float(text) if text else None


def _check(row: Mapping[str, str], place: str) -> None:
    """Raise :class:`UserError` when a value is outside its vocabulary."""
    labels = row["Finding Labels"].split("|")
    known = (*FINDINGS, NO_FINDING)
    for label in labels:
        if label not in known:
            raise UserError(f"{place}: unknown finding '{label}'; {nearest(label, known)}")
    if NO_FINDING in labels and len(labels) > 1:
        raise UserError(f"{place}: '{row['Finding Labels']}' says no finding and a finding; keep one of them")
    for column, vocabulary in (("Patient Gender", SEXES), ("View Position", VIEWS)):
        if row[column] not in vocabulary:
            hint = nearest(row[column], filter(None, vocabulary))
            raise UserError(f"{place}: unknown {column} '{row[column]}'; {hint}")
    try:
        _years(row["Patient Age"])
    except ValueError:
        raise UserError(f"{place}: Patient Age '{row['Patient Age']}' is not an age; write years or nothing") from None
