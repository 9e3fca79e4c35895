"""What the trainer's tests share: data, one thread, the command in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .families import make_data

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Skip without PyTorch; with it, use one thread, as the machine has others to serve."""
    torch = pytest.importorskip("torch", minversion="2.6")
    torch.set_num_threads(1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `planner` in its own process: start(*args, processes=2) through torchrun."""
    pytest.importorskip("torch", minversion="2.6")
    begun: list[subprocess.Popen[str]] = []

    def run(*args: str | Path, processes: int = 1) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "planner.cli.main"]
        if processes > 1:
            launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            command = [sys.executable, "-P", "-m", *launcher, "-m", "planner.cli.main", "--"]
        keep = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
        env = {name: os.environ[name] for name in keep if name in os.environ}
        env |= {"OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        begun.append(
            subprocess.Popen(
                [*command, *map(str, args)],
                cwd=tmp_path,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return begun[-1]

    yield run
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()
