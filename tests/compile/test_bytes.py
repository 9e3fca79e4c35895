"""Same spec, same bytes: whatever the hash seed, locale, folder, thread, or caller's settings."""

from __future__ import annotations

import decimal
import hashlib
import locale
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from planner.plan import dump_plan

from .families import planned

LAWS = """\
schema: planner.laws/1
laws:
  ours:
    quantity: tau
    form: power
    input: tpp
    constants: {coefficient: 0.5, exponent: -0.3}
    source: "unsere Läufe, Größe 2"
    confidence: fitted
"""
SPECS = {
    "celerity": "family: celerity\npreset: celerity\ntpp: [20, 80, 234]\n",
    "automatic": """\
family: größe
preset: llama-like
tpp: {low: 20, high: 1000, rule: {max_extra_compute: 0.67}}
compute: {accelerator: H100, count: 64, days: 2 weeks, mfu: 40%}
sizes: {count: 4}
cluster: {devices: 64, accelerator: H100, tensor: 2}
seeds: [1, 2]
data: {unique_tokens: 1.5B}
architecture: {experts: {count: 8, top_k: 2}, kv_groups: 2}
""",
    "ours": """\
family: ours
preset: gpt2-collapse
timescale: ours
laws: laws.yaml
batch: {law: square-root, anchor: {tokens: 10B, value: 0.5M tokens}, multiple_of: 4}
""",
}
CODE = """
import hashlib, locale, sys
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
from planner.compile import compile_plan
from planner.plan import dump_plan
from planner.spec import load_spec
for path in sys.argv[1:]:
    print(hashlib.sha256(dump_plan(compile_plan(load_spec(path))).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("specs")
    (path / "laws.yaml").write_text(LAWS, encoding="utf-8")
    for name, text in SPECS.items():
        (path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return path


def digests(run_python: Any, paths: list[str], **env: str) -> list[str]:
    done = run_python(CODE, *paths, env={"PYTHONPATH": import_root(), **env})
    assert done.returncode == 0, done.stderr
    return str(done.stdout).split()


def import_root() -> str:
    """Where `planner` was imported from: the wheel, or the source tree."""
    import planner

    return str(Path(planner.__file__).parents[1])


ENVIRONMENTS: list[dict[str, str]] = [
    {"PYTHONHASHSEED": "0"},
    {"PYTHONHASHSEED": "1"},
    {"PYTHONHASHSEED": "4294967295", "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX", "LANG": "POSIX", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kolkata"},
    {"LC_ALL": "de_DE.UTF-8", "LANG": "tr_TR.UTF-8", "PYTHONOPTIMIZE": "2"},
]


@pytest.fixture(scope="module")
def wanted(run_python: Any, folder: Path) -> list[str]:
    found = digests(run_python, [str(folder / f"{name}.yaml") for name in SPECS])
    assert len(set(found)) == len(SPECS)
    return found


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=lambda env: ",".join(env.values()))
def test_environments(
    run_python: Any, folder: Path, wanted: list[str], env: dict[str, str]
) -> None:
    """Fresh processes with other hash seeds, locales, time zones and optimization."""
    assert digests(run_python, [str(folder / f"{name}.yaml") for name in SPECS], **env) == wanted


def test_folders(
    folder: Path, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative, absolute, and elsewhere."""
    from planner.compile import compile_plan
    from planner.spec import load_spec

    other = tmp_path / "an other folder"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    for place, prefix in ((other, ""), (tmp_path, "an other folder/"), (Path("/"), f"{other}/")):
        monkeypatch.chdir(place)
        found = [sha(dump_plan(compile_plan(load_spec(f"{prefix}{name}.yaml")))) for name in SPECS]
        assert found == wanted


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def dumped() -> list[str]:
    return [sha(dump_plan(planned(SPECS[name]))) for name in ("celerity", "automatic")]


def test_threads(wanted: list[str]) -> None:
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = [job.result() for job in [pool.submit(dumped) for _ in range(8)]]
    finally:
        sys.setswitchinterval(old)
    assert found == [wanted[:2]] * 8


def test_a_strange_locale(wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A decimal comma, were it asked for, shows nowhere."""
    strange: dict[str, Any] = {**locale.localeconv(), "decimal_point": ",", "thousands_sep": "."}
    monkeypatch.setattr(locale, "localeconv", lambda: strange)
    monkeypatch.setattr(locale, "getpreferredencoding", lambda *_: "ascii")
    assert dumped() == wanted[:2]


@pytest.mark.parametrize("precision", [3, 400])
def test_the_callers_decimal_context(wanted: list[str], precision: int) -> None:
    """Quantities are read in decimal; how the caller rounds decimals is not our business."""
    with decimal.localcontext() as context:
        context.prec = precision
        context.rounding = decimal.ROUND_UP
        assert dumped() == wanted[:2]


def test_no_randomness(wanted: list[str]) -> None:
    random.seed(1)
    assert dumped() == wanted[:2]
    random.seed(2)
    assert dumped() == wanted[:2]


def test_the_file_is_ascii_safe_utf8(wanted: list[str]) -> None:
    text = dump_plan(planned(SPECS["automatic"]))
    assert '"family": "größe"' in text
    assert text.endswith("}\n")
    assert "\r" not in text
