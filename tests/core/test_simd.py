"""SIMD levels: what is offered, what PLANNER_SIMD does, and which levels have the same bits."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from planner import _core

Run = Callable[..., "CompletedProcess[str]"]

ORDER = ["avx512", "avx2", "baseline", "scalar"]
LEVELS = _core.simd_levels()

# Prints the level in use and the bits of results over curves of every length up to 70, with gaps.
PROBE = """
import hashlib, json, math
import numpy as np
from planner import _core
rng = np.random.default_rng(11)
lengths = np.concatenate([np.arange(70), rng.integers(0, 5000, 200)])
offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
values = rng.normal(size=offsets[-1]) * 10.0 ** rng.integers(-12, 13, offsets[-1])
values[rng.random(values.size) < 0.1] = np.nan
values[rng.random(values.size) < 0.01] = -np.inf
out = _core.ragged_mean(values, offsets)
worst = 0.0
for mean, a, b in zip(out[0], offsets[:-1], offsets[1:]):
    kept = values[a:b][np.isfinite(values[a:b])]
    if kept.size:
        exact = math.fsum(kept) / kept.size
        worst = max(worst, abs(mean - exact) / np.abs(kept).mean())
    else:
        assert math.isnan(mean)
digest = hashlib.sha256(b"".join(array.tobytes() for array in out)).hexdigest()
print(json.dumps({"level": _core.simd_level(), "digest": digest, "worst": worst}))
"""


def test_what_is_offered() -> None:
    assert LEVELS
    assert sorted(LEVELS, key=ORDER.index) == LEVELS
    x86 = platform.machine() in ("x86_64", "AMD64")
    assert LEVELS[-1] == ("baseline" if x86 else "scalar")
    assert re.fullmatch(r"(gcc|clang) \d+\.\d+\.\d+", _core.compiler())


def test_the_best_level_is_the_default(run_python: Run) -> None:
    code = "from planner import _core; print(_core.simd_level())"
    assert run_python(code).stdout == LEVELS[0] + "\n"
    assert run_python(code, env={"PLANNER_SIMD": ""}).stdout == LEVELS[0] + "\n"


def test_every_level_has_the_same_bits(run_python: Run) -> None:
    results = []
    for level in LEVELS:
        done = run_python(PROBE, env={"PLANNER_SIMD": level})
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert [result["level"] for result in results] == LEVELS
    assert len({result["digest"] for result in results}) == 1
    assert max(result["worst"] for result in results) < 3e-16


@pytest.mark.parametrize(
    ("level", "why"),
    [
        ("sse9", "PLANNER_SIMD='sse9' is not a SIMD level"),
        ("AVX2", "PLANNER_SIMD='AVX2' is not a SIMD level"),
        ("a\nb" + "c" * 99, "PLANNER_SIMD='a?b" + "c" * 37 + "...' is not a SIMD level"),
        *(
            (level, "is a SIMD level that this build or this CPU does not offer")
            for level in ORDER
            if level not in LEVELS
        ),
    ],
)
def test_a_level_that_cannot_be(run_python: Run, level: str, why: str) -> None:
    code = """
import numpy as np
from planner import _core
for call in (_core.simd_level, lambda: _core.ragged_mean(np.zeros(1), np.array([0, 1]))):
    try:
        call()
    except ValueError as error:
        print(error)
print(_core.compiler(), _core.simd_levels())
"""
    done = run_python(code, env={"PLANNER_SIMD": level})
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first == second
    assert why in first
    assert first.endswith(f"it can be: {', '.join(LEVELS)}.")
    assert third == f"{_core.compiler()} {LEVELS}"


def test_the_command_says_it_in_one_sentence(run_planner: Run) -> None:
    done = run_planner("--version", env={"PLANNER_SIMD": "sse9"})
    assert done.returncode == 2
    assert "PLANNER_SIMD='sse9' is not a SIMD level" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
