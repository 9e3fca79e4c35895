"""Bundles on disk: all or nothing, again and again, and never over somebody's edits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from planner.errors import OutputError
from planner.render import writer
from planner.render.writer import MANIFEST, Written, write_bundle

ABOUT = {"target": "modelzoo+cs3", "family": "tiny", "plan": "sha256:1"}
FILES = {"README.md": "read\n", "a/params.yaml": "a: 1\n", "a/launch.sh": "true\n"}


def write(folder: Path, files: dict[str, str] | None = None, **keywords: bool) -> Written:
    return write_bundle(folder, FILES if files is None else files, about=ABOUT, **keywords)


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def no_stage_left(folder: Path) -> bool:
    return not list(folder.parent.glob(".planner-stage-*"))


def test_a_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    done = write(folder)
    assert sorted(done.changed) == sorted(FILES)
    assert {k: v for k, v in tree(folder).items() if k != MANIFEST} == FILES
    assert os.access(folder / "a" / "launch.sh", os.X_OK)
    assert not os.access(folder / "README.md", os.X_OK)
    assert no_stage_left(folder)
    mode = folder.stat().st_mode & 0o777
    (tmp_path / "plain").mkdir()
    assert mode == (tmp_path / "plain").stat().st_mode & 0o777


def test_writing_again_touches_nothing(tmp_path: Path) -> None:
    write(tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    done = write(tmp_path / "out")
    assert (done.changed, done.removed, done.kept) == ((), (), ())
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


def test_what_is_ours_is_replaced_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(folder)
    (folder / "notes.txt").write_text("mine")
    done = write(folder, {"README.md": "read 2\n", "b/x.yaml": "b\n"})
    assert sorted(done.changed) == ["README.md", "b/x.yaml"]
    assert sorted(done.removed) == ["a/launch.sh", "a/params.yaml"]
    assert sorted(tree(folder)) == ["README.md", "b/x.yaml", MANIFEST, "notes.txt"]
    assert not (folder / "a").exists()
    assert no_stage_left(folder)


def test_an_edited_file_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(folder)
    (folder / "a/params.yaml").write_text("a: edited\n")
    before = tree(folder)
    with pytest.raises(OutputError, match=r"a/params\.yaml was edited.*--force") as caught:
        write(folder, {**FILES, "README.md": "other\n", "a/params.yaml": "a: 2\n"})
    assert caught.value.exit_code == 2
    assert tree(folder) == before
    write(folder, {**FILES, "a/params.yaml": "a: 2\n"}, force=True)
    assert tree(folder)["a/params.yaml"] == "a: 2\n"


def test_an_edited_file_with_the_same_plan_is_not_overwritten(tmp_path: Path) -> None:
    """Rendering the same plan again must not quietly throw an edit away."""
    folder = tmp_path / "out"
    write(folder)
    (folder / "a/params.yaml").write_text("a: edited\n")
    with pytest.raises(OutputError, match="edited"):
        write(folder)


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text("mine\n")
    with pytest.raises(OutputError, match=r"README\.md"):
        write(folder)
    assert tree(folder) == {"README.md": "mine\n"}


def test_an_edited_file_that_left_the_bundle_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(folder)
    (folder / "a/params.yaml").write_text("a: edited\n")
    done = write(folder, {"README.md": "read\n"})
    assert done.kept == ("a/params.yaml",)
    assert "was edited" in done.warnings[0]
    assert tree(folder)["a/params.yaml"] == "a: edited\n"


def test_another_family_or_target_needs_another_folder(tmp_path: Path) -> None:
    write(tmp_path)
    for key in ("family", "target"):
        about = {**ABOUT, key: "other"}
        with pytest.raises(OutputError, match=f"bundle of {key}"):
            write_bundle(tmp_path, FILES, about=about)
        write_bundle(tmp_path, FILES, about={**about, key: ABOUT[key], "plan": "sha256:2"})


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema": "planner.bundle/1", "files": {"a": "x"}}', "\x00", "[" * 100_000],
)
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(OutputError, match="not a manifest"):
        write(tmp_path)
    write(tmp_path, force=True)
    assert write(tmp_path).changed == ()


def test_a_manifest_cannot_make_us_remove_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write(folder)
    victim = tmp_path / "victim"
    victim.write_text("x")
    document = json.loads((folder / MANIFEST).read_text())
    document["files"]["../victim"] = writer.sha256("x")
    (folder / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(OutputError, match="not a manifest"):
        write(folder)
    assert victim.exists()


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a//b", "a/./b", "", "a\\b", MANIFEST, "a\0b"])
def test_paths_cannot_leave_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(OutputError, match="cannot be a path"):
        write(tmp_path / "out", {path: "x"})
    assert not (tmp_path / "out").exists()


def test_links_inside_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    other = tmp_path / "other"
    other.mkdir()
    folder.mkdir()
    (folder / "a").symlink_to(other)
    with pytest.raises(OutputError, match="symbolic link"):
        write(folder, force=True)
    assert not list(other.iterdir())


def test_a_linked_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link")
    assert (tmp_path / "real" / "README.md").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="wanted a folder"):
        write(tmp_path / "out")
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "a").write_text("x")
    with pytest.raises(OutputError):
        write(folder)
    assert tree(folder) == {"a": "x"}
    (folder / "a").unlink()
    (folder / "README.md").mkdir()
    with pytest.raises(OutputError, match="wanted a file"):
        write(folder)


@pytest.mark.parametrize("fail_at", range(8))
def test_a_failing_move_undoes_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    """Whichever rename fails, the folder is as it was."""
    folder = tmp_path / "out"
    write(folder)
    before = tree(folder)
    calls = 0
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == fail_at + 1:
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="No space left"):
        write(folder, {"README.md": "2\n", "a/params.yaml": "2\n", "new/deep/x": "x\n"})
    monkeypatch.undo()
    assert tree(folder) == before
    assert not (folder / "new").exists()
    assert no_stage_left(folder)


def test_after_an_interruption_the_next_write_goes_on(tmp_path: Path) -> None:
    """Killed between two moves: some files new, some gone, the manifest old."""
    folder = tmp_path / "out"
    write(folder)
    (folder / "README.md").write_text("2\n")  # moved in already
    (folder / "a/params.yaml").unlink()  # moved away, its new form not yet in
    done = write(folder, {**FILES, "README.md": "2\n"})
    assert done.changed == ("a/params.yaml",)
    assert tree(folder)["README.md"] == "2\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write(tmp_path / "out")
