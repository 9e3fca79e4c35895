"""Logs at URLs, through fsspec."""

from __future__ import annotations

import builtins
import gzip
from pathlib import Path
from typing import Any

import pytest

from planner.archive import LogError, ingest
from planner.errors import MissingExtraError

from .logs import by_name, csv_log, tree

CSV = "step,loss\n1,3\n2,2\n"


def test_a_folder_a_pattern_and_a_file(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/logs/a.csv", CSV.encode())
    memory.pipe("/bucket/logs/deep/b.csv.gz", gzip.compress(CSV.replace("2", "4").encode()))
    memory.pipe("/bucket/logs/.hidden.csv", CSV.replace("3", "5").encode())
    from planner.archive import Archive

    report = ingest(["memory://bucket/logs"], tmp_path / "folder")
    assert report.ok, report.failed
    assert sorted(by_name(Archive(tmp_path / "folder"))) == ["a", "deep/b"]
    assert ingest(["memory://bucket/logs/*.csv"], tmp_path / "pattern").added == ["a"]
    assert ingest(["memory://bucket/logs/a.csv"], tmp_path / "file").added == ["a"]
    with pytest.raises(LogError, match="no such file or folder"):
        ingest(["memory://bucket/nothing"], tmp_path / "none")
    with pytest.raises(LogError, match="cannot be reached: Protocol not known: nosuchprotocol"):
        ingest(["nosuchprotocol://bucket"], tmp_path / "none")


def test_a_url_holds_what_the_file_holds(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    csv_log(tmp_path / "logs" / "a.csv")
    ingest([tmp_path / "logs"], tmp_path / "one")
    ingest([f"file://{tmp_path}/logs"], tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_without_fsspec_one_sentence_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "fsspec":
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"collapse-planner\[remote\]"):
        ingest(["s3://bucket/logs"], tmp_path / "archive")
