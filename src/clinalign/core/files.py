"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinalign.core.errors import UserError


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one line that says where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == 28:
            raise UserError(f"no space left while writing {path}: free some space and run the command again") from error
        if isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)):
            raise UserError(f"cannot write {path}: {error.strerror}; choose another output folder") from error
        raise


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
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8") and None)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def folder_in_progress(final: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``final`` that is renamed to ``final`` when the block ends without an error.

    An existing ``final`` is replaced as a whole; after an error nothing is left behind.

    Args:
        final: The folder's final name.
    """
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
                os.replace(temporary, final)
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
