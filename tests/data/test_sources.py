from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.data.places import lesion_words
from clinalign.data.sources import SOURCES, SourceOptions
from clinalign.data.sources.folder import Folder
from clinalign.data.sources.ham10000 import Ham10000
from clinalign.data.sources.nih_cxr14 import FINDINGS, NihCxr14
from clinalign.data.sources.phantom import phantom_skin
from clinalign.data.sources.settings import parse_settings
from clinalign.data.sources.tables import choose_groups

Row = dict[str, str]


def options(root: Path | None = None, **more: object) -> SourceOptions:
    return SourceOptions(root=root, image_size=16, **more)


# HAM10000


def test_ham10000_labels_subgroups_and_group(make_ham: Callable[..., Path]) -> None:
    items = list(Ham10000(options(make_ham())).items())
    assert len(items) == 28
    first, second = items[:2]
    assert (first.case_id, first.group_id) == ("ISIC_0000000", "HAM_0000000")
    assert first.group_id == second.group_id
    assert [name for name in ("MEL", "NV", "BKL", "BCC", "AKIEC", "DF", "VASC") if first.attributes[name]] == ["MEL"]
    assert first.subgroups == {"age_band": None, "sex": "male", "site": "back"}
    assert second.subgroups == {"age_band": "<=30", "sex": "female", "site": None}
    assert items[2].subgroups["sex"] is None  # "unknown" is no third sex


def test_ham10000_artifacts_are_known_only_where_the_table_lists_the_image(make_ham: Callable[..., Path]) -> None:
    items = list(Ham10000(options(make_ham())).items())
    names = ("hair", "gel_bubble", "ruler", "ink", "dark_corner")
    assert [items[1].attributes[name] for name in names] == [1, 0, 1, 0, 0]
    assert items[1].text == "a dermoscopic image with melanoma (MEL) showing hair, ruler"
    assert [items[8].attributes[name] for name in names] == [None] * 5
    assert items[8].text == "a dermoscopic image with actinic keratosis (AKIEC)"


def test_ham10000_without_an_artifact_table_knows_no_artifact(make_ham: Callable[..., Path]) -> None:
    root = make_ham()
    (root / "artifacts.csv").unlink()
    assert all(item.attributes["hair"] is None for item in Ham10000(options(root)).items())


def test_ham10000_masks_where_there_are_some(make_ham: Callable[..., Path]) -> None:
    items = list(Ham10000(options(make_ham())).items())
    mask = items[0].read().masks["lesion"]
    assert mask[:, :8].all()  # left half of the full image is the left half of the centred square
    assert not mask[:, 8:].any()
    assert items[1].read().masks == {}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("dx", "melanoma", r"line 2: unknown dx 'melanoma'; did you mean 'mel'\?"),
        ("dx", "xyz", "unknown dx 'xyz'; known: akiec"),
        ("sex", "femal", r"unknown sex 'femal'; did you mean 'female'\?"),
        ("age", "young", "age 'young' is not a number"),
        ("image_id", "ISIC_0000001", "image_id 'ISIC_0000001' occurs twice"),
    ],
)
def test_ham10000_refuses_a_bad_cell(
    make_ham: Callable[..., Path], ham_rows: list[Row], column: str, value: str, message: str
) -> None:
    ham_rows[0][column] = value
    with pytest.raises(UserError, match=message):
        Ham10000(options(make_ham(ham_rows)))


def test_ham10000_refuses_a_table_without_a_needed_column(make_ham: Callable[..., Path], ham_rows: list[Row]) -> None:
    rows = [{("lesion" if name == "lesion_id" else name): value for name, value in row.items()} for row in ham_rows]
    with pytest.raises(UserError, match=r"has no column 'lesion_id'; did you mean 'lesion'\?"):
        Ham10000(options(make_ham(rows)))


def test_ham10000_refuses_a_bad_artifact_label(make_ham: Callable[..., Path]) -> None:
    root = make_ham()
    table = (root / "artifacts.csv").read_text().splitlines()
    table[1] = table[1].replace(",0", ",yes", 1)
    (root / "artifacts.csv").write_text("\n".join(table))
    with pytest.raises(UserError, match=r"artifacts.csv line 2, column dark_corner: 'yes' is not a label"):
        Ham10000(options(root))


def test_ham10000_prompt_settings(make_ham: Callable[..., Path]) -> None:
    settings = {"prompt.sex": True, "prompt.artifacts": False}
    item = next(Ham10000(options(make_ham(), settings=settings)).items())
    assert item.text == "a dermoscopic image with melanoma (MEL), male"
    with pytest.raises(UserError, match=r"no setting 'prompt.sx': did you mean 'prompt.sex'\?"):
        Ham10000(options(make_ham(), settings={"prompt.sx": True}))
    with pytest.raises(UserError, match="no setting 'hair'"):
        Ham10000(options(make_ham(), settings={"hair": 1}))
    with pytest.raises(UserError, match="needs a value like False"):
        Ham10000(options(make_ham(), settings={"prompt.sex": "sometimes"}))


def test_the_texts_of_skin_name_the_place_of_the_lesion_when_asked_for(make_ham: Callable[..., Path]) -> None:
    settings = {"prompt.lesion": True, "prompt.artifacts": False}
    placed, unknown = list(Ham10000(options(make_ham(), settings=settings)).items())[:2]
    assert placed.text == "a dermoscopic image with melanoma (MEL), large lesion on the left"
    assert unknown.text == "a dermoscopic image with melanoma (MEL)"  # it has no mask
    for item in phantom_skin(SourceOptions(image_size=32, cases=5, settings=settings)).items():
        assert item.text.endswith(str(lesion_words(item.read().masks["lesion"])))


# Every source that reads a folder


@pytest.mark.parametrize("source", ["ham10000", "nih-cxr14", "folder"])
def test_a_missing_wrong_or_empty_root_is_told(source: str, tmp_path: Path) -> None:
    make = SOURCES.get(source)
    with pytest.raises(UserError, match="say where it is with --root"):
        make(options(None))
    with pytest.raises(UserError, match="no such folder"):
        make(options(tmp_path / "nowhere"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a folder"):
        make(options(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder is empty"):
        make(options(tmp_path / "empty"))
    (tmp_path / "empty" / "other.txt").write_text("x")
    with pytest.raises(UserError, match="--root must be the folder that holds it"):
        make(options(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column 'lesion_id'; it is empty"),
        (b"lesion_id,image_id,dx,age,sex,localization\n", "has a header but no rows"),
        (b"lesion_id,image_id,dx,age,sex,localization\nHAM_1,ISIC_1,nv\n", "line 2: has fewer fields than the header"),
        (b"\xff\xfe\x00\x01", "not a csv file in UTF-8"),
    ],
)
def test_damaged_tables_are_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "HAM10000_metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Ham10000(options(tmp_path))


def test_fewer_cases_are_whole_groups() -> None:
    groups = [f"g{number // 3}" for number in range(30)]
    chosen = choose_groups(groups, 9, seed=1)
    assert len(chosen) == 9
    assert all([groups[index] for index in chosen].count(groups[index]) == 3 for index in chosen)
    assert chosen == choose_groups(groups, 9, seed=1)
    assert choose_groups(groups, None, 0) == list(range(30))


def test_an_unknown_source_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown data source 'ham1000': did you mean 'ham10000'\?"):
        SOURCES.get("ham1000")


# ChestX-ray14

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def make_nih(root: Path, *lines: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    for number, line in enumerate(lines):
        folder = root / f"images_{number % 2 + 1:03d}" / "images"  # the official archive has several folders
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / line.split(",")[0])
    return root


def test_nih_findings_view_and_patient(tmp_path: Path) -> None:
    root = make_nih(
        tmp_path / "nih",
        "1_000.png,Cardiomegaly|Effusion,0,1,57,M,PA,2682,2749,0.1,0.1",
        "2_000.png,No Finding,0,2,011M,F,AP,2682,2749,0.1,0.1",
        "3_000.png,Hernia,0,3,411,F,PA,2682,2749,0.1,0.1",
    )
    first, second, third = NihCxr14(options(root)).items()
    assert (first.case_id, first.group_id) == ("1_000.png", "1")
    assert [name for name in FINDINGS if first.attributes[name]] == ["Cardiomegaly", "Effusion"]
    assert first.text == "Frontal chest radiograph, PA view. Cardiomegaly. Effusion."
    assert first.subgroups == {"sex": "male", "age_band": "51-70", "view": "PA"}
    assert second.text == "Frontal chest radiograph, AP view. No finding."
    assert set(second.attributes.values()) == {0}
    assert second.subgroups["age_band"] == "<=30"
    assert third.subgroups["age_band"] is None  # 411 years: an error of the official table
    assert first.read().image.shape == (16, 16)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.png,Cardiomegalia,0,1,57,M,PA,1,1,1,1", r"unknown finding 'Cardiomegalia'; did you mean 'Cardiomegaly'\?"),
        ("1.png,No Finding|Mass,0,1,57,M,PA,1,1,1,1", "says no finding and a finding"),
        ("1.png,Mass,0,1,57,X,PA,1,1,1,1", "unknown Patient Gender 'X'"),
        ("1.png,Mass,0,1,57,M,LATERAL,1,1,1,1", "unknown View Position 'LATERAL'"),
        ("1.png,Mass,0,1,old,M,PA,1,1,1,1", "Patient Age 'old' is not an age"),
    ],
)
def test_nih_refuses_a_bad_cell(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        NihCxr14(options(make_nih(tmp_path / "nih", line)))


def test_nih_has_no_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no setting 'prompt\.sex'"):
        NihCxr14(options(make_nih(tmp_path / "nih"), settings={"prompt.sex": True}))


# Folder


def test_folder_columns(make_folder: Callable[..., Path]) -> None:
    source = Folder(options(make_folder()))
    items = list(source.items())
    assert source.info.attribute_names == ("hair",)
    assert [item.attributes["hair"] for item in items[:3]] == [1, 0, None]
    assert [item.subgroups["sex"] for item in items[:2]] == ["male", None]
    assert (items[3].text, items[3].group_id, items[3].case_id) == ("picture 3", "patient 1", "pictures/test_3.png")


def test_folder_reads_parquet_like_csv(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    from_csv = [(item.text, item.attributes, item.subgroups) for item in Folder(options(root)).items()]
    frame = pd.read_csv(root / "metadata.csv")  # attr_hair becomes 1.0, 0.0 and NaN
    (root / "metadata.csv").unlink()
    frame.to_parquet(root / "metadata.parquet")
    assert [(item.text, item.attributes, item.subgroups) for item in Folder(options(root)).items()] == from_csv
    (root / "metadata.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a parquet file"):
        Folder(options(root))


def test_folder_with_another_group_column(make_folder: Callable[..., Path]) -> None:
    def rename(rows: list[Row]) -> None:
        for row in rows:
            row["patient"] = row.pop("group_id")

    root = make_folder(rename)
    with pytest.raises(UserError, match="has no column 'group_id'"):
        Folder(options(root))
    assert next(Folder(options(root, group_column="patient")).items()).group_id == "patient 0"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("attr_hair", "maybe", "line 2, column attr_hair: 'maybe' is not a label"),
        ("attr_hair", "-1", "'-1' is not a label"),
        ("text", " ", "line 2: the text is empty"),
        ("group_id", "", "line 2: 'group_id' is empty; give every image its patient or lesion"),
        ("file_name", "../secret.png", "must be a path inside"),
        ("file_name", "/etc/secret.png", "must be a path inside"),
        ("file_name", "pictures/test_1.png", "file_name 'pictures/test_1.png' occurs twice"),
    ],
)
def test_folder_refuses_a_bad_cell(make_folder: Callable[..., Path], column: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Folder(options(make_folder(lambda rows: rows[0].update({column: value}))))


def test_folder_keeps_given_splits_unless_a_patient_is_torn(make_folder: Callable[..., Path]) -> None:
    def give(rows: list[Row]) -> None:
        for number, row in enumerate(rows):
            row["split"] = "test" if number < 2 else "train"

    root = make_folder(give)
    assert [item.split for item in Folder(options(root)).items()][:3] == ["test", "test", "train"]

    def tear(rows: list[Row]) -> None:
        give(rows)
        rows[0]["split"] = "judge"

    with pytest.raises(UserError, match="1 groups lie on two sides, first 'patient 0' in judge and test"):
        Folder(options(make_folder(tear)))

    def misspell(rows: list[Row]) -> None:
        give(rows)
        rows[0]["split"] = "tset"

    with pytest.raises(UserError, match=r"line 2: unknown split 'tset'; did you mean 'test'\?"):
        Folder(options(make_folder(misspell)))


def test_folder_settings(make_folder: Callable[..., Path]) -> None:
    info = Folder(options(make_folder(), settings={"channels": 1, "modality": "chest x-ray"})).info
    assert (info.channels, info.modality) == (1, "chest x-ray")
    with pytest.raises(UserError, match="channels is 2"):
        Folder(options(make_folder(), settings={"channels": 2}))
    with pytest.raises(UserError, match="has no 'attr_hare'"):
        Folder(options(make_folder(), settings={"exclusive": ["hare"]}))


# Phantoms and settings


@pytest.mark.parametrize("name", ["phantom-skin", "phantom-cxr"])
def test_phantoms_are_reproducible_and_a_longer_set_begins_with_the_shorter(name: str) -> None:
    short = list(SOURCES.get(name)(options(cases=3, seed=5)).items())
    longer = list(SOURCES.get(name)(options(cases=5, seed=5)).items())
    other = list(SOURCES.get(name)(options(cases=3, seed=6)).items())
    for one, two in zip(short, longer, strict=False):
        assert (one.read().image == two.read().image).all()
        assert (one.text, one.attributes) == (two.text, two.attributes)
    assert any((one.read().image != two.read().image).any() for one, two in zip(short, other, strict=True))
    assert len({item.group_id for item in longer}) == 5
    assert all(item.text for item in longer)


def test_phantom_settings_reach_the_drawing() -> None:
    settings = parse_settings(["prevalence.hair=1", "prevalence.ink=0", "diagnoses.NV=0", "prompt.artifacts=false"])
    items = list(SOURCES.get("phantom-skin")(options(cases=5, settings=settings)).items())
    assert {item.attributes["hair"] for item in items} == {1}
    assert {item.text for item in items} == {"a dermoscopic image with melanoma (MEL)"}


def test_chest_phantoms_can_name_their_findings_alone() -> None:
    settings = parse_settings(["prompt.report=false", "prevalence.effusion=1", "prevalence.nodule=0"])
    for item in SOURCES.get("phantom-cxr")(options(cases=8, settings=settings)).items():
        named = [name for name, answer in item.attributes.items() if answer]
        assert item.text == " ".join(["Frontal chest radiograph.", *(f"{name.capitalize()}." for name in named)])
        assert "effusion" in named


def test_a_power_of_ten_is_a_number() -> None:
    # YAML 1.1 takes 3e-4 for a word
    assert parse_settings(["learning_rate=3e-4", "epochs=3", "name=ham"]) == {
        "learning_rate": 3e-4, "epochs": 3, "name": "ham",
    }  # fmt: skip


def test_correlations_are_pairs_and_may_hold_an_equals_sign() -> None:
    settings = parse_settings(["correlations.ink.skin_tone=V-VI=0.9", "skin_tones.I-II=0", "skin_tones.III-IV=0"])
    assert settings["correlations.ink.skin_tone=V-VI"] == 0.9
    items = list(SOURCES.get("phantom-skin")(options(cases=20, settings=settings)).items())
    # 20 draws at probability 0.9; at the default 0.1 more than 10 has a probability below 1e-6
    assert sum(item.attributes["ink"] or 0 for item in items) > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prevalence.hare=0.5"], r"did you mean 'hair'\?"),
        (["prevalnce.hair=0.5"], r"no setting 'prevalnce.hair': did you mean 'prevalence'\?"),
        (["prevalence=0.5"], "write it as prevalence.NAME=number"),
        (["prevalence.hair=lots"], "needs a number"),
        (["prevalence.hair"], "write it as name=value"),
        (["prevalence.hair=[1"], "cannot read the value"),
    ],
)
def test_bad_settings_are_told(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SOURCES.get("phantom-skin")(options(settings=parse_settings(words)))


# Real data, where it is at hand


def real(name: str) -> Path:
    folder = Path(os.environ.get("CLINALIGN_REAL_DATA", "../shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder} (or the folder that CLINALIGN_REAL_DATA names)")
    return folder


def test_the_real_ham10000_has_its_published_counts() -> None:
    source = Ham10000(options(real("ham10000")))
    items = list(source.items())
    assert len(items) == 8523
    assert sum(item.attributes["NV"] or 0 for item in items) == 5730
    assert sum(item.attributes["hair"] is not None for item in items) == 6466
    assert len(source.missing()) == 0
    young = [item for item in items if item.attributes["MEL"] and item.subgroups["age_band"] == "<=30"]
    assert len(young) == 44


def test_the_real_chest_films_have_their_published_counts() -> None:
    items = list(NihCxr14(options(real("nih-cxr14"))).items())
    assert len(items) == 1701
    assert sum(not any(item.attributes.values()) for item in items) == 865
