"""The Multi-Power Law from an archive: rates of every step, constants, unseen schedules."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from planner.archive import Archive
from planner.fitting import FitError
from planner.fitting.inputs import select_curves
from planner.fitting.rates import Scheduled, scheduled
from planner.fitting.schedule import fit_schedule
from planner.kernel import Ragged
from planner.kernel.multi_power_law import MultiPowerLaw
from planner.laws.schedule import schedule_loss

from .runs import Made, made_archive

ROOT = Path(__file__).resolve().parents[2]
PEAK, WARMUP, STEPS = 1e-3, 200, 4000
TRUE = MultiPowerLaw(3.04, 0.525, 0.508, 363.788, 2.066, 0.583, 0.641)


def rates(kind: str, steps: int = STEPS) -> np.ndarray:
    at = np.arange(steps + 1)
    t = at / steps
    lr = {
        "constant": np.ones(steps + 1),
        "cosine": 0.55 + 0.45 * np.cos(np.pi * t),
        "linear": 1 - t,
        "wsd": np.where(t < 0.8, 1.0, 0.1 ** ((t - 0.8) / 0.2)),
        "drop": np.where(at < 2010, 1.0, 0.3),
    }[kind]
    return PEAK * lr * np.minimum(at / WARMUP, 1.0)


def made(kind: str, *, every: int = 20, start: int = 20, **facts: object) -> Made:
    steps = np.arange(start, STEPS + 1, every)
    lr = rates(kind)
    loss = TRUE.predict(Ragged.from_list([lr]), Ragged.from_list([steps.astype(float)])).values
    noise = np.random.default_rng(len(kind)).standard_normal(steps.size)
    known = {"total_steps": STEPS, "warmup_steps": WARMUP, "params": 25_000_000, **facts}
    known = {key: value for key, value in known.items() if value is not None}
    return Made(kind, steps, loss * (1 + 0.0005 * noise), known, lr=lr[steps])


KINDS = ("constant", "cosine", "linear", "wsd", "drop")


def one(archive: Archive, **options: object) -> Scheduled | str:
    (curve,) = select_curves(archive).curves
    return scheduled(curve, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_of_every_step(tmp_path: Path, kind: str) -> None:
    found = one(made_archive(tmp_path, [made(kind)]))
    assert isinstance(found, Scheduled)
    off = np.abs(found.lr - rates(kind))
    if kind == "drop":
        # where between two logged steps it fell is not known; not before the one that shows it
        assert np.flatnonzero(off > 1e-9).tolist() == list(range(2010, 2020))
    else:
        assert off.max() < 2e-3 * PEAK
    assert found.steps[0] == WARMUP


def test_a_warm_up_that_is_not_logged(tmp_path: Path) -> None:
    archive = made_archive(tmp_path, [made("cosine", start=400, warmup_steps=None)])
    found = one(archive)
    assert isinstance(found, str)
    assert found.startswith("its learning rate is logged from step 400 on, and how long")
    told = one(archive, warmup_steps=WARMUP)
    assert isinstance(told, Scheduled)
    off = np.abs(told.lr - rates("cosine"))
    # up to the first logged step the rate there stands for all that follow the warm-up
    assert off[:400].max() < 0.03 * PEAK
    assert off[400:].max() < 1e-3 * PEAK
    with pytest.raises(FitError, match="no curve can be fitted; cosine: its learning rate is"):
        fit_schedule(archive)


def test_declared_schedules_do_without_logged_rates(tmp_path: Path) -> None:
    run = made("linear", schedule="linear-to-zero")
    run.lr = None
    run.facts["lr"] = PEAK
    found = one(made_archive(tmp_path, [run]))
    assert isinstance(found, Scheduled)
    wanted = np.where(
        np.arange(STEPS + 1) < WARMUP,
        np.arange(STEPS + 1) / WARMUP,
        (STEPS - np.arange(STEPS + 1)) / (STEPS - WARMUP),
    )
    assert found.lr == pytest.approx(PEAK * wanted, abs=1e-9)


def test_neither_logged_nor_declared(tmp_path: Path) -> None:
    run = made("linear")
    run.lr = None
    assert one(made_archive(tmp_path, [run])) == "its learning rate is neither logged nor declared"


def test_unseen_schedules_are_predicted(tmp_path: Path) -> None:
    archive = made_archive(tmp_path, [made(kind) for kind in KINDS])
    (fit,) = fit_schedule(archive, gamma="free", replicates=10, leave_out=False)
    assert fit.error < 0.003
    assert fit.law.constants["L0"] == pytest.approx(TRUE.l0, rel=0.01)
    two_drops = np.where(np.arange(STEPS + 1) < 3000, rates("drop"), 0.05 * PEAK)
    wanted = TRUE.predict(Ragged.from_list([two_drops]), Ragged.from_list([[2900.0, 4000.0]]))
    assert schedule_loss(fit.law, two_drops, [2900, 4000]) == pytest.approx(wanted.values, abs=0.02)


def test_few_schedules_hold_gamma_and_each_curve_is_left_out(tmp_path: Path) -> None:
    archive = made_archive(tmp_path, [made(kind) for kind in ("constant", "cosine", "drop")])
    (fit,) = fit_schedule(archive, replicates=0)
    assert fit.law.constants["gamma"] == 0.4
    assert any("gamma is held at 0.4: 3 schedules" in note for note in fit.notes)
    assert {left.what for left in fit.left_out} == {"constant", "cosine", "drop"}
    assert all(left.unit == "nats" for left in fit.left_out)


def test_one_schedule_determines_no_answer_to_others(tmp_path: Path) -> None:
    archive = made_archive(tmp_path, [made("cosine")])
    (fit,) = fit_schedule(archive, replicates=0)
    assert {"B", "C", "beta", "gamma"} <= set(fit.law.unidentified)
    assert any("one learning-rate schedule" in text for text in fit.warnings)


def test_sizes_are_fitted_one_by_one(tmp_path: Path) -> None:
    runs = [made("cosine"), made("drop")]
    for run in (made("cosine", params=None), made("drop", params=None)):
        run.name = f"other/{run.name}"
        runs.append(run)
    fits = fit_schedule(made_archive(tmp_path, runs), name="ours", replicates=0, leave_out=False)
    assert {fit.law.name for fit in fits} == {"ours-25.0M", "ours-logs-other"} or {
        fit.law.name for fit in fits
    } == {"ours-25.0M", "ours-other"}
    assert [fit.runs for fit in fits] == [2, 2]


@pytest.mark.data
def test_the_targets_and_the_default_on_real_curves(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    section = importlib.import_module("accuracy.schedule_law").evaluate(data_dir, tmp_path)
    assert all(target.met for target in section.targets), section.targets
    assert section.figures["gamma"] == section.figures["default_gamma"]


@pytest.mark.data
def test_an_edited_log_changes_the_report(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    part = importlib.import_module("accuracy.schedule_law")
    monkeypatch.setattr(part, "GAMMAS", ("free",))
    shutil.copytree(data_dir / "multipowerlaw", tmp_path / "data" / "multipowerlaw")
    before = part.evaluate(tmp_path / "data", tmp_path / "before")
    log = tmp_path / "data" / "multipowerlaw" / "csv_25" / "wsdcon_3.csv"
    head, *rows = log.read_text().splitlines()
    step, lr, loss = rows[-1].split(",")
    log.write_text("\n".join([head, *rows[:-1], f"{step},{lr},{float(loss) + 0.5}"]) + "\n")
    after = part.evaluate(tmp_path / "data", tmp_path / "after")
    # one of some points of one of six curves
    assert after.figures["25M/free"] > before.figures["25M/free"] + 1e-4
    assert after.figures["100M/free"] == before.figures["100M/free"]
