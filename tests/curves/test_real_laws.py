"""Real runs scored by laws that were fitted to them: what is called, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.archive import Archive, ingest, read_mapping
from planner.curves import Curve
from planner.curves.bands import grouping
from planner.curves.bins import bin_curves
from planner.curves.law_reference import LawReferences
from planner.curves.load import Loader
from planner.curves.score import score_archive, score_binned
from planner.curves.watch import assess
from planner.fitting import fit_schedule, fit_surrogate
from planner.fitting.rates import scheduled
from planner.fitting.schedule import fit_curves_of_a_size
from tests.curves.made import tiny_family

ROOT = Path(__file__).resolve().parents[2]
TRAIN = "train/loss"


def test_the_surrogate_of_the_tiny_family_finds_its_sick_run(tmp_path: Path) -> None:
    ingest(tiny_family(), tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    # the smallest size has few steps, and its curves are no function of tau and TPP
    healthy = ["name!=*fault*", "name!=*diverged*", "name!=*constant*", "params>15k"]
    fit = fit_surrogate(archive, metric="eval/loss", where=healthy, replicates=0)
    assert fit.law.curve_error is not None
    assert 0.003 < fit.law.curve_error < 0.008
    found = score_archive(archive, reference=LawReferences([fit.law]))
    assert found.metric == "eval/loss"  # the law says so
    assert [run.name for run in found.deviating] == ["5k-20tpp-diverged", "77k-20tpp-fault"]
    sick = found.deviating[1]
    assert sick.since is not None
    assert 0.55 < sick.since < 0.75
    # the law knows one schedule, and says so
    constant = [run for run in found.runs if "constant" in run.name]
    assert {run.verdict for run in constant} == {"undecidable"}
    assert all("was fitted on one schedule only" in (run.reason or "") for run in constant)
    assert sum(run.verdict == "healthy" for run in found.runs) >= 70


def _whole(archive: Archive) -> list[Curve]:
    """These logs end where their runs do, and do not say so."""
    batches = Loader.open(archive, metric=TRAIN, ended=True).batches()
    return [curve for batch in batches for curve in batch.curves()]


@pytest.fixture(scope="module")
def multipower(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("multipower")
    mapping = read_mapping(str(ROOT / "examples" / "mappings" / "multipowerlaw.yaml"))
    ingest([str(data_dir / "multipowerlaw")], folder, mapping=mapping)
    return Archive(folder)


def drift(curve: Curve) -> Curve:
    t = curve.fraction
    return replace(curve, values=curve.values * np.exp(np.maximum(0.0, t - 0.6) / 0.4 * 0.03))


def test_no_schedule_is_called_by_a_law_fitted_without_it(multipower: Archive) -> None:
    curves = [c for c in _whole(multipower) if "csv_25" in c.facts.name]
    items = {c.facts.name.rpartition("/")[2]: scheduled(c) for c in curves}
    # where the reference has to be of another schedule than any that was fitted
    for left_out in ("wsd_20000_24000", "cosine_24000", "wsdcon_9"):
        rest = [item for n, item in items.items() if n != left_out and not isinstance(item, str)]
        law = fit_curves_of_a_size(rest, name="law", metric=TRAIN, source="", replicates=0).law
        (one,) = [c for c in curves if c.facts.name.endswith(left_out)]
        verdicts = [
            score_binned(
                bin_curves([each]),
                metric=TRAIN,
                by=grouping(None),
                trusted=False,
                reference=LawReferences([law]),
                alpha=0.01,
            )
            .runs[0]
            .verdict
            for each in (one, drift(one))
        ]
        assert verdicts == ["healthy", "deviating"], left_out


def test_the_laws_of_two_sizes_score_and_watch_all_schedules(multipower: Archive) -> None:
    laws = [fit.law for fit in fit_schedule(multipower, replicates=0)]
    assert len(laws) == 2
    for law in laws:
        assert law.curve_error is not None
        assert 0.0005 < law.curve_error < 0.004
    found = score_archive(multipower, reference=LawReferences(laws), ended=True)
    assert [run.verdict for run in found.runs] == ["healthy"] * 18
    by = {run.name: run.reference for run in found.runs}
    assert by["csv_25/cosine_24000"] == "law fitted-schedule-25.0M"
    assert by["csv_100/cosine_24000"] == "law fitted-schedule-100M"
    for curve in _whole(multipower):
        assert assess(curve, LawReferences(laws)).state == "quiet", curve.facts.name
