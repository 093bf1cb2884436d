from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from clinalign.core import files
from clinalign.core.checkpoint import save_state
from clinalign.core.errors import UserError
from clinalign.core.files import folder_in_progress, hash_file, hash_json, write_atomic, write_json, write_text


def test_text_and_json_are_written_and_their_folder_is_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "µ\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "µ\n".encode()
    write_json(tmp_path / "c.json", {"x": [1, None]})
    assert json.loads((tmp_path / "c.json").read_text()) == {"x": [1, None]}


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"JSON compliant"):
        write_json(tmp_path / "c.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match=r"power cut"):
        write_atomic(file, fail)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def look(temporary: Path) -> None:
        temporary.write_text("new")
        assert file.read_text() == "old"
        assert temporary.parent == file.parent  # the same disk, so that renaming is one step

    write_atomic(file, look)
    assert file.read_text() == "new"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space left while writing .*a.txt: free some space and run the command again"),
        (errno.EDQUOT, "no space left while writing .*a.txt"),
        (errno.EACCES, "cannot write .*a.txt: Permission denied; choose another output folder"),
        (errno.EROFS, "cannot write .*a.txt: Read-only file system; choose another output folder"),
    ],
)
def test_the_systems_refusals_become_one_line(tmp_path: Path, code: int, message: str) -> None:
    def refuse(temporary: Path) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(UserError, match=message) as caught:
        write_atomic(tmp_path / "a.txt", refuse)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError), folder_in_progress(tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*a.txt: Is a directory"):
        write_text(tmp_path / "a.txt", "text")


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*b.txt: (Not a directory|File exists)"):
        write_text(tmp_path / "a" / "b.txt", "text")
    with pytest.raises(UserError, match=r"cannot write .*b"), folder_in_progress(tmp_path / "a" / "b"):
        pass


def test_the_file_that_was_refused_is_named(tmp_path: Path) -> None:
    # reading a picture may be what is refused while a folder is filled
    message = r"cannot write .*out: Permission denied at /data/secret.png"
    with pytest.raises(UserError, match=message), folder_in_progress(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/secret.png")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (OSError("a picture is truncated"), ConnectionError("no network"), KeyError("x"), UserError("mine")):
        with pytest.raises(type(error)) as caught, folder_in_progress(tmp_path / "out"):
            raise error
        assert caught.value is error


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow past 4 kB; unlike a full disk this needs no privilege, and every writer meets it alike.

    It holds for pytest's own output too, which may go to a file: put nothing but the write inside.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_under_safetensors_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # safetensors raises its own error, not an OSError. Here the system says "too large" (27) in place of "no space".
    monkeypatch.setattr(files.errno, "ENOSPC", errno.EFBIG)
    with pytest.raises(UserError, match=r"no space left while writing .*epoch_0001"), small_disk():
        save_state(tmp_path / "epoch_0001", {"weights": torch.zeros(10_000)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with folder_in_progress(out) as folder:
        (folder / "a.txt").write_text("a")
        assert not out.exists()
    assert (out / "a.txt").read_text() == "a"
    assert list(out.parent.iterdir()) == [out]
    assert out.stat().st_mode & 0o777 == 0o755  # others may read it


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("old.txt", "new.txt"):
        with folder_in_progress(out) as folder:
            (folder / name).write_text(name)
    assert [path.name for path in out.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [out]


def test_an_error_leaves_nothing_new_and_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), folder_in_progress(out):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), folder_in_progress(out) as folder:  # noqa: PT012 - fails half-way
        (folder / "new.txt").write_text("new")
        raise RuntimeError
    assert [path.name for path in out.iterdir()] == ["old.txt"]
    assert list(tmp_path.iterdir()) == [out]


def test_when_the_new_folder_cannot_take_its_place_the_old_one_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("old")
    replace = os.replace
    calls: list[str] = []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(str(target))
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OSError, match=r"Input/output error"), folder_in_progress(out):
        pass
    assert (out / "old.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_the_current_folder_can_be_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with folder_in_progress(Path(".")) as folder:
        (folder / "a.txt").write_text("a")
    assert (tmp_path / "here" / "a.txt").read_text() == "a"


def test_the_root_of_a_volume_is_refused_before_the_work() -> None:
    message = "/ is the root of a disk or volume: choose a folder inside it"
    with pytest.raises(UserError, match=message), folder_in_progress(Path("/")):
        raise AssertionError("no work is to be done")


def test_hashes(tmp_path: Path) -> None:
    # sha256 of "abc" begins with ba7816bf8f01 (FIPS 180-2, appendix B.1)
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == "ba7816bf8f01"
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})
    assert hash_json({"a": (1, 2)}) == hash_json(json.loads(json.dumps({"a": (1, 2)})))  # it survives a file
