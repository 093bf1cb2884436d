"""The pictures of a report: before and after side by side, with what the evaluator found in them."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from clinalign.core.errors import UserError
from clinalign.workflows.report_metrics import words
from clinalign.workflows.report_sources import Material, read_json

PROMPTS, EACH, SHOWN = 12, 4, 32  # the first prompts, the first pictures of each, and pictures of a kind in all
FAILURES = 8
GRIDS = 4  # looks at the training, evenly spread
_PAIR_SIDE, _GRID_SIDE = 256, 1400  # pixels; larger pictures are scaled down
_PNG_PIXELS = 128 * 128  # above this, JPEG is the smaller file at no visible cost


@dataclass(frozen=True)
class Mark:
    """One attribute in one picture.

    Attributes:
        name: For a reader.
        asked: The prompt asks for it.
        found: The evaluator sees it.
    """

    name: str
    asked: bool
    found: bool

    @property
    def right(self) -> bool:
        """The picture does as the prompt says."""
        return self.asked == self.found


@dataclass(frozen=True)
class Picture:
    """One picture of a card.

    Attributes:
        label: ``Before``, ``After`` or ``Real``.
        uri: Data URI.
        marks: One for each judged attribute; empty where nothing was judged.
    """

    label: str
    uri: Markup
    marks: tuple[Mark, ...] = ()

    @property
    def right(self) -> int:
        """How many attributes are as asked."""
        return sum(mark.right for mark in self.marks)

    @property
    def spoken(self) -> list[Mark]:
        """The marks worth a word: everything asked for, and what is there without being asked for."""
        return sorted((mark for mark in self.marks if mark.asked or mark.found), key=lambda mark: not mark.asked)

    @property
    def wrong(self) -> str:
        """What is not as asked, in words; empty where everything is."""
        return ", ".join(
            f"{mark.name} is missing" if mark.asked else f"{mark.name}, not asked for"
            for mark in self.spoken
            if not mark.right
        )


@dataclass(frozen=True)
class Card:
    """One prompt with its pictures.

    Attributes:
        text: The prompt.
        pictures: Side by side.
        kept: Share of the attributes that the tuned picture has as asked, ``None`` where nothing was judged.
        margin: Mean probability that the evaluator gives to what was asked; breaks ties.
    """

    text: str
    pictures: tuple[Picture, ...]
    kept: float | None
    margin: float


@dataclass(frozen=True)
class Sheet:
    """One prompt with several noises, side by side: a row before, a row after, a row of real images.

    Attributes:
        text: The prompt.
        cards: One a noise.
    """

    text: str
    cards: tuple[Card, ...]

    @property
    def labels(self) -> list[str]:
        """What the rows hold, of those that any card has."""
        found = {picture.label for card in self.cards for picture in card.pictures}
        return [label for label in ("Before", "After", "Real", "Generated") if label in found]

    def row(self, label: str) -> list[Picture | None]:
        """Return the pictures of one row; ``None`` where a card has none."""
        return [next((each for each in card.pictures if each.label == label), None) for card in self.cards]


@dataclass(frozen=True)
class Gallery:
    """All pictures of a page.

    Attributes:
        sheets: The first prompts in their order with the first pictures of each, none picked or left out.
        pictures: How many pictures of a kind that are, and of how many.
        failures: The tuned pictures that keep their prompt worst, worst first.
        judged: How many tuned pictures the failures were chosen from.
        faultless: How many of them keep every attribute.
        synthetic_only: No real picture is on the page.
        grids: Looks at the training: title and data URI.
    """

    sheets: tuple[Sheet, ...] = ()
    pictures: tuple[int, int] = (0, 0)
    failures: tuple[Card, ...] = ()
    judged: int = 0
    faultless: int = 0
    synthetic_only: bool = True
    grids: tuple[tuple[str, Markup], ...] = ()


def build_gallery(material: Material, real_images: bool = True) -> Gallery:
    """Choose and inline the pictures.

    Args:
        material: With pairs of an evaluation, or with the samples of a run.
        real_images: Show real examples too. Off for data whose licence forbids to pass them on.
    """
    cards = [card for pair in material.pairs if (card := _pair_card(pair, material, real_images)) is not None]
    judged = [card for card in cards if card.kept is not None]
    failing = sorted((card for card in judged if card.kept != 1.0), key=lambda card: (card.kept, card.margin))
    drawn = cards or _sample_cards(material) or _plain_cards(material)
    chosen = sheets(drawn)
    shown = [card for sheet in chosen for card in sheet.cards]
    failures = tuple(failing[:FAILURES])
    return Gallery(
        sheets=chosen,
        pictures=(len(shown), len(drawn)),
        failures=failures,
        judged=len(judged),
        faultless=len(judged) - len(failing),
        synthetic_only=all(picture.label != "Real" for card in (*shown, *failures) for picture in card.pictures),
        grids=_grids(material),
    )


def sheets(cards: Sequence[Card]) -> tuple[Sheet, ...]:
    """Put the pictures of one prompt together: the first prompts, and the first pictures of each, in their order."""
    prompts: dict[str, list[Card]] = {}
    for card in cards:
        prompts.setdefault(card.text, []).append(card)
    found: list[Sheet] = []
    left = SHOWN
    for text, drawn in list(prompts.items())[:PROMPTS]:
        if left > 0:
            found.append(Sheet(text, tuple(drawn[: min(EACH, left)])))
            left -= len(found[-1].cards)
    return tuple(found)


def marks(
    attributes: Mapping[str, Any], probabilities: Mapping[str, Any], thresholds: Mapping[str, float]
) -> list[Mark]:
    """Compare what was asked with what was found; attributes unknown on either side are left out."""
    return [
        Mark(words(name), bool(asked), float(probabilities[name]) > thresholds.get(name, 0.5))
        for name, asked in attributes.items()
        if asked is not None and probabilities.get(name) is not None
    ]


def inline(path: Path, side: int = _PAIR_SIDE) -> Markup | None:
    """Return a picture as a data URI, without metadata, at most ``side`` pixels wide; ``None`` where there is none.

    Raises:
        UserError: When the file is no picture.
    """
    if not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise UserError(f"{path} is not a readable picture: make it again, or delete it to go without") from error
    picture.thumbnail((side, side * 4))
    stream = io.BytesIO()
    if picture.width * picture.height <= _PNG_PIXELS:
        kind = "png"
        picture.save(stream, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.save(stream, "JPEG", quality=90)
    return Markup(f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}")


def _pair_card(pair: Mapping[str, Any], material: Material, real_images: bool) -> Card | None:
    attributes = pair.get("attributes") or {}
    thresholds = material.details.get("thresholds") or {}
    found: dict[str, Picture] = {}
    for side, label in (("base", "Before"), ("tuned", "After"), ("real", "Real")):
        name = pair.get(side)
        if not isinstance(name, str) or (side == "real" and not real_images):
            continue
        uri = inline(_inside(material.pictures, name))
        if uri is not None:
            seen = marks(attributes, pair.get(f"{side}_probabilities") or {}, thresholds)
            found[side] = Picture(label, uri, tuple(seen))
    if not {"base", "tuned"} & found.keys():
        return None
    tuned = found.get("tuned")
    judged = tuned is not None and bool(tuned.marks)
    return Card(
        text=str(pair["text"]),
        pictures=tuple(found.values()),
        kept=tuned.right / len(tuned.marks) if tuned is not None and judged else None,
        margin=_margin(attributes, pair.get("tuned_probabilities") or {}) if judged else 0.0,
    )


def _margin(attributes: Mapping[str, Any], probabilities: Mapping[str, Any]) -> float:
    given = [
        float(probabilities[name]) if asked else 1.0 - float(probabilities[name])
        for name, asked in attributes.items()
        if asked is not None and probabilities.get(name) is not None
    ]
    return sum(given) / len(given)


def _sample_cards(material: Material) -> list[Card]:
    """Make cards from the fixed prompts of the training, a card a noise."""
    prompts = read_json(material.samples / "prompts.json") if material.samples else None
    if material.samples is None or not isinstance(prompts, list):
        return []
    cards = []
    for number, prompt in enumerate(prompts):
        pictures = tuple(
            Picture(label, uri)
            for folder, label in (("first", "Before"), ("last", "After"))
            if (uri := inline(material.samples / folder / f"{number:03d}.png")) is not None
        )
        if pictures:
            cards.append(Card(str(prompt["text"]), pictures, None, 0.0))
    return cards


def _plain_cards(material: Material) -> list[Card]:
    """Make cards from the pictures of a single evaluation, which have no counterpart."""
    if material.samples is not None:
        return []
    folder = material.pictures / "images"
    texts = _texts(folder / "metadata.csv")
    return [
        Card(texts.get(path.name, ""), (Picture("Generated", uri),), None, 0.0)
        for path in sorted(folder.glob("*.png"))[:SHOWN]
        if (uri := inline(path)) is not None
    ]


def _texts(table: Path) -> dict[str, str]:
    """Return the prompt of each picture by its file name; empty without a table."""
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as stream:
        return {
            row["file_name"]: row["text"] for row in csv.DictReader(stream) if row.get("file_name") and row.get("text")
        }


def _grids(material: Material) -> tuple[tuple[str, Markup], ...]:
    """Choose grids of the fixed prompts, evenly spread over the training, with the first and the last."""
    if material.samples is None:
        return ()
    found = sorted(
        (int(match.group(1)), path)
        for path in material.samples.glob("epoch_*.png")
        if (match := re.fullmatch(r"epoch_(\d+)\.png", path.name))
    )
    last = len(found) - 1
    chosen = sorted({round(last * step / (GRIDS - 1)) for step in range(GRIDS)}) if found else []
    looks = [(found[index][0], inline(found[index][1], _GRID_SIDE)) for index in chosen]
    return tuple(
        ("Before tuning" if epoch == 0 else f"After epoch {epoch}", uri) for epoch, uri in looks if uri is not None
    )


def _inside(folder: Path, name: str) -> Path:
    """Return ``folder/name``, refusing a name that leads elsewhere: the page must not show foreign files.

    Raises:
        UserError: When it does.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: pairs.json names '{name}', which lies outside the folder: evaluate again")
    return path
