"""A classifier of one attribute: is this a photograph, or a picture that a generator drew or somebody spoilt?"""

from __future__ import annotations

from clinalign.networks.classifier import AttributeClassifier

REAL = "real"


class RealismClassifier(AttributeClassifier):
    """An :class:`AttributeClassifier` that knows the attribute ``real`` alone; trained by ``train reward realism``."""

    kind = "realism"
