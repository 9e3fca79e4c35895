"""sdist -> wheel -> fresh environment, outside the source tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def check(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, without what the caller's environment adds to Python."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PLANNER_"))}
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    check(sys.executable, "-m", "build", "--sdist", "-o", out, project_root, cwd=out)
    (path,) = out.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    check(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", out, sdist, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the wheel; dependencies come from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True, with_pip=False)
    bin_dir = folder / "bin"
    python = bin_dir / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    check(*pip, "install", "--no-deps", wheel, cwd=folder)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    ours = check(python, "-c", where, cwd=folder)
    theirs = check(sys.executable, "-c", where, cwd=folder)
    # Appended after the environment's own site-packages: our planner is found first.
    Path(ours.strip(), "dependencies.pth").write_text(theirs, encoding="utf-8")
    return bin_dir


def shipped(project_root: Path) -> set[str]:
    """What the wheel must hold of the source tree."""
    names = set()
    for folder, inside in (("planner", "planner"), ("templates", "planner/templates")):
        base = project_root / folder
        for path in base.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so":
                names.add(f"{inside}/{path.relative_to(base).as_posix()}")
    return names


def test_sdist_holds_what_a_build_needs(sdist: Path, project_root: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert {"CMakeLists.txt", "LICENSE", "README.md", "csrc", "planner", "templates"} <= tops
    assert not tops & {".git", ".venv", "build", "dist", "out", "tests", ".ci"}
    assert not [name for name in names if re.search(r"__pycache__|\.so$|\.pyc$", name)]


def test_wheel_holds_the_package_and_nothing_else(wheel: Path, project_root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = archive.read(
            next(name for name in names if name.endswith(".dist-info/METADATA"))
        ).decode()
    package = {name for name in names if ".dist-info/" not in name}
    (extension,) = {name for name in package if re.fullmatch(r"planner/_core\.[^/]*so", name)}
    assert package - {extension} == shipped(project_root)
    assert {"planner/py.typed", "planner/_core.pyi"} <= package
    assert any(name.startswith("planner/templates/modelzoo/") for name in package)
    assert any(name.endswith(".yaml") for name in package)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "Name: collapse-planner\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata


def test_import_comes_from_the_wheel(elsewhere: Path, tmp_path: Path) -> None:
    code = """
import sys
from importlib.resources import files
import planner
from planner import _core
templates = files("planner") / "templates"
assert templates.is_dir() and (templates / "modelzoo").is_dir()
assert planner.__file__.startswith(sys.prefix), planner.__file__
assert _core.__file__.startswith(sys.prefix), _core.__file__
print(_core.simd_level())
"""
    assert check(elsewhere / "python", "-c", code, cwd=tmp_path).strip() in (
        "avx512",
        "avx2",
        "baseline",
        "scalar",
    )


def test_command_works_outside_the_source_tree(
    elsewhere: Path, project_root: Path, tmp_path: Path
) -> None:
    version = check(elsewhere / "planner", "--version", cwd=tmp_path)
    assert re.search(r"\d+\.\d+\.\d+.*(gcc|clang) \d+.*(avx|baseline|scalar)", version, re.DOTALL)
    example = tmp_path / "celerity.yaml"
    example.write_bytes((project_root / "examples" / "celerity.yaml").read_bytes())
    check(elsewhere / "planner", "plan", example, "-o", tmp_path / "plan.json", cwd=tmp_path)
    assert (tmp_path / "plan.json").stat().st_size > 1000
    jobs = tmp_path / "jobs"
    check(
        *(elsewhere / "planner", "render", tmp_path / "plan.json"),
        *("--target", "modelzoo", "-o", jobs),
        cwd=tmp_path,
    )
    assert any(jobs.rglob("*.yaml"))
