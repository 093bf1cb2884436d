"""The evaluator must not be the reward: a model that is judged by its own teacher always does well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinalign.core.errors import UserError

_NEEDED = ("weights_hash", "dataset", "split")


def check_independence(
    evaluator_card: Mapping[str, Any], reward_cards: Sequence[Mapping[str, Any]], allow: bool = False
) -> list[str]:
    """Refuse an evaluator that rewarded, or that learned from the same cases as a reward.

    Args:
        evaluator_card: ``AttributeClassifier.card``, of which it reads ``weights_hash``, ``dataset`` (fingerprint),
            ``split`` and ``backbone``.
        reward_cards: The same of each reward of the run.
        allow: Go on in spite of it; what is wrong is then returned, to be written beside the numbers.

    Returns:
        Notes for the result: a shared backbone always, and what was allowed.

    Raises:
        UserError: When weights are the same, when dataset and split are the same, or when a card cannot tell.
    """
    wrong: list[str] = []
    notes: list[str] = []
    for card in reward_cards:
        missing = sorted({key for key in _NEEDED for side in (evaluator_card, card) if not side.get(key)})
        if missing:
            wrong.append(f"a card lacks {', '.join(missing)}, so its independence cannot be checked")
            continue
        if evaluator_card["weights_hash"] == card["weights_hash"]:
            wrong.append(f"the evaluator is the reward itself (weights {card['weights_hash']})")
        elif all(evaluator_card[key] == card[key] for key in ("dataset", "split")):
            wrong.append(f"evaluator and reward were both trained on split '{card['split']}' of the same dataset")
        if card.get("backbone") and evaluator_card.get("backbone") == card["backbone"]:
            notes.append(f"evaluator and reward share the backbone {card['backbone']}: they may share its blind spots")
    if wrong and not allow:
        raise UserError(f"{wrong[0]}: evaluate with a classifier trained on split 'judge', or allow it knowingly")
    return [f"not independent: {reason}" for reason in wrong] + notes
