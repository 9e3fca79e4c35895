"""Broken and hostile input: reported by file with a reason, the rest is read, nothing hangs."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from planner.archive import Archive, inspect, list_runs

from .logs import archived, by_name, csv_log, write

NOBODY = 65534
NOISE = random.Random(7).randbytes(200_000)
CSV = "step,loss\n" + "".join(f"{i},{5 - i / 100:.2f}\n" for i in range(200))
STEPS = "".join(f'{{"step": {i}, "loss": {5 - i / 100}}}\n' for i in range(100))


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


BROKEN = {
    "truncated.csv.gz": (gzip.compress(CSV.encode())[:-30], "is cut short"),
    "damaged.csv.gz": (gzip.compress(CSV.encode() * 50)[:200] + NOISE[:5000], "is damaged"),
    "damaged.csv.zst": (zstd(CSV.encode() * 50)[:60] + NOISE[:5000], "is damaged"),
    "bomb.csv.gz": (
        gzip.compress(b"step,loss\n" + b"1,2\n" * 40_000_000, 9),
        "expands to more than 200 times its size",
    ),
    "noise.log": (NOISE, "neither text nor a known log format"),
    "noise.csv": (b"step,loss\n1,2\n" + NOISE, "neither text nor a known log format"),
    "columns.csv": (
        "step," + ",".join(f"c{i}" for i in range(1_000_000)) + "\n1" + ",1" * 1_000_000,
        "more than 10,000 columns",
    ),
    "fields.jsonl": (
        '{"step":1,' + ",".join(f'"c{i}":1' for i in range(1_000_000)) + "}\n",
        "its first line is longer than",
    ),
    "more-fields.jsonl": (
        STEPS + '{"step":200,' + ",".join(f'"c{i}":1' for i in range(1_000_000)) + "}\n",
        "more than 10,000 different fields",
    ),
    "nested.json": ("[" * 1_000_000, "nested too deep"),
    "nested.jsonl": (STEPS + '{"step":100,"loss":' + "[" * 1_000_000 + "\n", "nested too deep"),
    "line.jsonl": (STEPS * 30 + '{"step":1,"x":"' + "y" * 20_000_000, "has a line of more than"),
    "empty.csv": ("", "is empty"),
    "header.csv": ("step,loss\n", "holds no"),
    "mostly-bad.jsonl": (STEPS[:1500] + "\nnot json" * 500, "are no JSON objects"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_it_is_reported_and_the_rest_is_read(name: str, tmp_path: Path) -> None:
    content, reason = BROKEN[name]
    csv_log(tmp_path / "logs" / "good.csv")
    write(tmp_path / "logs" / name, content)
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert not report.ok
    assert [file for file, _ in report.failed] == [f"logs/{name}"]
    assert reason in report.failed[0][1]
    assert list(by_name(archive)) == ["good"]
    assert [file for file, _ in inspect([tmp_path / "logs"]).failed] == [f"logs/{name}"]


def test_memory_stays_bounded(tmp_path: Path) -> None:
    for name, (content, _) in BROKEN.items():
        write(tmp_path / "logs" / name, content)
    code = (
        "import re, sys; from planner.archive import ingest; "
        "report = ingest([sys.argv[1]], sys.argv[2]); "
        # not ru_maxrss, which begins with the peak of the process that started this one
        "status = open('/proc/self/status').read(); "
        "print(len(report.failed), re.search(r'VmHWM:\\s*(\\d+) kB', status)[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "logs", tmp_path / "archive"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    failed, peak_kib = map(int, done.stdout.split())
    assert failed == len(BROKEN)
    assert peak_kib < 1_000_000


def test_a_file_that_claims_to_be_huge(tmp_path: Path) -> None:
    sparse = tmp_path / "logs" / "sparse.log"
    write(sparse, "")
    os.truncate(sparse, 10 * 1024**3)
    csv_log(tmp_path / "logs" / "good.csv")
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert report.failed == [("logs/sparse.log", "is neither text nor a known log format")]
    assert list(by_name(archive)) == ["good"]


def test_gzip_that_claims_another_length(tmp_path: Path) -> None:
    packed = gzip.compress(CSV.encode())[:-4] + (4_000_000_000).to_bytes(4, "little")
    write(tmp_path / "logs" / "length.csv.gz", packed)
    _, report = archived(tmp_path, tmp_path / "logs")
    assert report.failed == [
        ("logs/length.csv.gz", "is damaged: Incorrect length of data produced")
    ]


def test_mixed_encodings(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "latin.csv", "step,loss,température\n1,2,3\n2,1,4\n".encode("latin1"))
    write(tmp_path / "logs" / "wide.csv", "step,loss\n1,3\n2,2\n".encode("utf-16"))
    write(tmp_path / "logs" / "mark.jsonl", b"\xef\xbb\xbf" + STEPS.encode())
    write(tmp_path / "logs" / "wide2.jsonl", STEPS.encode("utf-16"))
    mixed = 'step,loss,note\n1,2,"é"\n'.encode() + b"2,1,\xff\xfe\n"
    write(tmp_path / "logs" / "mixed.csv", mixed)
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert report.ok, report.failed
    runs = list_runs(archive)
    assert sorted(run["final"] for run in runs) == [1, 1, 2, 4.01, 4.01]


@pytest.mark.parametrize(
    "name", ["..", "../../etc/passwd", "a\nb", "\x1b[31mred", "x" * 240, "\udcff", "con:", "%2e%2e"]
)
def test_names_are_only_names(name: str, tmp_path: Path) -> None:
    """A run's name never becomes a path, and never moves the cursor of a terminal."""
    lines = json.dumps({"run_name": name}) + "\n" + STEPS
    write(tmp_path / "logs" / "log.jsonl", lines)
    if "/" not in name and name != "..":
        write(tmp_path / "logs" / f"{name}.csv", CSV)
    before = {path for path in tmp_path.rglob("*") if "archive" not in path.parts}
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert report.ok
    for run in list_runs(archive):
        assert run["name"].isprintable()
        assert all(source.isprintable() for source in run["sources"])
    after = {p for p in tmp_path.rglob("*") if archive.path not in p.parents and p != archive.path}
    assert after == before


def test_links_that_lead_nowhere_or_back(tmp_path: Path) -> None:
    csv_log(tmp_path / "logs" / "good.csv")
    (tmp_path / "logs" / "loop").symlink_to(tmp_path / "logs")
    (tmp_path / "logs" / "self").symlink_to("self")
    (tmp_path / "logs" / "dangling.csv").symlink_to("nowhere")
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert [name for name, _ in report.failed] == ["logs/dangling.csv", "logs/self"]
    assert list(by_name(archive)) == ["good"]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    csv_log(tmp_path / "logs" / "good.csv")
    os.mkfifo(tmp_path / "logs" / "pipe.csv")
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert report.failed == [("logs/pipe.csv", "is not a regular file")]
    assert list(by_name(archive)) == ["good"]


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of our own, and no rights beyond it: root, who reads every file, becomes nobody."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as folder:
        # what is imported on demand may lie where nobody may look
        archived(Path(first), csv_log(Path(first) / "logs" / "any.csv"))
        path = Path(folder)
        if os.geteuid() != 0:
            yield path
            return
        os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield path
        finally:
            os.seteuid(0)


def test_unreadable_files_and_folders(unprivileged: Path) -> None:
    logs = unprivileged / "logs"
    csv_log(logs / "good.csv")
    csv_log(logs / "secret.csv", seed=1).chmod(0)
    (logs / "closed").mkdir(mode=0)
    archive, report = archived(unprivileged, logs)
    (logs / "closed").chmod(0o700)
    assert report.failed == [
        ("logs/closed", "cannot be read: Permission denied"),
        ("logs/secret.csv", "cannot be read: Permission denied"),
    ]
    assert list(by_name(archive)) == ["good"]


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    csv_log(tmp_path / "logs" / "good.csv")
    csv_log(tmp_path / "logs" / "secret.csv", seed=1)
    plain = os.open

    def refuse(path: str, *rest: int, **more: int) -> int:
        if str(path).endswith("secret.csv"):
            raise PermissionError(13, "Permission denied")
        return plain(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert report.failed == [("logs/secret.csv", "cannot be read: Permission denied")]
    assert list(by_name(archive)) == ["good"]


def test_a_reader_that_breaks_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from planner.archive.readers.csv_table import CsvReader

    def broken(self: CsvReader, log: object) -> list[object]:
        raise ZeroDivisionError("oh no")

    monkeypatch.setattr(CsvReader, "read", broken)
    csv_log(tmp_path / "logs" / "a.csv")
    _, report = archived(tmp_path, tmp_path / "logs")
    assert report.failed == [("logs/a.csv", "cannot be read: ZeroDivisionError: oh no")]


def test_steps_beyond_reason(tmp_path: Path) -> None:
    text = "step,loss\n1e308,2\nnan,3\n99999999999999999999,1\n-5,1\n3,4\n"
    archive, report = archived(tmp_path, write(tmp_path / "logs" / "steps.csv", text))
    assert report.ok
    run = by_name(archive)["steps"]
    assert (run["first_step"], run["last_step"]) == (-5, 3)
    assert any("without a step" in note for note in run["notes"])


def test_limits_of_this_process_are_kept(tmp_path: Path) -> None:
    """Reading many files leaves none open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for i in range(30):
        csv_log(tmp_path / "logs" / f"{i}.csv", seed=i)
    before = len(os.listdir("/proc/self/fd"))
    archive, _ = archived(tmp_path, tmp_path / "logs")
    assert len(list_runs(Archive(archive.path))) == 30
    assert len(os.listdir("/proc/self/fd")) <= before + 3 < soft


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "epoch,loss\n1,2.5\n2,2.4\n",
            "is a table none of whose columns is known to count steps: epoch, loss",
        ),
        (
            "# run 3\nstep,loss\n1,2.5\n",
            "starts with a line that is no header of a table: '# run 3'",
        ),
        (
            'welcome\n{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n',
            "starts with a line that is no JSON object: 'welcome'",
        ),
        ("nothing of interest\n", "is text of no known log format"),
    ],
)
def test_what_keeps_a_text_from_being_a_log_is_named(
    text: str, reason: str, tmp_path: Path
) -> None:
    [item] = inspect([write(tmp_path / "a.txt", text)]).surveyed
    assert (item.status, item.reason) == ("failed", reason)
