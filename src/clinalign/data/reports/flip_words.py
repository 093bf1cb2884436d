"""How a hard negative of a report says that a finding is there, or that it is not."""

from __future__ import annotations

DENIED: dict[str, str] = {
    "Enlarged Cardiomediastinum": "Normal mediastinal contours.",
    "Cardiomegaly": "Normal heart size.",
    "Lung Opacity": "No airspace opacity.",
    "Lung Lesion": "No nodule.",
    "Edema": "No pulmonary edema.",
    "Consolidation": "No consolidation.",
    "Pneumonia": "No pneumonia.",
    "Atelectasis": "No atelectasis.",
    "Pneumothorax": "No pneumothorax.",
    "Pleural Effusion": "No pleural effusion.",
    "Pleural Other": "No pleural thickening.",
    "Fracture": "No fracture.",
    "Support Devices": "No device.",
}

ASSERTED: dict[str, str] = {
    "Enlarged Cardiomediastinum": "Widened mediastinum.",
    "Cardiomegaly": "Cardiomegaly.",
    "Lung Opacity": "Airspace opacity in the {side} {zone} zone.",
    "Lung Lesion": "Nodule in the {side} {zone} zone.",
    "Edema": "Pulmonary edema.",
    "Consolidation": "Consolidation in the {side} {zone} zone.",
    "Pneumonia": "Pneumonia in the {side} {zone} zone.",
    "Atelectasis": "Atelectasis in the {side} {zone} zone.",
    "Pneumothorax": "{size} {side} pneumothorax.",
    "Pleural Effusion": "{size} {side} pleural effusion.",
    "Pleural Other": "{size} {side} pleural thickening.",
    "Fracture": "Fracture of a {side} rib.",
    "Support Devices": "{Side} pacemaker.",
}
"""With the words of the chest phantoms where they have them, so that a flip cannot be told by its style."""

NOTHING = "No acute cardiopulmonary abnormality."

SIDE_PAIRS: dict[str, str] = {"left": "right"}
ZONE_PAIRS: dict[str, str] = {
    "upper": "lower",
    "apex": "base",
    "apices": "bases",
    "apical": "basilar",
    "biapical": "bibasilar",
    "suprahilar": "infrahilar",
}
ZONE_ALIASES: dict[str, str] = {"basal": "apical", "bibasal": "biapical"}
"""Further words of the lung's base, whose counterpart is above already."""
