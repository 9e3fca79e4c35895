"""planner forecast and planner select, from logs to what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from planner.archive import Archive
from planner.cli.main import app
from planner.curves import Reference, load_curves

CLI = CliRunner()
GOLDEN = Path(__file__).parent / "golden"
SIZES = {"s": 100_000_000, "m": 300_000_000, "l": 1_000_000_000, "xl": 3_000_000_000}


def log(
    path: Path, params: int, *, steps: int = 2000, until: float = 1.0, lr: float = 1e-3
) -> None:
    """Write the CSV log of a run of a family whose shape drifts with size."""
    folds = np.log(params / 1e8)
    at = np.arange(10, steps + 1, 10)
    t = at / steps
    bend = 0.15 + 0.01 * folds
    noise = np.random.default_rng(params % 1009).normal(0.0, 0.002, t.size)
    loss = 3.6 * np.exp(-0.08 * folds + noise) * ((1.01 / (t + 0.01)) ** bend)
    rate = lr * np.minimum(at / 100, 1.0) * np.maximum(1.0 - 0.9 * (t - 0.05) / 0.95, 0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{s},{v:.6f},{r:.8g}" for s, v, r in zip(at, loss, rate, strict=True) if s <= until * steps
    ]
    path.write_text("\n".join(["step,loss,lr", *rows]) + "\n")


def facts(params: int, steps: int, lr: float) -> str:
    """What the log does not say, as a line of a mapping."""
    return (
        f"    constants: {{params: {params}, tpp: 20, total_steps: {steps}, "
        f"batch_tokens: 1000000, lr: {lr:g}, min_lr: {lr / 10:g}, warmup_steps: 100, "
        "schedule: linear, weight_decay: 0.1}"
    )


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """Three finished sizes, and one that is at a quarter."""
    rules = ["schema: planner.mapping/1", "files:"]
    for name, params in SIZES.items():
        log(tmp_path / "logs" / f"{name}.csv", params, until=0.25 if name == "xl" else 1.0)
        rules += [
            f'  - match: "*/{name}.csv"',
            facts(params, 2000, 1e-3),
        ]
    (tmp_path / "map.yaml").write_text("\n".join(rules) + "\n")
    place = str(tmp_path / "archive")
    done = CLI.invoke(
        app,
        ["ingest", str(tmp_path / "logs"), "-o", place, "--mapping", str(tmp_path / "map.yaml")],
    )
    assert done.exit_code == 0, done.output
    return place


def test_forecast_as_people_read_it(archive: str) -> None:
    done = CLI.invoke(app, ["forecast", archive, "--at", "0.25"])
    assert done.exit_code == 0, done.output
    assert done.stdout == (GOLDEN / "forecast.txt").read_text()


def test_unfinished_runs_are_forecast(archive: str) -> None:
    done = CLI.invoke(app, ["forecast", archive, "--json"])
    document = json.loads(done.stdout)
    assert document["schema"] == "planner.forecast/1"
    (found,) = document["forecasts"]
    assert list(found)[:11] == [
        *("run", "name", "metric", "reference", "at", "final", "low", "high", "level", "method"),
        "why",
    ]
    assert (found["name"], found["method"], found["reference"]) == ("xl", "combined", "l, m, s")
    assert found["actual"] is None
    true = 3.6 * np.exp(-0.08 * np.log(30.0))
    assert found["low"] < true < found["high"]
    assert found["final"] == pytest.approx(true, rel=0.005)


def test_same_input_same_bytes(archive: str) -> None:
    runs = [CLI.invoke(app, ["forecast", archive, "--at", "0.3", "--json"]) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout


def test_undecidable_is_no_error_unless_strict(archive: str) -> None:
    done = CLI.invoke(app, ["forecast", archive, "xl", "--at", "0.02"])
    assert done.exit_code == 0
    assert "undecidable: xl: 2.0% of training is logged, and 5% is needed" in done.stdout
    assert CLI.invoke(app, ["forecast", archive, "xl", "--at", "0.02", "--strict"]).exit_code == 1


def test_references_are_those_asked_for(archive: str) -> None:
    done = CLI.invoke(
        app, ["forecast", archive, "xl", "--reference", "l", "--reference", "m", "--json"]
    )
    assert json.loads(done.stdout)["forecasts"][0]["reference"] == "l, m"


def test_a_reference_may_be_a_file(archive: str, tmp_path: Path) -> None:
    curves = [c for batch in load_curves(Archive(archive)) for c in batch]
    path = tmp_path / "reference.json"
    Reference.build([c for c in curves if c.finished]).save(path)
    args = ["forecast", archive, "xl", "--json"]
    given = CLI.invoke(app, [*args, "--reference", str(path)])
    (found,) = json.loads(given.stdout)["forecasts"]
    (plain,) = json.loads(CLI.invoke(app, [*args, "--method", "collapse"]).stdout)["forecasts"]
    assert found["method"] == "collapse"
    assert found["final"] == pytest.approx(plain["final"], rel=2e-3)


def test_a_reference_must_be_finished(archive: str) -> None:
    done = CLI.invoke(app, ["forecast", archive, "l", "--at", "0.2", "--reference", "xl"])
    assert done.exit_code == 2
    assert "--reference: xl is not finished" in done.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["forecast", "--at", "2"], "--at: got 2, wanted a fraction of training"),
        (["forecast", "--level", "1"], "--level: got 1, wanted a probability"),
        (["forecast", "--method", "colapse"], "did you mean 'collapse'?"),
        (["forecast", "nobody"], "RUN: no run that logged the metric is called 'nobody'"),
        (["forecast", "--reference", "nobody"], "--reference: no run that logged"),
        (["forecast", "--metric", "loss"], "--metric: no run logged 'loss'"),
        (["select", "--at", "0"], "--at: got 0, wanted a fraction of training"),
        (["select", "--method", "x"], "--method: got 'x'"),
    ],
)
def test_what_is_refused(archive: str, args: list[str], said: str) -> None:
    done = CLI.invoke(app, [args[0], archive, *args[1:]])
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output


def sweep(tmp_path: Path) -> str:
    rules = ["schema: planner.mapping/1", "files:"]
    for params in (30_000_000, 60_000_000):
        for steps in (1000, 2000):
            for lr in (5e-4, 1e-3, 2e-3):
                name = f"{params // 1_000_000}M-{steps}-{lr:g}"
                log(tmp_path / "logs" / f"{name}.csv", params, steps=steps, lr=lr)
                rules.append(f'  - match: "*/{name}.csv"')
                rules.append(facts(params, steps, lr))
    for lr in (5e-4, 1e-3, 2e-3):
        name = f"big-{lr:g}"
        log(tmp_path / "logs" / f"{name}.csv", 120_000_000, lr=lr, until=0.3)
        rules.append(f'  - match: "*/{name}.csv"')
        rules.append(facts(120_000_000, 2000, lr))
    (tmp_path / "map.yaml").write_text("\n".join(rules) + "\n")
    place = str(tmp_path / "archive")
    done = CLI.invoke(
        app,
        ["ingest", str(tmp_path / "logs"), "-o", place, "--mapping", str(tmp_path / "map.yaml")],
    )
    assert done.exit_code == 0, done.output
    return place


def test_select(tmp_path: Path) -> None:
    place = sweep(tmp_path)
    done = CLI.invoke(app, ["select", place, "--json"])
    document = json.loads(done.stdout)
    assert document["schema"] == "planner.select/1"
    (found,) = document["sweeps"]
    assert (found["params"], found["horizon"], found["at"]) == (120_000_000, 2000, 0.3)
    verdicts = [c["verdict"] for c in found["candidates"]]
    assert set(verdicts) <= {"stop", "keep", "undecidable"}
    assert done.exit_code == (1 if "stop" in verdicts else 0)
    told = CLI.invoke(app, ["select", place])
    assert "compared at 30% of training" in told.stdout
    early = CLI.invoke(app, ["select", place, "--at", "0.03"])
    assert early.exit_code == 0
    assert "5% is needed" in early.stdout
    assert CLI.invoke(app, ["select", place, "--at", "0.03", "--strict"]).exit_code == 1


def test_no_sweep(archive: str) -> None:
    done = CLI.invoke(app, ["select", archive])
    assert done.exit_code == 0
    assert "no sweep is under way" in done.stdout
