"""Drawn phantoms as data sources: no download, no licence, and a truth known to the pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from clinalign.core.errors import UserError
from clinalign.core.seeds import derive_seed
from clinalign.data.phantoms.types import Phantom
from clinalign.data.prompts import ChestPromptSettings, PromptSettings, chest_prompt, skin_prompt
from clinalign.data.sources.base import Item, Picture, SourceInfo, SourceOptions
from clinalign.data.sources.settings import apply_settings, split_settings

DEFAULT_CASES = 2000
LICENCE = "none needed: drawn by this program"


class PhantomSource:
    """Cases drawn one after the other; each is its own group (a person has one picture).

    Args:
        info: What to call it.
        draw: Draws the phantom of a seed.
        write: Writes its text.
        options: Number of cases and seed.
    """

    def __init__(
        self, info: SourceInfo, draw: Callable[[int], Phantom], write: Callable[[Phantom], str], options: SourceOptions
    ) -> None:
        self.info = info
        self._draw = draw
        self._write = write
        self._seed = options.seed
        self._cases = DEFAULT_CASES if options.cases is None else options.cases

    def __len__(self) -> int:
        """Return the number of cases."""
        return self._cases

    def missing(self) -> Sequence[str]:
        """Return nothing: a phantom is never missing."""
        return ()

    def items(self) -> Iterator[Item]:
        """Draw the cases. Case k depends on the seed and on k only, so more cases leave the first ones as they are."""
        for number in range(self._cases):
            name = f"{self.info.name}-{number:06d}"
            phantom = self._draw(derive_seed(self.info.name, self._seed, number))
            image = phantom.image if self.info.channels == 3 else phantom.image[..., 0]
            picture = Picture(image, phantom.masks, phantom.boxes, phantom.parameters)
            attributes = {key: phantom.attributes[key] for key in self.info.attribute_names}
            subgroups = {key: phantom.subgroups[key] for key in self.info.subgroup_names}
            yield Item(name, name, self._write(phantom), attributes, subgroups, partial(_drawn, picture))


def phantom_skin(options: SourceOptions) -> PhantomSource:
    """Dermoscopy phantoms. Settings: ``prompt.*`` and the fields of ``SkinSettings``, e.g. ``prevalence.hair``."""
    from clinalign.data.phantoms.skin import SkinSettings, draw_skin

    words, others = split_settings(options.settings, "prompt")
    prompt = apply_settings(PromptSettings(), words, "phantom-skin", "prompt.")
    settings = apply_settings(SkinSettings(), others, "phantom-skin")
    first = draw_skin(0, options.image_size, settings=settings)
    info = SourceInfo(
        name="phantom-skin",
        modality="dermoscopy",
        licence=LICENCE,
        citation="clinalign skin phantom",
        channels=3,
        attribute_names=tuple(first.attributes),
        subgroup_names=tuple(first.subgroups),
        attribute_groups={"diagnosis": tuple(name for name in first.attributes if name.isupper())},
        prompt_attributes=prompt.named(first.attributes),
    )
    return PhantomSource(
        info,
        lambda seed: draw_skin(seed, options.image_size, settings=settings),
        lambda phantom: skin_prompt(phantom.attributes, phantom.subgroups, prompt, phantom.masks["lesion"]),
        options,
    )


def phantom_cxr(options: SourceOptions) -> PhantomSource:
    """Chest phantoms. Settings: ``prompt.report`` and the fields of ``CxrSettings``, e.g. ``prevalence.effusion``.

    With ``prompt.report=false`` a text names the findings alone, as those of ``nih-cxr14`` do, without side, zone and
    size: a few distinct prompts in place of hundreds.
    """
    from clinalign.data.phantoms.cxr import CxrSettings, draw_cxr

    words, others = split_settings(options.settings, "prompt")
    prompt = apply_settings(ChestPromptSettings(), words, "phantom-cxr", "prompt.")
    settings = apply_settings(CxrSettings(), others, "phantom-cxr")
    first = draw_cxr(0, options.image_size, settings=settings)
    info = SourceInfo(
        name="phantom-cxr",
        modality="chest x-ray",
        licence=LICENCE,
        citation="clinalign chest phantom",
        channels=1,
        attribute_names=tuple(first.attributes),
        subgroup_names=tuple(first.subgroups),
    )
    write = _report if prompt.report else _findings
    return PhantomSource(info, lambda seed: draw_cxr(seed, options.image_size, settings=settings), write, options)


def _drawn(picture: Picture) -> Picture:
    """Give back a picture that is already there."""
    return picture


def _findings(phantom: Phantom) -> str:
    """The findings of a chest phantom, without their places."""
    return chest_prompt(phantom.attributes)


def _report(phantom: Phantom) -> str:
    """The text of a chest phantom."""
    if not phantom.report:
        raise UserError("the chest phantom came without a report")
    return phantom.report
