"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinalign.core.errors import UserError

_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one line that says where and what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = _system_code(error)
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left while writing {path}: free some space and run the command again") from error
        if code in _REFUSALS:
            at = getattr(error, "filename", None)
            where = f" at {at}" if at and Path(at) != path else ""
            raise UserError(f"cannot write {path}: {os.strerror(code)}{where}; choose another output folder") from error
        raise


def _system_code(error: Exception) -> int:
    """Return the operating system's number for an error, 0 where it has none."""
    if isinstance(error, OSError):
        return error.errno or 0
    # safetensors writes in Rust and keeps the number in the message alone
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found.group(1)) if found else 0


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Args:
        path: Final name; its folder is created.
        write: Called with the temporary path.

    Raises:
        UserError: When the disk is full or the place cannot be written.
    """
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomic(path, write)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def check_place(folder: Path) -> None:
    """Refuse a folder that cannot be replaced as a whole.

    Raises:
        UserError: For the root of a disk or of a mounted volume.
    """
    if os.path.ismount(folder):
        raise UserError(f"{folder} is the root of a disk or volume: choose a folder inside it")


@contextmanager
def folder_in_progress(final: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``final`` that is renamed to ``final`` when the block ends without an error.

    An existing ``final`` is replaced as a whole; after an error nothing is left behind.

    Args:
        final: The folder's final name.

    Raises:
        UserError: When the disk is full or the place cannot be written.
    """
    final = Path(os.path.abspath(final))  # "." cannot be renamed, its full name can
    check_place(final)
    with _told(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    os.chmod(temporary, 0o755)  # mkdtemp is private; a dataset or model folder is not
    try:
        with _told(final):
            yield temporary
            if final.exists():
                old = temporary.with_name(temporary.name + ".old")
                os.replace(final, old)
                try:
                    os.replace(temporary, final)
                except OSError:
                    os.replace(old, final)
                    raise
                shutil.rmtree(old)
            else:
                os.replace(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def hash_file(path: Path, length: int = 12) -> str:
    """Return the first ``length`` hexadecimal digits of the file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:length]


def hash_json(content: Any, length: int = 12) -> str:
    """Return the first ``length`` hexadecimal digits of the SHA-256 of ``content`` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
