"""Processes that do many things at once, and stop when who started them does."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, TypeVar

from planner.archive.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Job = TypeVar("Job")
Result = TypeVar("Result")


class Pool:
    """Runs jobs in some processes; with one worker, in this one.

    Args:
        workers: How many processes.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def start(self, function: Callable[[int], None]) -> None:
        """Start all processes, each of which calls a function; do not wait for it."""
        if self._workers > 1:
            for number in range(self._workers):
                self._started().submit(function, number)

    def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            # a fork of a process that has threads may hang
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self._workers, context, _start)
        return self._executor

    def run(
        self, function: Callable[[Job], Result], jobs: Sequence[Job]
    ) -> Iterator[tuple[int, Result]]:
        """Yield the number of each job and its result, as they are done.

        Raises:
            ArchiveError: If a worker died.
        """
        if self._workers <= 1 or len(jobs) <= 1:
            for number, job in enumerate(jobs):
                yield number, function(job)
            return
        executor = self._started()
        waiting: dict[Any, int] = {}
        numbers = iter(range(len(jobs)))
        try:
            while True:
                # few at a time: what waits, and what is done, lies in memory
                for number in numbers:
                    waiting[executor.submit(function, jobs[number])] = number
                    if len(waiting) >= 2 * self._workers:
                        break
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise ArchiveError(
                "a worker process died, perhaps for want of memory; run it again to go on, "
                "with fewer workers if need be"
            ) from None


def _start() -> None:
    """Make a worker stop with its parent: one that was killed could not tell it to."""
    # Ctrl-C reaches every process of a terminal; the parent decides, and a bucket is written whole
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # the processes are the parallelism; the libraries read this when they are loaded
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # reading makes many objects and few cycles
    gc.freeze()
    gc.set_threshold(50_000)
    try:
        import pyarrow as pa

        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
    except ImportError:
        pass
