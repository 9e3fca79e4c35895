"""The thread pool as Python sees it: threads=, fork, Ctrl-C, exit, callers side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from subprocess import CompletedProcess

import numpy as np
import pytest

from planner import _core
from planner._core import _testing

Run = Callable[..., "CompletedProcess[str]"]


def test_threads_none_means_what_the_process_may_use() -> None:
    assert _core.hardware_threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("threads", [1, 2, 7, 100])
def test_every_item_is_run(threads: int) -> None:
    workers = _testing.workers(1000, 7, 1.0, threads)
    assert workers.size == 1000
    assert set(workers.tolist()) <= set(range(min(threads, 143)))
    # A chunk is one worker's.
    for start in range(0, 1000, 7):
        assert len(set(workers[start : start + 7].tolist())) == 1


def test_helpers_do_take_part() -> None:
    assert len(set(_testing.workers(400, 1, 200.0, 3).tolist())) > 1
    assert 2 <= _testing.pool_threads() <= 512


def test_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=3_000_000)
    offsets = np.unique(rng.integers(0, values.size, 3000))
    first = _core.ragged_mean(values, offsets, threads=1)
    for threads in (2, 7, None):
        other = _core.ragged_mean(values, offsets, threads=threads)
        assert [a.tobytes() for a in first] == [a.tobytes() for a in other]


@pytest.mark.parametrize("threads", [0, -3])
def test_threads_below_one(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads must be None or at least 1, got {threads}"):
        _core.ragged_mean(np.zeros(3), np.array([0, 3]), threads=threads)


def test_callers_side_by_side() -> None:
    bad = []

    def call() -> None:
        for _ in range(20):
            if (_testing.workers(200, 3, 1.0, 4) < 0).any():
                bad.append(1)

    callers = [threading.Thread(target=call) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not bad


def test_fork(run_python: Run) -> None:
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of any fork beside threads
from planner._core import _testing
_testing.workers(100, 1, 200.0, 3)
assert _testing.pool_threads() == 2
pid = os.fork()
if pid == 0:
    assert _testing.pool_threads() == 0
    used = set(_testing.workers(200, 1, 500.0, 3).tolist())
    assert len(used) > 1 and _testing.pool_threads() == 2, used
    sys.exit(7)  # a regular exit: joins the child's own threads only
_, status = os.waitpid(pid, 0)
_testing.workers(100, 1, 200.0, 3)
print(os.waitstatus_to_exitcode(status), _testing.pool_threads())
"""
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("7 2\n", 0), done.stderr


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c(run_python: Run, threads: int) -> None:
    code = f"""
import os, signal, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if run in the background
from planner._core import _testing
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
start = time.monotonic()
try:
    _testing.workers(100_000, 1, 1000.0, {threads})
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - start < 5)
print(_testing.workers(10, 1, 1.0, {threads}).size)
"""
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("interrupted True\n10\n", 0), done.stderr


def test_exit_with_a_call_under_way(run_python: Run) -> None:
    code = """
import threading, time
from planner._core import _testing
_testing.workers(1, 1, 1.0, 1)  # the first call imports NumPy
call = lambda: _testing.workers(1000, 1, 500.0, 3)
threading.Thread(target=call, daemon=True).start()
time.sleep(0.1)
print("leaving", flush=True)
"""
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("leaving\n", 0), done.stderr


def test_exit_while_a_thread_loads_the_kernel(run_python: Run) -> None:
    """Python ends daemon threads at exit by unwinding them; C++ frames must not be in between."""
    for delay in (0.01, 0.03, 0.06, 0.1, 0.15, 0.2):
        code = f"""
import threading, time
def call():
    from planner._core import _testing
    while True:
        _testing.workers(4, 1, 1.0, 2)
threading.Thread(target=call, daemon=True).start()
time.sleep({delay})
print("leaving", flush=True)
"""
        done = run_python(code)
        assert (done.stdout, done.returncode) == ("leaving\n", 0), done.stderr
