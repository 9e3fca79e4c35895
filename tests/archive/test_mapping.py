"""Mapping files and sidecars: what the logs do not say by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.archive import MappingError, inspect, list_runs, read_mapping

from .logs import archived, by_name, csv_log, curve, write


def mapping(tmp_path: Path, files: str) -> Path:
    return write(tmp_path / "mapping.yaml", f"schema: planner.mapping/1\nfiles:\n{files}")


def test_private_names_and_constants(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "10M-a.csv", "mein_schritt,verlust,tok\n5,3.5,10\n6,3.25,20\n")
    rules = mapping(
        tmp_path,
        "  - match: '10M-*.csv'\n"
        "    columns: {step: mein_schritt, train/loss: verlust, tokens: tok}\n"
        "    constants: {params: 10M, tpp: 20, batch_tokens: 1e5, lr: 0.01, weight_decay: 0.1}\n",
    )
    archive, report = archived(tmp_path, tmp_path / "logs", mapping=read_mapping(rules))
    assert report.ok
    run = by_name(archive)["10M-a"]
    assert curve(archive, run["run"], "train/loss") == ([5, 6], [3.5, 3.25])
    assert archive.points([run["run"]]).column("tokens").to_pylist() == [10, 20]
    assert (run["params"], run["tokens"], run["total_steps"]) == (10**7, 2 * 10**8, 2000)
    assert run["tau"] == pytest.approx(1 / (0.01 * 0.1 * 2000))
    assert run["origins"]["params"] == "mapping file"
    assert run["origins"]["tokens"] == "derived: tpp * params"


def test_what_a_person_declares_comes_before_what_the_log_says(tmp_path: Path) -> None:
    text = '{"n_params": 5}\n{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n'
    log = write(tmp_path / "logs" / "a.jsonl", text)
    rules = mapping(tmp_path, "  - {match: '*', constants: {params: 7}}\n")
    archive, _ = archived(tmp_path, log, mapping=read_mapping(rules))
    assert by_name(archive)["a"]["params"] == 7


def test_another_mapping_reads_the_run_again(tmp_path: Path) -> None:
    log = csv_log(tmp_path / "logs" / "a.csv")
    archive, _ = archived(tmp_path, log)
    rules = read_mapping(mapping(tmp_path, "  - {match: '*', constants: {params: 7}}\n"))
    _, report = archived(tmp_path, log, mapping=rules)
    assert report.replaced == ["a"]
    assert by_name(archive)["a"]["params"] == 7


def test_parts_of_one_run_by_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "x_part1.csv", "step,loss\n0,4\n1,3\n")
    write(tmp_path / "logs" / "x_part2.csv", "step,loss\n1,2\n2,1\n")
    rules = mapping(tmp_path, "  - {match: '*_part*.csv', run: '(\\w+)_part\\d'}\n")
    archive, _ = archived(tmp_path, tmp_path / "logs", mapping=read_mapping(rules))
    (run,) = by_name(archive).values()
    assert curve(archive, run["run"], "train/loss") == ([0, 1, 2], [4, 2, 1])


def test_ignore_reader_and_policy(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "a.csv", "step,loss\n0,4\n1,3\n1,2\n")
    write(tmp_path / "logs" / "b.csv", "step,loss\n0,4\n")
    rules = mapping(
        tmp_path,
        "  - {match: a.csv, reader: csv, policy: {duplicates: first}}\n"
        "  - {match: b.csv, ignore: true}\n",
    )
    archive, report = archived(tmp_path, tmp_path / "logs", mapping=read_mapping(rules))
    assert report.skipped == [("logs/b.csv", "the mapping file says to ignore it")]
    run = by_name(archive)["a"]
    assert run["policy"]["duplicates"] == "first"
    assert curve(archive, run["run"], "train/loss") == ([0, 1], [4, 3])


@pytest.mark.parametrize("name", ["planner-run.yaml", "a.csv.planner.yaml"])
def test_a_sidecar_describes_the_run_beside_it(name: str, tmp_path: Path) -> None:
    csv_log(tmp_path / "logs" / "a.csv")
    write(tmp_path / "logs" / name, "params: 300M\ntokenizer: gpt2\nseed: 3\n")
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert report.ok
    run = by_name(archive)["a"]
    assert (run["params"], run["tokenizer"], run["seed"]) == (300_000_000, "gpt2", 3)
    assert run["origins"]["params"] == "sidecar"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("b.csv.planner.yaml", "describes b.csv, which is no log beside it"),
        ("deeper/planner-run.yaml", "describes the logs of its folder, in which there are none"),
        ("planner-run.yml", "a sidecar is called planner-run.yaml or LOG.planner.yaml"),
        ("planner_run.yaml", "a sidecar is called planner-run.yaml or LOG.planner.yaml"),
        ("a.csv.planner.yml", "a sidecar is called planner-run.yaml or LOG.planner.yaml"),
        ("a.csv-planner.yaml", "a sidecar is called planner-run.yaml or LOG.planner.yaml"),
    ],
)
def test_a_sidecar_that_nothing_reads_is_told(name: str, reason: str, tmp_path: Path) -> None:
    csv_log(tmp_path / "logs" / "a.csv")
    write(tmp_path / "logs" / name, "params: 300M\n")
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert by_name(archive)["a"]["params"] is None
    [(file, told)] = report.failed
    assert file == f"logs/{name}"
    assert reason in told
    assert [item.reason for item in inspect([tmp_path / "logs"]).surveyed if item.reason] == [told]


def test_a_sidecar_of_a_log_that_fails_is_read(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "a.csv", "")
    write(tmp_path / "logs" / "a.csv.planner.yaml", "params: 300M\n")
    _, report = archived(tmp_path, tmp_path / "logs")
    assert report.failed == [("logs/a.csv", "is empty")]


def test_a_wrong_sidecar_fails_its_log_only(tmp_path: Path) -> None:
    csv_log(tmp_path / "logs" / "a.csv")
    csv_log(tmp_path / "logs" / "b.csv", seed=1)
    write(tmp_path / "logs" / "a.csv.planner.yaml", "parms: 300M\n")
    archive, report = archived(tmp_path, tmp_path / "logs")
    assert list(by_name(archive)) == ["b"]
    assert report.failed[0][0] == "logs/a.csv"
    assert "did you mean 'params'?" in report.failed[0][1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("  - {match: '*', constants: {parms: 1}}", "did you mean 'params'"),
        ("  - {match: '*', constants: {params: many}}", "mapping.yaml:3: files.0.constants.params"),
        ("  - {match: '*', reader: cvs}", "no reader is called 'cvs'; did you mean 'csv'?"),
        ("  - {match: '*', run: '(['}", "is not a regular expression"),
        ("  - {match: '*', run: 'abc'}", "wanted a regular expression with a group"),
        ("  - {constants: {}}", "match: is missing"),
        ("  []", "files"),
    ],
)
def test_a_wrong_mapping_names_file_line_and_field(
    files: str, message: str, tmp_path: Path
) -> None:
    if files == "  []":
        path = write(tmp_path / "mapping.yaml", "schema: planner.mapping/1\nfiles: 3\n")
    else:
        path = mapping(tmp_path, files + "\n")
    with pytest.raises(MappingError) as caught:
        read_mapping(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_declared_tau_comes_before_the_computed_one(tmp_path: Path) -> None:
    config = '{"lr": 0.01, "weight_decay": 0.1, "total_steps": 100, "tau": 0.7}\n'
    text = config + '{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n'
    write(tmp_path / "logs" / "plain.jsonl", text)
    write(tmp_path / "logs" / "told.jsonl", text.replace("loss", "train_loss"))
    write(tmp_path / "logs" / "told.jsonl.planner.yaml", "tau: 0.25\n")
    archive, report = archived(tmp_path, tmp_path / "logs")
    runs = by_name(archive)
    assert report.ok
    assert runs["plain"]["tau"] == pytest.approx(10)  # another trainer's "tau" may mean anything
    assert (runs["told"]["tau"], runs["told"]["origins"]["tau"]) == (0.25, "sidecar")


def test_a_changed_run_folder_reads_its_log_again(tmp_path: Path) -> None:
    parameters = tmp_path / "run" / "20260101_000000" / "trainer_params.yaml"
    said = "trainer:\n  init:\n    seed: {}\n"
    write(parameters, said.format(1).encode())
    line = "| Train Device=CSX, Step={}, Loss=7.9{}, Rate=1, GlobalRate=1\n"
    log = tmp_path / "run" / "cerebras_logs" / "20260101_000000" / "run.log"
    write(log, "".join(line.format(step, step) for step in (50, 100)).encode())
    archive, first = archived(tmp_path, tmp_path / "run")
    _, same = archived(tmp_path, tmp_path / "run")
    write(parameters, said.format(2).encode())
    _, again = archived(tmp_path, tmp_path / "run")
    assert (first.added, same.added, same.unchanged) == (["run"], [], 1)
    assert again.replaced == ["run"]
    assert [run["seed"] for run in list_runs(archive)] == [2]
