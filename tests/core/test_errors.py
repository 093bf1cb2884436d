from __future__ import annotations

import pytest

from clinalign.core.errors import UserError, nearest


def test_a_users_mistake_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"too small"):
        raise UserError("too small")


def test_the_nearest_word_is_named_or_all_of_them() -> None:
    known = ["epochs", "learning_rate", "betas"]
    assert nearest("epoch", known) == "did you mean 'epochs'?"
    assert nearest("learning-rate", known) == "did you mean 'learning_rate'?"
    assert nearest("xyz", known) == "known: betas, epochs, learning_rate"
