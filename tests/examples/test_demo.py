"""What `make demo` runs, with the installed command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_env

HERE = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
def test_the_demo_goes_round_the_loop_twice(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", minversion="3.8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for _ in range(2):
        done = subprocess.run(
            [HERE / "demo.sh", tmp_path / "out"],
            env=clean_env({"PATH": path}),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "77k-20tpp-fault" in done.stdout
        assert "deviating since" in done.stdout
    assert (tmp_path / "out" / "tiny-family" / "family.png").read_bytes()[:4] == b"\x89PNG"
    assert "fitted-loss" in (tmp_path / "out" / "tiny-family" / "next.json").read_text()
