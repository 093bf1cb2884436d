"""Short radiology reports, composed from the truth of a chest phantom."""

from __future__ import annotations

from collections.abc import Mapping

from clinalign.core.errors import UserError
from clinalign.data.phantoms.cxr_settings import CXR_ATTRIBUTES

SIDES: Mapping[float, str] = {-1.0: "right", 1.0: "left"}  # the sign of the picture's x: the patient faces us
ZONES = ("upper", "middle", "lower")
EXTENTS = ("small", "moderate", "large")
DEVICES = ("pacemaker", "chest port", "central venous catheter")
_ABSENT = {
    "cardiomegaly": "Normal heart size.",
    "effusion": "No pleural effusion.",
    "consolidation": "No consolidation.",
    "pneumothorax": "No pneumothorax.",
    "nodule": "No nodule.",
    "device": "No device.",
}


def _clause(name: str, parameters: Mapping[str, float]) -> str:
    if name == "cardiomegaly":
        return "Cardiomegaly."
    side = SIDES[parameters[f"{name}_side"]]
    if name == "effusion":
        return f"{EXTENTS[int(parameters['effusion_extent'])].capitalize()} {side} pleural effusion."
    if name == "pneumothorax":
        return f"{EXTENTS[int(parameters['pneumothorax_extent'])].capitalize()} {side} pneumothorax."
    if name == "device":
        return f"{side.capitalize()} {DEVICES[int(parameters['device_kind'])]}."
    return f"{name.capitalize()} in the {side} {ZONES[int(parameters[f'{name}_zone'])]} zone."


def compose_report(attributes: Mapping[str, int], parameters: Mapping[str, float], negatives: bool = False) -> str:
    """Write the report of a chest phantom, fewer than 40 words.

    Args:
        attributes: Attribute name to 0 or 1, for every name in ``CXR_ATTRIBUTES``.
        parameters: Codes of the findings that are present: ``<finding>_side`` (-1 right, +1 left, of the patient),
            ``<finding>_zone`` (index into ``ZONES``), ``<finding>_extent`` (index into ``EXTENTS``) and ``device_kind``
            (index into ``DEVICES``).
        negatives: Whether absent findings are named too.

    Returns:
        For example ``Frontal chest radiograph. Cardiomegaly. Small left pleural effusion.``

    Raises:
        UserError: When an attribute, or the code of one that is present, is missing.
    """
    try:
        present = [_clause(name, parameters) for name in CXR_ATTRIBUTES if attributes[name]]
    except KeyError as error:
        raise UserError(f"a report needs {error.args[0]!r} among its attributes or parameters: add it") from None
    absent = [_ABSENT[name] for name in CXR_ATTRIBUTES if not attributes[name]] if negatives else []
    if not present and not negatives:
        absent = ["No acute cardiopulmonary abnormality."]
    return " ".join(["Frontal chest radiograph.", *present, *absent])
