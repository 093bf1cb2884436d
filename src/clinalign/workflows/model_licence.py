"""Under which terms a tuned model stands: those of its data and of the model that it was tuned from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinalign.generation.model_folder import find_model_folder

# Names that the Hugging Face Hub knows, of those that data and models of this field have.
HUB_LICENCES = frozenset({
    "apache-2.0", "mit", "bsd-3-clause", "gpl-3.0", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "odc-by", "odbl", "pddl", "openrail", "openrail++",
    "creativeml-openrail-m", "bigscience-openrail-m",
})  # fmt: skip
_ALIASES = {"cc0": "cc0-1.0", "cc-0": "cc0-1.0", "apache2": "apache-2.0", "apache-license-2.0": "apache-2.0"}
_NON_COMMERCIAL = re.compile(r"\bnc\b|non-?\s?commercial|research (?:use )?only", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Terms:
    """What the header of a model card says about the licence.

    Attributes:
        licence: A name that the hub knows, ``other`` or ``unknown``.
        name: Of an ``other`` licence, else empty.
        non_commercial: Some of it forbids commercial use.
    """

    licence: str
    name: str
    non_commercial: bool


@dataclass(frozen=True)
class Base:
    """The model that was tuned.

    Attributes:
        hub_id: ``owner/name`` where it came from the hub, else empty.
        from_scratch: Whether `train base` built it from nothing on the data.
        licence: As its own card states it; empty where it states none.
    """

    hub_id: str = ""
    from_scratch: bool = False
    licence: str = ""


def terms_of(data: str, base: Base) -> Terms:
    """Put the terms of data and base model together; what is unknown on either side stays unknown.

    Data that need no licence, and a base model that was built from nothing on the data, add no terms. Two different
    licences hold both, under the name ``other``. Without any terms the licence is unknown too: its owner has to choose.

    Args:
        data: Licence as ``dataset.json`` states it; empty or beginning with ``unknown`` where it is not known.
        base: The base model.
    """
    stated = [] if data.startswith("none needed") else [data]
    stated += [] if base.from_scratch else [base.licence]
    forbids = any(_NON_COMMERCIAL.search(text.replace("_", " ")) for text in stated)
    if not stated or any(is_unknown(text) for text in stated):
        return Terms("unknown", "", forbids)
    names = list(dict.fromkeys(hub_licence(text) or slug(text) for text in stated))
    if len(names) == 1 and names[0] in HUB_LICENCES:
        return Terms(names[0], "", forbids)
    return Terms("other", "-and-".join(names), forbids)


def is_unknown(licence: str) -> bool:
    """Tell whether a stated licence states none."""
    return not licence.strip() or licence.strip().lower().startswith("unknown")


def hub_licence(licence: str) -> str | None:
    """Return the hub's name of a licence, such as ``cc-by-nc-4.0`` for ``CC BY-NC 4.0``; ``None`` where it has none."""
    name = re.sub(r"[\s_]+", "-", licence.strip().lower())
    name = _ALIASES.get(name, name)
    return name if name in HUB_LICENCES else None


def slug(text: str) -> str:
    """Return a text as one lower-case word of letters, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def read_base(model: str) -> Base:
    """Look up what is known of a base model, on this machine alone.

    Args:
        model: Pipeline folder, or hub id.
    """
    folder = find_model_folder(Path(model))
    if not folder.is_dir():
        return _cached_base(model)
    trained = _json(folder / "clinalign.json")
    settings = trained.get("settings")
    if isinstance(settings, Mapping):  # of `train base`: from nothing, or from another model
        source = settings.get("from_model")
        return read_base(str(source)) if source else Base(from_scratch=True)
    return Base(licence=_card_licence(folder / "README.md"))


def _cached_base(model: str) -> Base:
    """Return what the cache of the hub knows. What is not in it may be a folder of another machine as well."""
    from huggingface_hub import try_to_load_from_cache

    if not _HUB_ID.fullmatch(model) or not isinstance(try_to_load_from_cache(model, "model_index.json"), str):
        return Base()
    card = try_to_load_from_cache(model, "README.md")
    return Base(hub_id=model, licence=_card_licence(Path(card)) if isinstance(card, str) else "")


def _card_licence(card: Path) -> str:
    """Return the licence in the header of a model card; empty where there is none, or it cannot be read."""
    import yaml
    from huggingface_hub import ModelCard

    if not card.is_file():
        return ""
    try:
        header = ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    except (ValueError, TypeError, yaml.YAMLError):  # somebody's own words, which need not be a card
        return ""
    licence = header.get("license") or ""
    if isinstance(licence, list):
        licence = " and ".join(map(str, licence))
    return str(header.get("license_name") or licence) if licence == "other" else str(licence)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
