"""The worked example of docs/train.md, run as it is written but for fewer steps."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_the_worked_example_runs(command: Callable, project_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", minversion="2.6")
    pytest.importorskip("matplotlib", minversion="3.8")
    page = (project_root / "docs" / "train.md").read_text(encoding="utf-8")
    (spec,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "tiny.yaml").write_text(spec)
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    ours = [shlex.split(line)[1:] for line in lines if line.startswith("planner ")]
    assert [words[0] for words in ours] == [
        "plan",
        "prepare",
        "train",
        "render",
        "coordinate-check",
        "transfer-check",
    ]
    for words in ours:
        few = {
            "train": ["--stop-after", "60", "--threads", "1", "--device", "cpu"],
            "coordinate-check": ["--factors", "1,4", "--threads", "1"],
            "transfer-check": ["--factors", "1,2", "--steps", "8", "--threads", "1"],
        }.get(words[0], [])
        done = command(*words, *few)
        # eight updates may find the best learning rate anywhere
        assert done.code == 0 or (words[0], done.code) == ("transfer-check", 1), done.err
    log = [json.loads(line) for line in Path("runs/small/log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 60
    assert log[-1]["loss"] < 3.5
    assert (tmp_path / "jobs" / "launch.sh").exists()


def test_torchrun_hands_on_what_the_page_gives_it(project_root: Path) -> None:
    run = pytest.importorskip("torch.distributed.run")
    page = (project_root / "docs" / "train.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("torchrun "))
    words = shlex.split(line)[1:]
    given = run.get_args_parser().parse_args(words)
    assert (given.module, given.training_script) == (True, "planner.cli.main")
    assert given.training_script_args == words[words.index("train") :]
