"""Small logs made by hand, and what an archive holds of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from planner.archive import Archive, Report, ingest, list_runs


def csv_log(path: Path, steps: int = 5, start: int = 0, seed: int = 0, every: int = 10) -> Path:
    """Write a CSV log whose losses are those of a seed at every step, wherever it starts."""
    rows = ["step,lr,loss"]
    for i in range(start, start + steps):
        loss = 3 + np.random.default_rng([seed, i]).random()
        rows.append(f"{i * every},0.001,{loss:.5f}")
    return write(path, "\n".join(rows) + "\n")


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def archived(tmp_path: Path, *paths: Path, **options: Any) -> tuple[Archive, Report]:
    """Ingest into ``tmp_path / "archive"``."""
    report = ingest([*paths], tmp_path / "archive", **options)
    return Archive(tmp_path / "archive"), report


def by_name(archive: Archive) -> dict[str, dict[str, Any]]:
    return {run["name"]: run for run in list_runs(archive)}


def curve(archive: Archive, run: str, series: str) -> tuple[list[int], list[float | None]]:
    table = archive.points([run], [series])
    return table.column("step").to_pylist(), table.column("value").to_pylist()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
