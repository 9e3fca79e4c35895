"""W&B's exports: history, table of runs, chart, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from planner.archive.errors import LogError
from planner.archive.metadata import Metadata
from planner.archive.policies import Policy, repair
from planner.archive.readers import Log, choose
from planner.archive.readers.wandb import is_result, mapping, unique_labels, unwrap
from planner.archive.readers.wandb_chart import WandbChartReader
from planner.archive.readers.wandb_dump import WandbDumpReader
from planner.archive.readers.wandb_history import WandbHistoryReader
from planner.archive.readers.wandb_runs import WandbRunsReader

MakeLog = Callable[..., Log]


def facts(config: dict[str, object]) -> dict[str, object]:
    told = Metadata()
    told.learn(config, "log")
    return told.facts


# -- what all share


@pytest.mark.parametrize(
    "name", ["val/loss", "lr", "train/grad_norm", "iter", "_runtime", "tokens"]
)
def test_results(name: str) -> None:
    assert is_result(name)


@pytest.mark.parametrize("name", ["learning_rates", "n_params", "seed", "optim/betas"])
def test_settings(name: str) -> None:
    assert not is_result(name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": NaN}', {"a": 1, "b": float("nan")}),
        ("{'a': 1, 'b': nan, 'c': -inf}", {"a": 1, "b": float("nan"), "c": -float("inf")}),
        ("{'a': {'b': [1, 'x', None, True]}}", {"a": {"b": [1, "x", None, True]}}),
        ("{'t': datetime.datetime(2026, 1, 1), 'a': 1}", {"t": None, "a": 1}),
        ("{'a': __import__('os').system('true')}", {"a": None}),
        ("{'a': 1", None),
        ("[1]", None),
        ("", None),
        ("{" * 100_000, None),
        (7, None),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_dictionaries_as_text(text: object, value: object) -> None:
    np.testing.assert_equal(mapping(text), value)


def test_values_that_stand_with_a_description() -> None:
    config = {"lr": {"value": 0.1, "desc": None}, "_wandb": {"v": 1}, "optim": {"wd": 0.2}}
    assert unwrap(config) == {"lr": 0.1, "optim/wd": 0.2}


def test_labels_differ() -> None:
    assert unique_labels(["a", "a", "b", "a", "a-2"]) == ["a", "a-2", "b", "a-3", "a-2-2"]


# -- history


def test_history(make_log: MakeLog) -> None:
    (run,) = WandbHistoryReader().read(
        make_log(
            "_step,_runtime,train/loss,tokens,optim/name\n10,1,5.5,100,adamw\n20,2,,200,adamw\n"
        )
    )
    (table,) = run.tables
    assert table.steps.tolist() == [10, 20]
    assert list(table.columns) == ["train/loss"]
    present = table.columns["train/loss"].present
    assert present is not None
    assert present.tolist() == [True, False]
    assert table.tokens is not None
    assert table.tokens.tolist() == [100, 200]
    assert run.config == {"optim/name": "adamw"}
    assert not table.appended


def test_history_counts_the_trainers_own_steps(
    make_log: MakeLog, samples: dict[str, bytes]
) -> None:
    (run,) = WandbHistoryReader().read(make_log(samples["wandb-history"]))
    (table,) = run.tables
    assert table.steps.tolist() == [10, 20, 20]
    assert set(table.columns) == {"train/loss", "eval/loss", "lr"}
    assert run.config == {"lr": 0.1}
    assert "'train/global_step'" in run.notes[0]


def test_history_keeps_the_counter_where_own_steps_are_rare(make_log: MakeLog) -> None:
    text = "_step,iter,loss\n" + "".join(f"{i},,{9 - i}\n" for i in range(9)) + "9,900,0.5\n"
    (run,) = WandbHistoryReader().read(make_log(text))
    assert run.tables[0].steps.tolist() == list(range(10))


def test_history_of_a_run_that_went_back(make_log: MakeLog) -> None:
    text = "_step,iter,loss\n" + "".join(
        f"{i},{it},{loss}\n"
        for i, (it, loss) in enumerate([(10, 9), (20, 8), (30, 7), (20, 6), (25, 5)])
    )
    (run,) = WandbHistoryReader().read(make_log(text))
    made = repair(run.tables[0], Policy())
    # later calls of the logger are later, though the run did not get as far again
    assert made.boundaries == [20]
    assert made.series["loss"].steps.tolist() == [10, 20, 25]
    assert made.series["loss"].values.tolist() == [9, 6, 5]


def test_history_by_a_mapping(make_log: MakeLog) -> None:
    log = make_log("_step,batch,loss\n1,100,2\n2,200,1\n", {"step": "batch"})
    (run,) = WandbHistoryReader().read(log)
    assert run.tables[0].steps.tolist() == [100, 200]
    assert run.notes == []


# -- table of runs


def test_runs_of_the_user_interface(make_log: MakeLog, samples: dict[str, bytes]) -> None:
    first, second = WandbRunsReader().read(make_log(samples["wandb-runs"]))
    assert (first.name, first.label, second.name, second.label) == ("a", "a", "a", "a-2")
    assert first.tables[0].steps.tolist() == [5000]
    assert first.tables[0].columns["val/loss"].values.tolist() == [1.5]
    # the last learning rate is a result, the peak a setting
    assert first.tables[0].columns["lr"].values.tolist() == [0.0001]
    assert facts(first.config) == {"params": 1000, "lr": 0.001}
    assert second.tables[0].steps.tolist() == [400]
    assert second.config["State"] == "crashed"


def test_runs_in_another_order_of_columns(make_log: MakeLog) -> None:
    log = make_log("Name,State,Created,Tags,val/loss,lr,seed,iter,batch\na,f,x,y,1.5,0.1,7,300,8\n")
    (run,) = WandbRunsReader().read(log)
    assert set(run.tables[0].columns) == {"val/loss", "lr"}
    assert run.config == {
        "Name": "a",
        "State": "f",
        "Created": "x",
        "Tags": "y",
        "seed": "7",
        "batch": "8",
    }


def test_runs_as_dictionaries(make_log: MakeLog) -> None:
    text = (
        ",summary,config,name\n"
        "0,\"{'_step': 99, 'iter': 500, 'val/loss': 3.25, 'train/loss': nan, '_wandb': {'r': 1}}\","
        "\"{'lr': 0.001, 'seed': 7}\",first\n"
        "1,{},broken,second\n"
    )
    log = make_log(text)
    chosen = choose(log)
    assert chosen is not None
    assert chosen.name == "wandb-runs"
    first, second = chosen.read(log)
    assert first.name == "first"
    assert first.config == {"lr": 0.001, "seed": 7}
    assert first.tables[0].steps.tolist() == [500]
    assert list(first.tables[0].columns) == ["val/loss"]
    assert second.tables == []
    assert second.notes == ["its config could not be read"]


def test_runs_without_steps_say_so(make_log: MakeLog) -> None:
    (run,) = WandbRunsReader().read(make_log("Name,State,Created,Tags,val/loss\na,f,x,y,1.5\n"))
    assert run.tables == []
    assert "no column of steps" in run.notes[0]


# -- chart


def test_chart(make_log: MakeLog, samples: dict[str, bytes]) -> None:
    alone, group = WandbChartReader().read(make_log(samples["wandb-chart"]))
    assert alone.label == "big - run"
    assert list(alone.tables[0].columns) == ["train/loss"]
    assert alone.tables[0].steps.tolist() == [10, 20]
    assert alone.notes == []
    assert group.label == "Group: k"
    assert list(group.tables[0].columns) == ["train/loss", "train/loss__MIN", "train/loss__MAX"]
    present = group.tables[0].columns["train/loss"].present
    assert present is not None
    assert present.tolist() == [True, False]
    assert "mean" in group.notes[0]


def test_chart_over_time_is_refused(make_log: MakeLog) -> None:
    log = make_log('"Relative Time (Process)","a - loss"\n"1","2"\n')
    assert WandbChartReader().recognizes(log)
    with pytest.raises(LogError, match="export the chart over Step"):
        WandbChartReader().read(log)


def test_chart_keeps_series_that_start_like_a_step(make_log: MakeLog) -> None:
    (run,) = WandbChartReader().read(make_log("Step,a - step_loss,a - global_step\n1,2,3\n"))
    assert list(run.tables[0].columns) == ["step_loss"]


def test_chart_of_runs_of_the_same_name(make_log: MakeLog) -> None:
    text = (
        "Step,a - loss,a - loss__MIN,a - loss__MAX,a - loss,a - loss__MIN,a - loss__MAX\n"
        "1,5,5,5,6,6,6\n2,4,4,4,5,4,6\n"
    )
    first, second = WandbChartReader().read(make_log(text))
    assert (first.label, second.label) == ("a", "a-2")
    assert first.tables[0].columns["loss"].values.tolist() == [5, 4]
    assert list(first.tables[0].columns) == ["loss"]
    assert second.tables[0].columns["loss"].values.tolist() == [6, 5]
    assert list(second.tables[0].columns) == ["loss", "loss__MIN", "loss__MAX"]


# -- JSON


def test_dump(make_log: MakeLog, samples: dict[str, bytes]) -> None:
    (run,) = WandbDumpReader().read(make_log(samples["wandb-dump"]))
    train, val = run.tables
    assert run.name == "run-a"
    assert train.steps.tolist() == [10, 20, 30]
    assert train.columns["train_loss"].values.tolist() == [5.0, 4.0, 3.5]
    assert val.columns["val_loss"].values.tolist() == [4.1]
    assert run.notes == ["the series 'val_acc' has 2 values for 1 steps and was left out"]
    # the summary's last learning rate is no setting
    assert facts(run.config) == {"lr": 0.001, "seed": 7, "params": 124}
    assert not train.appended


HISTORIES = [
    [
        {"_step": 0, "iter": 5, "loss": 2.0, "x": {"y": 1}},
        {"_step": 1, "iter": 6, "loss": "NaN", "x": {"y": None}},
    ],
    {"_step": [0, 1], "iter": [5, 6], "loss": [2.0, "NaN"], "x/y": [1, None]},
    {"iter": {"0": 5, "1": 6}, "loss": {"0": 2.0, "1": "NaN"}, "x/y": {"0": 1, "1": "-"}},
    {"deep": {"er": {"iter": [5, 6], "loss": [2.0, "NaN"], "x/y": [1, "-"]}}},
]


@pytest.mark.parametrize("history", HISTORIES)
def test_dump_of_any_shape(history: object, make_log: MakeLog) -> None:
    log = make_log(json.dumps({"config": {}, "history": history}))
    chosen = choose(log)
    assert chosen is not None
    assert chosen.name == "wandb-dump"
    (run,) = chosen.read(log)
    (table,) = run.tables
    assert table.steps.tolist() == [5, 6]
    np.testing.assert_equal(table.columns["loss"].values, [2.0, np.nan])
    assert set(table.columns) == {"loss", "x/y"}
    present = table.columns["x/y"].present
    assert present is not None
    assert present.tolist() == [True, False]
    assert table.appended == ("_step" in str(history))


def test_dump_of_several_runs(make_log: MakeLog) -> None:
    runs = [
        {"name": "a", "id": "1", "config": {"seed": i}, "history": [{"_step": 1, "loss": i}]}
        for i in range(2)
    ]
    log = make_log(json.dumps(runs))
    assert WandbDumpReader().recognizes(log)
    first, second = WandbDumpReader().read(log)
    assert (first.label, second.label) == ("a", "a-2")
    assert second.config == {"seed": 1, "id": "1"}


def test_dump_without_history(make_log: MakeLog) -> None:
    log = make_log('{"config": {"lr": 1}, "summary": {"_step": 7, "val/loss": 2.5}}')
    (run,) = WandbDumpReader().read(log)
    assert run.tables[0].steps.tolist() == [7]
    assert run.tables[0].columns["val/loss"].values.tolist() == [2.5]
    assert "only the last value" in run.notes[0]


def test_dump_of_equal_names_in_two_parts(make_log: MakeLog) -> None:
    part = {"iter": [1], "loss": [2.0]}
    (run,) = WandbDumpReader().read(
        make_log(json.dumps({"config": {}, "history": {"train": part, "val": part}}))
    )
    assert [list(table.columns) for table in run.tables] == [["loss"], ["loss'"]]
