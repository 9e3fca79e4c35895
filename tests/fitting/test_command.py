"""planner fit, and the loop: runs, laws, the next plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from planner.archive import Archive
from planner.cli.fitting_tables import print_fits
from planner.fitting import Fit, LeftOut
from planner.laws import Law, load_laws

from .runs import TRUE_LOSS, Made, ended, family, law_loss, made_archive, sweep

SPEC = """
family: next
preset: gpt2-collapse
tpp: 20
sizes: [111M]
laws: laws.yaml
timescale: fitted-tau
batch: fitted-batch
loss_law: fitted-loss
"""


def tau_runs() -> list[Made]:
    return [
        run
        for tpp in (5, 20, 80)
        for run in sweep(
            1e8, tpp, 1.1 * tpp**-0.5, [f * 1.1 * tpp**-0.5 for f in (0.3, 0.6, 1.1, 2, 4)]
        )
    ]


def batch_runs() -> list[Made]:
    return [
        ended(
            f"batch-{d:g}-{factor:g}",
            law_loss(1e8, d) + 0.02 * float(np.log(factor)) ** 2,
            params=10**8,
            tokens=int(d),
            batch_tokens=round(20 * d**0.4 * factor),
        )
        for d in (1e9, 4e9, 1.6e10)
        for factor in (0.3, 0.6, 1.1, 2, 4)
    ]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Archive]:
    folder = tmp_path_factory.mktemp("archives")
    return {
        "loss": made_archive(folder / "a", family()),
        "tau": made_archive(folder / "b", tau_runs()),
        "batch": made_archive(folder / "c", batch_runs()),
    }


@pytest.fixture
def archives(shared: dict[str, Archive]) -> dict[str, Archive]:
    return shared


def test_the_loop_from_runs_to_the_next_plan(
    command: Callable, archives: dict[str, Archive], tmp_path: Path
) -> None:
    for kind, archive in archives.items():
        done = command("fit", kind, str(archive.path), "-o", "laws.yaml")
        assert (done.code, done.err) == (0, "")
        assert f"fitted-{kind}" in done.out
    assert "wrote fitted-batch to laws.yaml beside fitted-loss, fitted-tau" in done.out
    (tmp_path / "spec.yaml").write_text(SPEC)
    planned = command("plan", "spec.yaml", "-o", "plan.json")
    assert planned.code == 0, planned.err
    plan = json.loads((tmp_path / "plan.json").read_text())
    (run,) = plan["runs"]
    assert run["optimizer"]["tau"] == pytest.approx(1.1 * run["tpp"] ** -0.5, rel=2e-3)
    n, d = run["params"]["total"], run["tokens"]
    assert run["batch"]["tokens"] == pytest.approx(20 * d**0.4, rel=0.05)
    assert run["predicted"]["loss"] == pytest.approx(law_loss(n, d), rel=1e-3)
    assert run["predicted"]["low"] <= run["predicted"]["loss"] <= run["predicted"]["high"]
    assert {name: law["confidence"] for name, law in plan["laws"].items()}["fitted-tau"] == "fitted"
    for field, law in (
        ("optimizer.tau", "fitted-tau"),
        ("batch.sequences", "fitted-batch"),
        ("predicted.loss", "fitted-loss"),
    ):
        told = command("explain", "plan.json", f"{run['name']}.{field}")
        assert told.code == 0, told.err
        assert law in told.out
        assert "fitted" in told.out
        assert "planner fit: " in told.out


def test_json_and_residuals(
    command: Callable, archives: dict[str, Archive], tmp_path: Path
) -> None:
    path = str(archives["loss"].path)
    done = command("fit", "loss", path, "--json", "--residuals", "points.json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert document["schema"] == "planner.fit/1"
    (fit,) = document["fits"]
    assert fit["law"]["constants"]["E"] == pytest.approx(TRUE_LOSS["E"], rel=1e-3)
    assert fit["left_out"][0]["unit"] == "relative"
    assert len(fit["residuals"]) == fit["runs"] == 20
    assert set(fit["residuals"][0]) == {"run", "name", "inputs", "observed", "predicted"}
    assert json.loads((tmp_path / "points.json").read_text()) == document
    again = command("fit", "loss", path, "--json")
    assert again.out == done.out


def test_the_laws_file_on_standard_output(
    command: Callable, archives: dict[str, Archive], tmp_path: Path
) -> None:
    done = command("fit", "tau", str(archives["tau"].path), "-o", "-", "--name", "mine")
    assert done.code == 0
    (tmp_path / "laws.yaml").write_text(done.out)
    assert load_laws(tmp_path / "laws.yaml")["mine"].quantity == "tau"


def test_an_open_constant_is_exit_code_1_and_the_plan_says_so(
    command: Callable, tmp_path: Path
) -> None:
    random = np.random.default_rng(5)
    runs = family(sizes=(2e8, 4e8, 8e8), tpps=(10, 20, 40, 100))
    for run in runs:
        run.loss = np.asarray(run.loss) * np.exp(0.005 * random.standard_normal())
    archive = made_archive(tmp_path / "x", runs)
    done = command("fit", "loss", str(archive.path), "-o", "laws.yaml")
    assert done.code == 1
    assert "not determined" in done.out
    warned = re.search(r"warning: fitted-loss: the runs do not determine (\w+): from", done.err)
    assert warned is not None
    (tmp_path / "spec.yaml").write_text(
        "family: x\npreset: gpt2-collapse\ntpp: 20\nsizes: [111M]\nlaws: laws.yaml\n"
        "loss_law: fitted-loss\n"
    )
    planned = command("plan", "spec.yaml")
    named = rf"law 'fitted-loss': its runs do not determine .*\b{warned[1]} \("
    assert re.search(named, planned.err)


def test_an_edited_file_is_refused(
    command: Callable, archives: dict[str, Archive], tmp_path: Path
) -> None:
    path = str(archives["tau"].path)
    (tmp_path / "laws.yaml").write_text("# my own laws\n")
    refused = command("fit", "tau", path, "-o", "laws.yaml")
    assert refused.code == 2
    assert refused.err.startswith("error: laws.yaml: exists and is not as planner fit wrote it")
    assert command("fit", "tau", path, "-o", "laws.yaml", "--force").code == 0


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("two")
    return str(made_archive(folder, family(sizes=(1e8,), tpps=(5, 20))).path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "los", "ARCHIVE"), "fit: got 'los'; did you mean 'loss'?"),
        (("fit", "loss", "nowhere"), "nowhere"),
        (("fit", "loss", "ARCHIVE", "--metric", "eval/x/loss"), "--metric: no run logged"),
        (("fit", "loss", "ARCHIVE", "--where", "prams>1"), "no field to filter by is called"),
        (("fit", "loss", "ARCHIVE", "--run", "nothing*"), "no run matches nothing*"),
        (("fit", "loss", "ARCHIVE", "--level", "90"), "--level: got 90, wanted a probability"),
        (("fit", "loss", "ARCHIVE", "--warmup-steps", "9"), "only fit schedule has it"),
        (("fit", "loss", "ARCHIVE", "--gamma", "1"), "--gamma: got 1; only fit schedule has it"),
        (("fit", "schedule", "ARCHIVE", "--gamma", "x"), "--gamma: got 'x', wanted free or a"),
        (("fit", "batch", "ARCHIVE"), "a power law needs optima at two different tokens"),
        (("fit", "surrogate", "ARCHIVE"), "got 0 finished curves whose schedule, tau and TPP"),
        (("fit", "schedule", "ARCHIVE"), "its learning rate is neither logged nor declared"),
    ],
)
def test_bad_input(command: Callable, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    archive = made_archive(tmp_path / "x", family(sizes=(1e8,), tpps=(5, 20)))
    done = command(*(str(archive.path) if word == "ARCHIVE" else word for word in words))
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_laws_that_no_plan_asks_for_are_no_hindrance(command: Callable, tmp_path: Path) -> None:
    golden = Path(__file__).with_name("golden") / "laws.yaml"
    (tmp_path / "laws.yaml").write_text(golden.read_text())
    spec = "family: x\npreset: gpt2-collapse\ntpp: 20\nsizes: [111M]\nlaws: laws.yaml\n"
    (tmp_path / "spec.yaml").write_text(spec + "timescale: ours\n")
    planned = command("plan", "spec.yaml", "--json")
    assert planned.code == 0, planned.err
    tpp = json.loads(planned.out)["runs"][0]["tpp"]
    tau = json.loads(planned.out)["runs"][0]["optimizer"]["tau"]
    assert tau == pytest.approx(1.1 * tpp**-0.5, rel=1e-6)
    (tmp_path / "spec.yaml").write_text(spec + "timescale: curves\n")
    refused = command("plan", "spec.yaml")
    assert refused.code == 2
    assert "law 'curves' is a law for curve" in refused.err


def test_what_people_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    law = Law(
        name="fitted-loss",
        quantity="loss",
        form="chinchilla",
        input="params_and_tokens",
        constants={"E": 0.4754, "A": 7.7061, "B": 45.816, "alpha": 0.068710, "beta": 0.17084},
        source="planner fit: final losses of 20 runs of ladder, eval/c4_en-validation/loss",
        confidence="fitted",
        fitted_range={"params": (1.9e8, 1.28e9), "tokens": (1.9e9, 1.28e11)},
        intervals={"E": (0.0, 1.929), "alpha": (0.0468, 0.2957), "beta": (0.0792, 0.2222)},
        level=0.9,
        unidentified=("E", "alpha"),
    )
    fit = Fit(
        law=law,
        kind="loss",
        metric="eval/c4_en-validation/loss",
        runs=20,
        error=0.00267,
        unit="relative",
        left_out=(
            LeftOut("the largest size, 1.28B", 5, 0.00591, "relative"),
            LeftOut("csv_25/cosine_24000", 1, 0.0031, "nats", 0.0021),
        ),
        notes=("3 runs left aside: unfinished",),
        warnings=("the runs do not determine E: from 0 to 1.929 it fits about equally well",),
    )
    print_fits([fit], "laws.yaml", ("fitted-tau",))
    printed = capsys.readouterr()
    golden = Path(__file__).with_name("golden") / "table.txt"
    assert printed.out + printed.err == golden.read_text()
