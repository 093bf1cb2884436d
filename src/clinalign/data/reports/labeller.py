"""Labels the fourteen CheXpert findings in free text, by rules that can be read (:mod:`vocabulary`).

After CheXpert (Irvin et al., AAAI 2019): find mentions, decide for each whether it is asserted, denied or doubted, and
let a report be positive before uncertain before negative. Sides, zones and sizes are ours. Pure functions of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from clinalign.data.reports.mentions import find_spans, plain
from clinalign.data.reports.places import Place, find_places
from clinalign.data.reports.scopes import Label, judge
from clinalign.data.reports.sentences import split_sentences
from clinalign.data.reports.vocabulary import FINDINGS, NO_FINDING, PATHOLOGIES


@dataclass(frozen=True)
class Mention:
    """One place in a sentence that speaks of a finding.

    Attributes:
        finding: One of ``FINDINGS``.
        label: 1 (there), 0 (said to be absent) or ``"uncertain"``.
        words: The words that say so, in lower case.
        place: Side, zones and size; empty for a finding that is said to be absent.
    """

    finding: str
    label: Label
    words: str
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class SentenceLabels:
    """What a sentence says.

    Attributes:
        text: The sentence.
        mentions: In the order of the sentence. ``No Finding`` stands here as 1 when the sentence calls the film, or
            heart and lungs, normal and says of nothing that it is there or may be there.
    """

    text: str
    mentions: tuple[Mention, ...]

    @property
    def labels(self) -> dict[str, Label | None]:
        """Finding to 1, 0, ``"uncertain"`` or ``None`` (not spoken of): positive before uncertain before negative."""
        return _aggregate(self.mentions)


@dataclass(frozen=True)
class ReportLabels:
    """What a report says.

    Attributes:
        sentences: Its sentences.
    """

    sentences: tuple[SentenceLabels, ...]

    @property
    def mentions(self) -> tuple[Mention, ...]:
        """All mentions, in the order of the text."""
        return tuple(mention for sentence in self.sentences for mention in sentence.mentions)

    @property
    def labels(self) -> dict[str, Label | None]:
        """Finding to 1, 0, ``"uncertain"`` or ``None`` (not spoken of): positive before uncertain before negative.

        ``No Finding`` is 0 where a pathology is there, uncertain where one may be, 1 where neither is so and something
        is denied or the film called normal, else ``None``. Devices do not count (CheXpert).
        """
        labels = _aggregate(self.mentions)
        said = {labels[name] for name in PATHOLOGIES} - {None}
        labels[NO_FINDING] = (
            0 if 1 in said else "uncertain" if "uncertain" in said else 1 if said or labels[NO_FINDING] else None
        )
        return labels

    def places(self, finding: str) -> frozenset[Place]:
        """Return the places at which ``finding`` is said to be there."""
        return frozenset(item.place for item in self.mentions if item.finding == finding and item.label == 1)


@lru_cache(maxsize=16384)  # reports repeat themselves: of the 22,847 sentences of the Indiana collection 8,624 differ
def label_sentence(text: str) -> SentenceLabels:
    """Label one sentence."""
    said = plain(text)
    spans = find_spans(said)
    mentions = [
        Mention(span.finding, label, said[span.start : span.end], place if label != 0 else Place())
        for span, place in zip(spans, find_places(said, spans))
        if (label := judge(said, span, spans)) is not None
    ]
    if any(mention.label != 0 and mention.finding in PATHOLOGIES for mention in mentions):
        mentions = [mention for mention in mentions if mention.finding != NO_FINDING]
    return SentenceLabels(text, tuple(mentions))


def label_report(text: str) -> ReportLabels:
    """Label a report: the text of one section, or of several joined."""
    return ReportLabels(tuple(label_sentence(sentence) for sentence in split_sentences(text)))


def _aggregate(mentions: Iterable[Mention]) -> dict[str, Label | None]:
    said: Mapping[str, set[Label]] = {finding: set() for finding in FINDINGS}
    for mention in mentions:
        said[mention.finding].add(mention.label)
    return {
        finding: 1 if 1 in values else "uncertain" if "uncertain" in values else 0 if values else None
        for finding, values in said.items()
    }
