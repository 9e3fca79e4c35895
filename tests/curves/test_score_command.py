"""``planner score``: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from planner.archive import Archive
from planner.cli.main import app
from planner.compile import compile_plan
from planner.curves import Reference, load_curves
from planner.curves.load import Loader
from planner.curves.score import score_archive
from planner.plan import write_plan
from planner.spec import load_spec
from tests.curves.made import archived, curve

SIZES = (100_000_000, 200_000_000, 400_000_000)


def drift(t: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.maximum(0.0, t - 0.6) / 0.4 * 0.03


def runs(sick: bool) -> list[Any]:
    made = [
        curve(f"f/{n // 10**6}M", params=n, noise=0.005, seed=i, final=3.5 - 0.2 * i)
        for i, n in enumerate(SIZES)
    ]
    bad = curve("f/big", params=800_000_000, noise=0.005, seed=9, extra=drift if sick else None)
    return [*made, bad, curve("f/young", params=SIZES[2], noise=0.005, until=0.02)]


def planner(*args: object) -> Any:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    return archived(runs(sick=True), tmp_path / "archive").path


@pytest.fixture
def well(tmp_path: Path) -> Path:
    return archived(runs(sick=False), tmp_path / "archive").path


def test_a_deviating_run_is_exit_code_1_and_listed_first(sick: Path) -> None:
    done = planner("score", sick)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "20 TPP, tau 0.2, linear to zero: 5 runs"
    assert lines[1] == "  reference: 100M, 200M, 400M (3 runs)"
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["run"]) + 1
    assert lines[first].split()[0] == "big"
    assert "deviating since 6" in lines[first]
    assert "numerics drift" in lines[first]
    assert "only 2.0% is logged" in done.stdout
    assert lines[-1] == "train/loss, 5 runs: 1 deviating, 3 healthy, 1 undecidable"


def test_healthy_runs_are_exit_code_0_and_undecidable_ones_only_if_strict(well: Path) -> None:
    assert planner("score", well).exit_code == 0
    assert planner("score", well, "--strict").exit_code == 1
    only = planner("score", well, "--strict", "--where", "name!=*young*")
    assert only.exit_code == 0


def test_the_document(sick: Path) -> None:
    done = planner("score", sick, "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["schema"] == "planner.score/1"
    named = {run["name"]: run for run in document["runs"]}
    assert [run["name"] for run in document["runs"]] == sorted(named)
    big = named["f/big"]
    contract = (
        *("run", "metric", "reference", "alpha", "verdict", "since", "divisor", "deviation"),
        *("noise", "tau", "tpp", "causes"),
    )
    assert set(contract) <= set(big)
    assert big["verdict"] == "deviating"
    assert big["alpha"] == 0.01
    assert 0.55 < big["since"] < 0.75
    assert set(big["causes"][0]) == {"cause", "weight", "evidence"}
    assert named["f/young"]["verdict"] == "undecidable"
    assert named["f/young"]["since"] is None
    family = document["family"]
    assert (family["deviating"], family["healthy"], family["undecidable"]) == (1, 3, 1)
    (band,) = family["bands"]
    assert band["collapse"]["runs"] == 4
    assert [o["name"] for o in family["outsiders"]] == ["f/big"]


def test_the_same_archive_gives_the_same_bytes(sick: Path) -> None:
    assert planner("score", sick, "--json").stdout == planner("score", sick, "--json").stdout


def test_a_reference_is_written_and_used(tmp_path: Path, sick: Path) -> None:
    file = tmp_path / "reference.json"
    assert planner("score", sick, "-o", file).exit_code == 1
    reference = Reference.load(file)
    assert reference.sizes == SIZES
    done = planner("score", sick, "--reference", file, "--where", "name=*big", "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert run["verdict"] == "deviating"
    assert run["reference"] == "f/100M and 2 more"
    # with the points of its runs, for the noise that a run may share with them
    made = Reference.build(runs(sick=True)[:3])
    for member, other in zip(reference.members, made.members, strict=True):
        assert member.noise is not None
        assert other.noise is not None
        assert member.steps is not None
        assert member.steps.tolist() == list(range(int(member.steps[0]), 1001))
        assert member.steps[0] < 10
        assert float(np.corrcoef(member.noise, other.noise[-member.noise.size :])[0, 1]) > 0.95


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metric", "eval/x/loss"], "--metric: no run logged 'eval/x/loss'"),
        (["--alpha", "0.7"], "--alpha: got 0.7, wanted above 0 and below 0.5"),
        (["--group-by", "tp"], "--group-by: no field is called 'tp'"),
        (["--reference", "no/such.json"], "no/such.json"),
        (["--where", "name=nobody"], "no run"),
        (["--group-by", "name"], "no field is called 'name'"),
        (["--group-by", "params", "-o", "x.json"], "--output: 4 bands have a reference"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    sick: Path, args: list[str], message: str
) -> None:
    done = planner("score", sick, *args)
    assert done.exit_code == 2
    said = done.stderr.strip()
    assert message in said
    assert said.startswith("error: ")
    assert "\n" not in said


def test_a_folder_that_is_no_archive(tmp_path: Path) -> None:
    done = planner("score", tmp_path / "nothing")
    assert done.exit_code == 2


def test_curves_come_whole_whatever_the_batches(sick: Path) -> None:
    archive = Archive(sick)
    read = {c.facts.name: c for batch in load_curves(archive) for c in batch}
    for made in runs(sick=True):
        np.testing.assert_array_equal(read[made.facts.name].values, made.values)
        assert read[made.facts.name].horizon == 1000


def test_a_branch_begins_with_its_parents_steps(tmp_path: Path) -> None:
    trunk = curve("trunk", noise=0.01, seed=1)
    whole = curve("branch", noise=0.01, seed=2, parent="trunk", branch_step=600)
    late = replace(whole, steps=whole.steps[620:], values=whole.values[620:])
    twig = curve("twig", noise=0.01, seed=3, parent="branch", branch_step=800)
    twig = replace(twig, steps=twig.steps[799:], values=twig.values[799:])
    archive = archived([trunk, late, twig], tmp_path / "archive")
    read = {c.facts.name: c for batch in load_curves(archive) for c in batch}
    for name in ("trunk", "branch", "twig"):
        history = archive.history(name, "train/loss")
        np.testing.assert_array_equal(read[name].steps, history.column("step").to_numpy())
        np.testing.assert_array_equal(read[name].values, history.column("value").to_numpy())
    assert read["twig"].values[0] == trunk.values[0]
    some = Loader.open(archive).batches(runs=["twig"])
    (only,) = [c for batch in some for c in batch.curves()]
    np.testing.assert_array_equal(only.values, read["twig"].values)


def test_what_a_log_says_differently_from_its_plan(tmp_path: Path, project_root: Path) -> None:
    plan = compile_plan(load_spec(str(project_root / "examples" / "celerity.yaml")))
    write_plan(plan, tmp_path / "plan.json")
    made, more = [], {}
    for i, size in enumerate(("300M", "500M", "900M", "1.8B")):
        run = plan.run(f"{size}-20tpp")
        made.append(
            curve(
                run.name,
                params=run.params.total,
                steps=run.steps,
                every=run.steps // 500,
                noise=0.003,
                seed=i,
                tau=None,
                tpp=None,
                warmup=run.warmup_steps,
            )
        )
        wrong = 2.0 if size == "900M" else 1.0
        more[run.name] = {
            "run_digest": run.digest,
            "lr": run.optimizer.base_peak_lr * wrong,
            "weight_decay": run.optimizer.base_weight_decay,
            "tokens": run.tokens,
        }
    archive = archived(made, tmp_path / "archive", more)
    done = planner("score", archive.path, "--plan", tmp_path / "plan.json", "--json")
    document = json.loads(done.stdout)
    shown = planner("score", archive.path, "--plan", tmp_path / "plan.json").stdout
    assert "  900M-20tpp: learning rate 0.3 for 0.15\n" in shown
    (band,) = document["family"]["bands"]
    assert band["tau"] == pytest.approx(0.175, abs=0.001)
    (outsider,) = document["family"]["outsiders"]
    assert outsider["name"] == "900M-20tpp"
    assert outsider["tau"] == pytest.approx(0.175 / 2, rel=0.01)
    assert outsider["tpp"] == pytest.approx(20.0, rel=0.01)
    assert outsider["reasons"] == ["its log differs from its plan: learning rate 0.3 for 0.15"]


def test_scores_do_not_depend_on_which_other_bands_there_are(tmp_path: Path) -> None:
    others = [curve(f"o{i}", tpp=80.0, noise=0.01, seed=30 + i) for i in range(3)]
    alone = archived(runs(sick=True), tmp_path / "a")
    together = archived([*runs(sick=True), *others], tmp_path / "b")
    wanted = {run.name: run for run in score_archive(alone).runs}
    got = {run.name: run for run in score_archive(together).runs}
    assert all(got[name] == run for name, run in wanted.items())


def test_where_most_runs_are_alone_the_last_line_says_what_to_do(tmp_path: Path) -> None:
    made = [curve(f"f/{i}", seed=i, tau=0.1 * 2**i) for i in range(4)]
    path = archived(made, tmp_path / "archive").path
    lines = planner("score", path).stdout.splitlines()
    assert lines[-1] == (
        "4 runs have no other of the same TPP, tau and schedule to be compared with; "
        "--group-by tpp,schedule would compare 4 of them, across what differs"
    )
    assert "have no other" not in planner("score", path, "--group-by", "tpp,schedule").stdout
    family = json.loads(planner("score", path, "--json").stdout)["family"]
    assert family["alone"] == {"runs": 4, "group_by": "tpp,schedule", "together": 4}


def test_a_reason_that_many_runs_share_is_said_once(tmp_path: Path) -> None:
    made = [curve(f"f/{i}", seed=i, tau=None) for i in range(4)]
    path = archived(made, tmp_path / "archive").path
    text = planner("score", path).stdout
    assert text.count("nothing is known to be comparable") == 1
    assert text.count("undecidable  [1]") == 4
    assert "  [1] 4 runs undecidable: the log does not tell its tau" in text


def test_where_no_run_matches_that_is_said(well: Path) -> None:
    for verb in (("score",), ("select",), ("plot", "-o", "x.png"), ("fit", "loss")):
        done = planner(*verb, well, "--where", "name=nothing*")
        if done.exit_code == 3:  # no matplotlib
            continue
        assert done.exit_code == 2
        assert "no run matches name=nothing*" in done.output
