"""Token files and the order in which they are read. None of this needs PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import OutputError, PlannerError
from planner.train.corpus import Text, folder_texts, prepare, python_source, python_texts
from planner.train.data import Order, check_fits, open_data

from .families import family, only


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("alpha beta", encoding="utf-8")
    (folder / "b.txt").write_text("grüße €", encoding="utf-8")
    (folder / "deep" / "c.md").write_text("gamma", encoding="utf-8")
    (folder / "latin.txt").write_bytes("größe".encode("latin-1"))
    (folder / "binary.txt").write_bytes(b"a\0b")
    return folder


def test_bytes_come_back(texts: Path, tmp_path: Path) -> None:
    made = prepare(folder_texts(texts), tmp_path / "data", source="texts", validation=0.25)
    about, tokens = made.data.about, np.asarray(made.data.tokens)
    assert made.skipped == 2
    assert (about.documents, about.vocab_size, about.dtype) == (3, 256, "uint8")
    whole = bytes(tokens).split(b"\0")
    assert sorted(whole) == sorted([b"", b"alpha beta", b"gamma", "grüße €".encode()])
    assert about.train + about.validation == len(tokens)
    assert about.validation == round(len(tokens) * 0.25)


def test_bpe_round_trip(texts: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    out = tmp_path / "data"
    made = prepare(
        folder_texts(texts, "*.txt"), out, source="t", tokenizer="bpe", vocab_size=270, validation=0
    )
    model = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    about = made.data.about
    ids = np.asarray(made.data.tokens).tolist()
    assert (about.dtype, about.vocab_size) == ("uint16", model.get_vocab_size())
    parts: list[list[int]] = [[]]
    for i in ids:
        if i == about.separator:
            parts.append([])
        else:
            parts[-1].append(i)
    assert sorted(model.decode(part) for part in parts[:-1]) == ["alpha beta", "grüße €"]

    again = prepare(
        folder_texts(texts, "*.txt"),
        tmp_path / "again",
        source="t",
        tokenizer=str(out / "tokenizer.json"),
        validation=0,
    )
    assert again.data.about.digest == about.digest


def test_a_tokenizer_of_ones_own(texts: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"alpha": 0, "beta": 70_000, "gamma": 3, "<|endoftext|>": 9, "?": 1}  # ids with gaps
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = str(tmp_path / "own.json")
    model.save(path)
    made = prepare(
        folder_texts(texts, "[ac].*"), tmp_path / "data", source="t", tokenizer=path, validation=0
    )
    assert (made.data.about.vocab_size, made.data.about.dtype) == (70_001, "uint32")
    assert made.data.about.tokenizer == "bpe:own.json"
    ids = made.data.sequences(np.array([0]), 4)[0].tolist()
    assert ids in ([0, 70_000, 9, 3, 9], [3, 9, 0, 70_000, 9])
    with pytest.raises(PlannerError, match=r"vocab_size: got 300, but .*own\.json has its own voc"):
        prepare(folder_texts(texts), tmp_path / "x", source="t", tokenizer=path, vocab_size=300)
    assert not (tmp_path / "x").exists()


def test_what_was_made_of_texts_is_none_of_them(texts: Path, tmp_path: Path) -> None:
    out = texts / "data"
    one = prepare(folder_texts(texts), out, source="t")
    again = prepare(folder_texts(texts), out, source="t", force=True)
    assert (again.data.about, again.skipped) == (one.data.about, one.skipped)


def test_same_texts_same_bytes_wherever_they_lie(texts: Path, tmp_path: Path) -> None:
    one = prepare(folder_texts(texts), tmp_path / "one", source="t")
    texts.rename(tmp_path / "moved")
    moved = folder_texts(tmp_path / "moved")
    two = prepare(moved[::-1], tmp_path / "two", source="t")
    assert one.data.about == two.data.about


def test_python_has_a_corpus() -> None:
    texts = python_texts()
    names = {text.name for text in texts}
    assert {"argparse.py", "json/decoder.py"} <= names
    assert not any("site-packages" in name for name in names)
    assert sum(text.path.stat().st_size for text in texts) > 5e6
    source, licence = python_source()
    assert source.startswith("standard library of Python 3.")
    assert licence.startswith("PSF-2.0")


def test_windows_overlap_by_the_target_only(data: Path) -> None:
    tokens = open_data(data)
    rows = tokens.sequences(np.arange(3), 16)
    flat = np.asarray(tokens.tokens[:49]).astype(np.int64)
    assert rows.shape == (3, 17)
    for i, row in enumerate(rows):
        assert row.tolist() == flat[16 * i : 16 * i + 17].tolist()
    assert tokens.windows(16) * 16 < tokens.about.train
    last = tokens.sequences(np.array([tokens.windows(16) - 1]), 16)
    assert last.shape == (1, 17)
    held = tokens.sequences(np.array([0]), 16, validation=True)
    start = tokens.about.train
    assert held[0].tolist() == np.asarray(tokens.tokens[start : start + 17]).tolist()


@given(
    windows=st.integers(1, 50),
    seed=st.integers(0, 2**63 - 1),
    cuts=st.lists(st.integers(1, 20), min_size=1, max_size=12),
)
def test_order_is_epochs_however_it_is_cut(windows: int, seed: int, cuts: list[int]) -> None:
    total = sum(cuts)
    whole = Order(windows, seed).numbers(0, total)
    first, parts = 0, []
    for cut in cuts:
        parts.append(Order(windows, seed).numbers(first, cut))
        first += cut
    assert np.concatenate(parts).tolist() == whole.tolist()
    for start in range(0, total - windows + 1, windows):
        assert sorted(whole[start : start + windows].tolist()) == list(range(windows))


def test_order_is_fixed_for_ever() -> None:
    first = [0, 2, 9, 1, 8, 5, 4, 3, 6, 7, 5, 3]
    assert Order(10, 0).numbers(0, 12).tolist() == first
    assert Order(10, 1).numbers(0, 12).tolist() != first


def _break(folder: Path, **changes: Any) -> None:
    path = folder / "data.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "planner.data/9"}, "schema: got 'planner.data/9', wanted 'planner.data/1'"),
        ({"dtype": "float32"}, "dtype: got 'float32', wanted one of uint8, uint16, uint32"),
        ({"train": -1}, "train: got -1, wanted a whole number of 0 or more"),
        ({"vocab_size": "256"}, "vocab_size: got '256', wanted a whole number of 0 or more"),
        ({"source": None}, "source: got nothing, wanted a text"),
        ({"train": 1}, "tokens.bin: holds .* tokens, but data.json says .*; prepare it again"),
    ],
)
def test_damaged_data_is_named(
    texts: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    out = tmp_path / "data"
    prepare(folder_texts(texts), out, source="t")
    _break(out, **changes)
    with pytest.raises(PlannerError, match=message):
        open_data(out)


def test_a_token_outside_the_vocabulary_is_named(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(folder_texts(texts), out, source="t", validation=0)
    _break(out, vocab_size=ord("z"))
    open_data(out).sequences(np.array([0]), 4)
    (out / "tokens.bin").write_bytes(b"~" * open_data(out).about.train)
    with pytest.raises(PlannerError, match=r"tokens\.bin: holds token id 126, but .* below 122"):
        open_data(out).sequences(np.array([0]), 4)


def test_what_is_no_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlannerError, match=r"data\.json is missing; make one with `planner prep"):
        open_data(tmp_path)
    with pytest.raises(PlannerError, match="is not a folder of texts"):
        folder_texts(tmp_path / "none")
    with pytest.raises(PlannerError, match=r"has no file that matches '\*\.xyz'"):
        folder_texts(tmp_path, "*.xyz")
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(PlannerError, match="is not JSON"):
        open_data(tmp_path)


def test_only_a_data_folder_is_replaced(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    found = folder_texts(texts)
    prepare(found, out, source="t")
    with pytest.raises(OutputError, match="exists; overwrite a data folder with --force"):
        prepare(found, out, source="t")
    assert prepare(found, out, source="new", force=True).data.about.source == "new"
    with pytest.raises(OutputError, match="exists and is no data folder"):
        prepare(found, texts, source="t", force=True)
    assert (texts / "a.txt").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".planner")]


@pytest.mark.parametrize("failing", [".planner-data-old-", ".planner-data-"])
def test_what_cannot_be_replaced_stays(
    failing: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    found = folder_texts(texts)
    before = prepare(found, out, source="old").data.about
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        new = self.name.startswith(".planner-data-") and "-old-" not in self.name
        if (failing == ".planner-data-" and new) or failing in Path(target).name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        prepare(found, out, source="new", force=True)
    assert open_data(out).about == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".planner")]


def test_no_text_at_all_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"\0\1")
    with pytest.raises(PlannerError, match="none of 1 files is UTF-8 text"):
        prepare([Text("x.bin", path)], tmp_path / "data", source="t")
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_data_has_to_fit_the_run(data: Path) -> None:
    tokens = open_data(data)
    check_fits(tokens, only(family()))
    small = only(family(architecture={"vocab_size": 200}))
    with pytest.raises(PlannerError, match=r"ids up to 255, but run .* has a vocabulary of 200"):
        check_fits(tokens, small)
    long = only(family(tpp=50, architecture={"context": 60_000}))
    with pytest.raises(PlannerError, match="36,004 training tokens, wanted more than the 60,000"):
        check_fits(tokens, long)


def test_a_vocabulary_that_no_memory_holds_is_refused(texts: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(PlannerError, match="wanted at most 1,000,000"):
        prepare(
            folder_texts(texts), tmp_path / "x", source="t", tokenizer="bpe", vocab_size=5 * 10**9
        )
    assert not (tmp_path / "x").exists()
