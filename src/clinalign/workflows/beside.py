"""Commands that run in a process of their own while this one goes on.

Small networks gain little from a second core; two of them side by side use both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from clinalign.core.errors import UserError


class Beside:
    """Runs ``clinalign`` commands one after the other in the background; leaving the block ends what still runs.

    Args:
        threads: Threads that each command may use.
    """

    def __init__(self, threads: int) -> None:
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, threads))}
        self._pool = ThreadPoolExecutor(1)
        self._jobs: dict[str, Future[float]] = {}
        self._running: subprocess.Popen[str] | None = None
        self._stopped = False

    def __enter__(self) -> Beside:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what runs and forget what waits."""
        self._stopped = True
        running = self._running
        if running is not None and running.poll() is None:
            running.terminate()
        self._pool.shutdown(cancel_futures=True)

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Put a command at the end of the row."""
        self._jobs[name] = self._pool.submit(self._run, list(arguments))

    def __contains__(self, name: str) -> bool:
        """Tell whether a command of this name was started."""
        return name in self._jobs

    def wait(self, name: str) -> float:
        """Wait for a command and return the seconds that it took.

        Raises:
            UserError: When it failed, with its own last line.
        """
        return self._jobs[name].result()

    def _run(self, arguments: list[str]) -> float:
        start = time.perf_counter()
        self._running = subprocess.Popen(
            [sys.executable, "-m", "clinalign", *arguments], env=self._environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        if self._stopped:  # between the command before it and this one
            self._running.terminate()
        _, told = self._running.communicate()
        if self._running.returncode != 0:
            last = (told.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"clinalign {' '.join(arguments[:3])}: {last.removeprefix('clinalign: error: ')}")
        return time.perf_counter() - start
