"""Laws files: read, used, and refused with file, line and field."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from planner.compile import compile_plan
from planner.errors import PlannerError
from planner.laws import load_laws, published
from planner.plan import Plan
from planner.spec import load_spec

GOOD = """
    schema: planner.laws/1
    laws:
      our-tau:
        quantity: tau
        form: power
        input: tpp
        constants: {coefficient: 0.5, exponent: -0.25}
        fitted_range: {tpp: [10, 40]}
        source: "our runs of May"
        confidence: fitted
      our-batch:
        quantity: batch
        form: power
        input: tokens
        constants: {coefficient: 0.01, exponent: 0.4, sequence_length: 4096}
        source: "our runs of May"
        confidence: fitted
      our-loss:
        quantity: loss
        form: chinchilla
        input: params_and_tokens
        constants: {E: 1.7, A: 400, B: 2000, alpha: 0.34, beta: 0.36}
        source: "our runs of May"
        confidence: fitted
"""


def write(folder: Path, text: str, name: str = "laws.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def plan_with(folder: Path, laws: str, **lines: str) -> Plan:
    """Compile a spec whose `laws` is a file beside it."""
    write(folder, laws)
    spec = {"tpp": "20", "sizes": "[111M]", **lines, "laws": "laws.yaml"}
    text = "family: x\npreset: gpt2-collapse\n"
    text += "".join(f"{key}: {value}\n" for key, value in spec.items())
    return compile_plan(load_spec(write(folder, text, "spec.yaml")))


class TestUse:
    def test_a_spec_uses_its_laws(self, tmp_path: Path) -> None:
        plan = plan_with(
            tmp_path, GOOD, timescale="our-tau", batch="our-batch", loss_law="our-loss"
        )
        (run,) = plan.runs
        assert run.optimizer.tau == pytest.approx(0.5 * 20**-0.25, rel=1e-12)
        tokens = 20 * (run.tokens / run.tpp)
        assert run.batch.sequences == round(0.01 * tokens**0.4 * 4096 / 2048)
        n, d = run.params.total, run.tokens
        assert run.predicted.loss == pytest.approx(1.7 + 400 * n**-0.34 + 2000 * d**-0.36)
        assert run.predicted.low is None
        for name in ("our-tau", "our-batch", "our-loss"):
            assert plan.laws[name].source == "our runs of May"
            assert plan.laws[name].confidence == "fitted"
        assert plan.provenance[run.name]["optimizer.tau"].law == "our-tau"

    def test_its_range_warns(self, tmp_path: Path) -> None:
        plan = plan_with(tmp_path, GOOD, timescale="our-tau", tpp="50")
        assert any(
            "law 'our-tau' is used at tpp 50, outside the 10 to 40" in w for w in plan.warnings
        )

    def test_a_published_law_may_be_replaced(self, tmp_path: Path) -> None:
        laws = GOOD.replace("our-tau", "power-lines")
        plan = plan_with(tmp_path, laws)
        assert plan.runs[0].optimizer.tau == pytest.approx(0.5 * 20**-0.25, rel=1e-12)
        assert plan.runs[0].optimizer.tau_optimal == pytest.approx(0.5 * 20**-0.25, rel=1e-12)

    @pytest.mark.parametrize(
        "name",
        ["power-lines", "power-lines-batch", "power-lines-critical-batch", "iso-loss", "besiroglu"],
    )
    def test_but_not_by_another_quantity(self, tmp_path: Path, name: str) -> None:
        other = "our-loss" if name != "besiroglu" else "our-tau"
        with pytest.raises(PlannerError, match=f"law '{name}' is a law for"):
            plan_with(tmp_path, GOOD.replace(other, name))

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("timescale", "our-tua", "is unknown; did you mean 'our-tau'"),
            ("timescale", "our-batch", "is a law for batch"),
            ("batch", "our-tau", "is a law for tau"),
            ("loss_law", "our-tau", "is a law for tau"),
        ],
    )
    def test_wrong_name(self, tmp_path: Path, field: str, value: str, message: str) -> None:
        with pytest.raises(PlannerError, match=message) as caught:
            plan_with(tmp_path, GOOD, **{field: value})
        assert str(caught.value).startswith(f"{tmp_path}/spec.yaml:")
        assert str(caught.value.field).startswith(field)

    def test_no_such_file(self, tmp_path: Path) -> None:
        text = "family: x\npreset: gpt2-collapse\nlaws: missing.yaml\n"
        with pytest.raises(PlannerError, match=r"missing\.yaml") as caught:
            compile_plan(load_spec(write(tmp_path, text, "spec.yaml")))
        assert (caught.value.field, caught.value.line) == ("laws", 3)
        assert caught.value.file == str(tmp_path / "spec.yaml")

    def test_published_laws_are_a_laws_file(self) -> None:
        import planner.laws

        again = load_laws(Path(planner.laws.__file__).with_name("published.yaml"))
        assert again == published()


BAD = [
    ("quantity: tau", "quantity: tua", 5, "laws.our-tau.quantity", "did you mean 'tau'"),
    ("quantity: tau", "quantity: loss", 6, "laws.our-tau.form", "a law for loss has 'chinchilla'"),
    ("form: power", "form: iso-loss", 6, "laws.our-tau.form", "a law for tau has 'power'"),
    ("input: tpp", "input: tokens", 7, "laws.our-tau.input", "a law for tau has 'tpp'"),
    ("input: tpp", "inputs: tpp", 7, "laws.our-tau.inputs", "is unknown; did you mean 'input'"),
    ("coefficient: 0.5, ", "", 8, "laws.our-tau.constants", "lacks 'coefficient'"),
    ("0.5, ", ".nan, ", 8, "laws.our-tau.constants.coefficient", "wanted a finite number"),
    ("0.5, ", ".inf, ", 8, "laws.our-tau.constants.coefficient", "wanted a finite number"),
    ("0.5, ", "true, ", 8, "laws.our-tau.constants.coefficient", "wanted a number"),
    ("0.5, ", "half, ", 8, "laws.our-tau.constants.coefficient", "wanted a number"),
    ("0.5, ", "-0.5, ", 8, "laws.our-tau.constants.coefficient", "wanted more than 0"),
    ("0.5, ", "0, ", 8, "laws.our-tau.constants.coefficient", "wanted more than 0"),
    ("exponent: -0.25", "exponent: -0.25, b: 1", 8, "laws.our-tau.constants.b", "is unknown"),
    (
        "exponent: -0.25",
        "exponent: -0.25, sequence_length: 2048",
        8,
        "laws.our-tau.constants.sequence_length",
        "is unknown",
    ),
    ("[10, 40]", "[40, 10]", 9, "laws.our-tau.fitted_range.tpp", "wanted low first"),
    ("[10, 40]", "10", 9, "laws.our-tau.fitted_range.tpp", r"wanted \[low, high\]"),
    ("confidence: fitted", "confidence: sure", 11, "laws.our-tau.confidence", "wanted one of"),
    ("confidence: fitted", "scatter: 0.1", 4, "laws.our-tau.confidence", "wanted text"),
    (
        "confidence: fitted",
        "confidence: fitted\n        scatter: -1",
        12,
        "laws.our-tau.scatter",
        "wanted 0 or more",
    ),
    (
        "confidence: fitted",
        "confidence: fitted\n        covariance: [[1]]",
        12,
        "laws.our-tau.covariance",
        "only a loss law",
    ),
    ("planner.laws/1", "planner.laws/2", 2, None, "is not a laws file"),
    ("laws:\n", "lore:\n", 2, "laws", "wanted a mapping of law names"),
]


@pytest.mark.parametrize(("old", "new", "line", "field", "message"), BAD)
def test_bad_file(
    tmp_path: Path, old: str, new: str, line: int, field: str | None, message: str
) -> None:
    """One sentence with the file, the line and the field."""
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    path = write(tmp_path, text)
    with pytest.raises(PlannerError, match=message) as caught:
        load_laws(path)
    error = caught.value
    assert error.file == str(path)
    assert error.field == field
    assert error.line is not None
    assert abs(error.line - line) <= 1
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        ("[[1, 0], [0, 1]]", "wanted 5 rows of 5 numbers"),
        ("[[1,2,0,0,0],[0,1,0,0,0],[0,0,1,0,0],[0,0,0,1,0],[0,0,0,0,1]]", "symmetric"),
        ("[[1,2,0,0,0],[2,1,0,0,0],[0,0,1,0,0],[0,0,0,1,0],[0,0,0,0,1]]", "a covariance"),
        ("[[-1,0,0,0,0],[0,1,0,0,0],[0,0,1,0,0],[0,0,0,1,0],[0,0,0,0,1]]", "a covariance"),
    ],
)
def test_bad_covariance(tmp_path: Path, covariance: str, message: str) -> None:
    text = textwrap.dedent(GOOD) + f"    covariance: {covariance}\n"
    with pytest.raises(PlannerError, match=message) as caught:
        load_laws(write(tmp_path, text))
    assert str(caught.value.field).startswith("laws.our-loss.covariance")


@pytest.mark.parametrize("exponent", ["1.0", "1.5", "-0.1"])
def test_a_critical_batch_grows_slower_than_its_data(tmp_path: Path, exponent: str) -> None:
    """Otherwise D = D_min (1 + B / B_crit(D_min)) has no single solution."""
    laws = GOOD.replace("quantity: batch", "quantity: critical_batch").replace(
        "0.4,", f"{exponent},"
    )
    with pytest.raises(PlannerError, match="below 1") as caught:
        load_laws(write(tmp_path, laws))
    assert caught.value.field == "laws.our-batch.constants.exponent"


def test_a_plan_says_which_laws_file_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(PlannerError, match="wanted a finite number") as caught:
        plan_with(tmp_path, GOOD.replace("0.5, ", ".nan, "), timescale="our-tau")
    assert caught.value.file == str(tmp_path / "laws.yaml")


CURVES = """
    schema: planner.laws/1
    laws:
      ours:
        quantity: curve
        form: collapse-surrogate
        input: tau_and_tpp
        constants: {b_coefficient: 0.1, b_exponent: -0.3, q_coefficient: 1, q_exponent: -0.2,
          eps1: 0.001, eps2: 0.1, m: 0.05}
        source: our curves
        confidence: fitted
        metric: train/loss
        curve_errors: [0.002, 0.004]
        curve_settings: 5
        schedules:
        - {settings: 4, error: 0.003, factors: [1, 0.5, 0]}
        - {factors: [1, 1, 1]}
"""


class TestCurveErrors:
    def test_they_are_read(self, tmp_path: Path) -> None:
        law = load_laws(write(tmp_path, CURVES))["ours"]
        assert law.curve_error == pytest.approx(0.001 * 10**0.5)
        assert (law.curve_settings, law.metric) == (5, "train/loss")
        assert [s.settings for s in law.schedules] == [4, 0]

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("curve_settings: 5", "curve_settings: 0", "wanted a positive whole number"),
            ("        curve_settings: 5\n", "", "belong together"),
            ("[0.002, 0.004]", "[-1]", "wanted 0 or more"),
            ("[0.002, 0.004]", "0.1", "wanted a list of numbers"),
            ("[1, 0.5, 0]", "[2, 0]", "numbers from 0 to 1"),
            ("settings: 4, ", "", "how many the error is of"),
            ("settings: 4, ", "what: 4, ", "is unknown"),
        ],
    )
    def test_what_cannot_be_is_refused(self, tmp_path: Path, old: str, new: str, said: str) -> None:
        assert old in CURVES
        with pytest.raises(PlannerError, match=said):
            load_laws(write(tmp_path, CURVES.replace(old, new)))
