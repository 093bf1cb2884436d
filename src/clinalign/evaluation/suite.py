"""The whole evaluation of a set of images, as the flat dictionary of ``metrics.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from clinalign.core.errors import UserError
from clinalign.core.types import Case, Extractor
from clinalign.evaluation.alignment import image_text_score
from clinalign.evaluation.diversity import text_ids
from clinalign.evaluation.entries import Entries, alignment_entries, diversity_entries
from clinalign.evaluation.feature_entries import feature_entries
from clinalign.evaluation.floor import group_halves
from clinalign.evaluation.intervals import mean_interval
from clinalign.evaluation.radiomics import is_radiomics
from clinalign.networks.classifier import check_image_batch

# What changes with the number of images by itself.
DEPENDS_ON_N = {"fidelity/fid": "FID falls", "fidelity/frd": "FRD falls", "diversity/vendi": "the Vendi score rises"}


class Judge(Protocol):
    """What the suite needs of an evaluator; :class:`clinalign.networks.classifier.AttributeClassifier` has it."""

    attribute_names: tuple[str, ...]
    card: dict[str, Any]  # may hold `thresholds` by attribute name; 0.5 where it does not

    @property
    def identity(self) -> str:
        """Kind and weights hash."""
        ...

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 3, H, W)`` in ``[0, 1]`` to ``(N, K)``."""
        ...


class ImageTextScorer(Protocol):
    """A pair of encoders into one space."""

    @property
    def identity(self) -> str:
        """Kind and weights hash."""
        ...

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, 3, H, W)`` in ``[0, 1]`` to ``(N, D)``."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Map N texts to ``(N, D)``."""
        ...


def case_groups(cases: Sequence[Case]) -> list[str]:
    """Return what the bootstrap draws: the patient or lesion of each case, or the case itself where it has none."""
    return [case.group_id or case.case_id for case in cases]


def evaluate_images(
    images: torch.Tensor,
    cases: Sequence[Case],
    *,
    classifier: Judge | None = None,
    reference_images: torch.Tensor | None = None,
    reference_cases: Sequence[Case] = (),
    extractors: Mapping[str, Extractor] | None = None,
    artifact_attributes: Sequence[str] = (),
    scorer: ImageTextScorer | None = None,
    prompt_ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Entries:
    """Measure generated images against their cases and against real images.

    Args:
        images: ``(N, 3, H, W)`` in ``[0, 1]``.
        cases: Their N cases; the attributes are what the prompt promised.
        classifier: The evaluator, never the reward (see :func:`~clinalign.evaluation.independence.check_independence`).
        reference_images: ``(M, 3, H, W)`` real images; without them no fidelity.
        reference_cases: Their M cases; the halves of the real-against-real floor are split by group.
        extractors: Name to extractor. The first is the headline; the keys of further ones end in ``@name``.
        artifact_attributes: Attributes that count for APR.
        scorer: Image-text model for ``alignment/clip_score``.
        prompt_ids: Which images share a prompt; by default those with the same whole text.
        groups: What the bootstrap draws; by default :func:`case_groups`.
        n_bootstrap: Resamples.
        seed: Same seed, same result.

    Returns:
        Key to entry; see :func:`~clinalign.evaluation.feature_entries.feature_entries`,
        :func:`~clinalign.evaluation.entries.alignment_entries` and
        :func:`~clinalign.evaluation.entries.diversity_entries`.

    Raises:
        UserError: When numbers do not match, images are no images, or an attribute is unknown.
    """
    _check(images, cases, "images", prompt_ids, groups)
    extractors = extractors or {}
    if reference_images is not None:
        _check(reference_images, reference_cases, "reference images")
        if not extractors:
            raise UserError("fidelity needs a feature extractor: give one, for example domain:PATH")
    if artifact_attributes and classifier is None:
        raise UserError("APR needs an evaluator: give a classifier, or no artifact attributes")
    groups = case_groups(cases) if groups is None else groups
    features = {name: extractor(images) for name, extractor in extractors.items()}
    entries: Entries = {}
    if reference_images is not None:
        for name, extractor in extractors.items():
            family = feature_entries(
                extractor(reference_images),
                features[name],
                extractor.identity,
                groups_x=case_groups(reference_cases),
                groups_y=groups,
                replicates=n_bootstrap,
                seed=seed,
            )
            entries |= _named(family, name, extractors)
    if classifier is not None:
        entries |= alignment_entries(
            classifier.probabilities(images),
            cases,
            classifier.attribute_names,
            classifier.identity,
            thresholds=classifier.card.get("thresholds"),
            artifact_attributes=artifact_attributes,
            groups=groups,
            replicates=n_bootstrap,
            seed=seed,
        )
    if scorer is not None:
        scores = image_text_score(scorer.embed_images(images), scorer.embed_texts([case.text for case in cases]))
        estimate = mean_interval(scores, groups=groups, replicates=n_bootstrap, seed=seed)
        entries["alignment/clip_score"] = {**estimate.to_json(), "evaluator": scorer.identity}
    headline = next(iter(extractors), None)
    return entries | diversity_entries(
        images,
        text_ids(cases) if prompt_ids is None else prompt_ids,
        features=None if headline is None else features[headline],
        identity="" if headline is None else extractors[headline].identity,
        replicates=n_bootstrap,
        seed=seed,
    )


def evaluate_real(
    images: torch.Tensor,
    cases: Sequence[Case],
    *,
    classifier: Judge | None = None,
    extractors: Mapping[str, Extractor] | None = None,
    artifact_attributes: Sequence[str] = (),
    scorer: ImageTextScorer | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Entries:
    """Measure real images with the same metrics: the ceiling beside which generated images are read.

    Fidelity compares one half of the patients or lesions with the other, because real images against themselves say
    nothing. Diversity takes one image of a patient or lesion for each prompt, because two photographs of one lesion are
    no variety.

    Args:
        images: ``(N, 3, H, W)`` real images in ``[0, 1]``.
        cases: Their N cases.
        classifier: See :func:`evaluate_images`, as for the others.
        extractors: Name to extractor.
        artifact_attributes: Attributes that count for APR.
        scorer: Image-text model.
        n_bootstrap: Resamples.
        seed: Same seed, same result.

    Returns:
        Key to entry, the keys of :func:`evaluate_images`.

    Raises:
        UserError: See :func:`evaluate_images`.
    """
    seen: set[tuple[str, str]] = set()
    prompts: list[str] = []
    for number, prompt in enumerate(zip(text_ids(cases), case_groups(cases), strict=True)):
        prompts.append(f"{prompt[0]}:again:{number}" if prompt in seen else prompt[0])
        seen.add(prompt)
    entries = evaluate_images(
        images,
        cases,
        classifier=classifier,
        extractors=extractors,
        artifact_attributes=artifact_attributes,
        scorer=scorer,
        prompt_ids=prompts,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    groups = case_groups(cases)
    for name, extractor in (extractors or {}).items():
        features = extractor(images)
        x, y = group_halves(groups, seed)
        family = feature_entries(
            features[x],
            features[y],
            extractor.identity,
            groups_x=[groups[i] for i in x.tolist()],
            groups_y=[groups[i] for i in y.tolist()],
            with_floor=False,
            replicates=n_bootstrap,
            seed=seed,
        )
        entries |= _named(family, name, extractors or {})
    return entries


def compare_identity(first: Entries, second: Entries) -> list[str]:
    """Refuse to put two evaluations into one table unless every number in both was measured with the same thing.

    Args:
        first: Entries of one evaluation.
        second: Entries of the other, under the same keys.

    Returns:
        Notes for the table: FID, FRD or Vendi scores of different numbers of images, which differ by that alone.

    Raises:
        UserError: When extractor or evaluator of a key differ.
    """
    notes = []
    for key in sorted(first.keys() & second.keys()):
        for measure in ("extractor", "evaluator"):
            one, other = first[key].get(measure), second[key].get(measure)
            if one != other:
                raise UserError(
                    f"{key} was measured with two {measure}s, {one} and {other}: "
                    "numbers of different identity are not compared, evaluate both with the same"
                )
        sizes = [(entry["n"], entry.get("n_reference")) for entry in (first[key], second[key])]
        if key.startswith(tuple(DEPENDS_ON_N)) and sizes[0] != sizes[1]:
            way = next(way for start, way in DEPENDS_ON_N.items() if key.startswith(start))
            notes.append(f"{key}: images (generated, real) {sizes[0]} and {sizes[1]}; {way} with n")
    return notes


def _named(family: Entries, name: str, extractors: Mapping[str, Extractor]) -> Entries:
    """Give the keys of every extractor but the first its name; FRD, which radiomics alone has, needs none."""
    if name == next(iter(extractors)) or is_radiomics(extractors[name].identity):
        return family
    return {f"{key}@{name}": entry for key, entry in family.items()}


def _check(
    images: torch.Tensor,
    cases: Sequence[Case],
    words: str,
    prompt_ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> None:
    """Refuse images that are none, and anything that is not one for each image.

    Raises:
        UserError: Saying what was given and what was needed.
    """
    check_image_batch(images)
    for given, what in ((cases, "cases"), (prompt_ids, "prompt ids"), (groups, "groups")):
        if given is not None and len(given) != len(images):
            raise UserError(f"{len(given)} {what} for {len(images)} {words}: give exactly one for each image")
    if len(images) == 0:
        raise UserError(f"no {words} to evaluate: give at least two")
    if not bool(torch.isfinite(images).all()) or float(images.min()) < 0 or float(images.max()) > 1:
        raise UserError(f"{words} have values outside [0, 1] or not finite: clip them, or divide 8-bit values by 255")
