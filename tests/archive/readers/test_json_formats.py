"""Whole JSON documents: outer keys in a cut head, and Hugging Face's trainer state."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.archive.errors import LogError
from planner.archive.readers import Log, choose
from planner.archive.readers.hf_trainer import HfTrainerReader
from planner.archive.readers.json_document import outer_keys

MakeLog = Callable[..., Log]

KEYS = st.dictionaries(
    st.text(st.characters(exclude_characters='"\\', exclude_categories=["C"]), max_size=8),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    ),
    max_size=6,
)


@settings(max_examples=40)
@given(value=KEYS, indent=st.sampled_from([None, 2]))
def test_outer_keys(value: dict[str, object], indent: int | None, make_log: MakeLog) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    keys = outer_keys(make_log(text))
    assert list(keys) == list(value)
    assert all(keys[name] == json.dumps(item)[0] for name, item in value.items())
    assert list(outer_keys(make_log(f"[{text}]"))) == list(value)


@pytest.mark.parametrize("text", ["", "[]", "7", '"a"', "{", '{"a', '{"a"', "step,loss\n", "[[1]]"])
def test_what_has_no_outer_keys(text: str, make_log: MakeLog) -> None:
    assert outer_keys(make_log(text)) == {}


def test_outer_keys_of_a_cut_head(make_log: MakeLog) -> None:
    text = '{"a": {"x": 1}, "b": [' + "1, " * 100_000 + '1], "c": 3}'
    assert outer_keys(make_log(text)) == {"a": "{", "b": "["}


def test_trainer_state(make_log: MakeLog, samples: dict[str, bytes]) -> None:
    (run,) = HfTrainerReader().read(make_log(samples["hf-trainer"]))
    (table,) = run.tables
    assert table.steps.tolist() == [25, 50, 50, 75]
    losses = table.columns["loss"]
    assert losses.present is not None
    assert losses.values[losses.present].tolist() == [4.5, 4.0123, 3.5]
    assert table.columns["eval_loss"].values[2] == 3.9
    assert set(table.columns) == {"epoch", "grad_norm", "learning_rate", "loss", "eval_loss"}
    # each loss is the mean since the one before
    assert table.window == 25
    # the summary's loss is a mean over the whole run
    assert run.config["summary/train_loss"] == 4.2
    # a device's batch, not the global one
    assert run.config["per_device_train_batch_size"] == 8
    assert "train_batch_size" not in run.config


def test_trainer_state_on_one_line_is_not_json_lines(make_log: MakeLog) -> None:
    state = {"global_step": 10, "log_history": [{"step": 10, "loss": 1.5}], "logging_steps": 10}
    chosen = choose(make_log(json.dumps(state)))
    assert chosen is not None
    assert chosen.name == "hf-trainer"


def test_trainer_state_with_tokens_and_bad_entries(make_log: MakeLog) -> None:
    history = [{"step": 5, "loss": "1.5", "num_input_tokens_seen": 640}, {"loss": 2}, 7, None]
    (run,) = HfTrainerReader().read(
        make_log(json.dumps({"max_steps": 5, "log_history": history, "logging_steps": 5}))
    )
    (table,) = run.tables
    assert table.tokens is not None
    assert table.tokens.tolist() == [640]
    assert table.columns["loss"].values.tolist() == [1.5]
    assert run.notes == ["3 entries without a step were left out"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"log_history": [', "is not JSON"),
        ('{"log_history": 3, "epoch": 1}', "log_history is no list"),
        ("[1]", "log_history is no list"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_broken_trainer_state(text: str, reason: str, make_log: MakeLog) -> None:
    with pytest.raises(LogError, match=reason):
        HfTrainerReader().read(make_log(text))
