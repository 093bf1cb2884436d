"""Pictures for the report of a comparison: the same case before, after, and real, with what the evaluator saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clinalign.core.files import write_json
from clinalign.core.images import to_pil
from clinalign.workflows.evaluation_measure import Measured
from clinalign.workflows.evaluation_setup import Bench
from clinalign.workflows.synthetic_images import image_name

PAIRS = "pairs.json"


def write_gallery(
    folder: Path, images: str, bench: Bench, base: Measured, tuned: Measured, kept: int | None, with_real: bool
) -> None:
    """Write ``folder/pairs.json`` and, where wanted, the real pictures of its cases.

    Args:
        folder: Output of the evaluation; generated pictures lie in its ``images/base`` and ``images/tuned``.
        images: Name of the folder of pictures.
        bench: Cases, and what the real images gave.
        base: Of the generator before tuning.
        tuned: Of the generator after it.
        kept: How many generated pictures of either were kept; ``None`` for all.
        with_real: Copy the real pictures too.
    """
    members = len(tuned.cases) // len(bench.cases)
    limit = len(tuned.cases) if kept is None else kept
    pairs: list[dict[str, Any]] = []
    if with_real and limit:
        (folder / images / "real").mkdir(parents=True)
    for number, case in enumerate(bench.real.cases):
        row = number * members  # the first picture of the case
        if row >= limit:
            break
        pair: dict[str, Any] = {"case_id": case.case_id, "text": case.text, "attributes": dict(case.attributes)}
        for side, measured, index in (("base", base, row), ("tuned", tuned, row), ("real", bench.real, number)):
            pair[f"{side}_probabilities"] = _by_name(bench, measured, index)
            if side != "real":
                pair[side] = f"{images}/{side}/{image_name(index)}"
        if with_real:
            pair["real"] = f"{images}/real/{image_name(number)}"
            to_pil(bench.dataset.images([case]))[0].save(folder / pair["real"])
        pairs.append(pair)
    write_json(folder / PAIRS, pairs)


def _by_name(bench: Bench, measured: Measured, row: int) -> dict[str, float]:
    """Attribute to the evaluator's probability."""
    values = measured.probabilities[row].tolist()
    return {name: round(value, 4) for name, value in zip(bench.instruments.judged, values, strict=True)}
