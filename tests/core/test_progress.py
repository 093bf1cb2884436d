from __future__ import annotations

import pytest

from clinalign.core.progress import say, track


def test_results_have_standard_output_to_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    say("epoch 1 [bold]  /a/path:1")
    assert list(track([1, 2, 3], "counting")) == [1, 2, 3]
    assert list(track(iter("ab"), "letters", total=2)) == ["a", "b"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "epoch 1 [bold]  /a/path:1\n"  # as written: no markup, and no bar where nobody looks


def test_an_error_in_the_loop_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        sum(1 // number for number in track([1, 0], "dividing"))
