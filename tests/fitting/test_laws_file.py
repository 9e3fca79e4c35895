"""Laws files: merged by name, never over somebody's edits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import LawError, OutputError
from planner.fitting.laws_file import laws_text, write_laws
from planner.laws import Law, load_laws, published
from planner.laws.law import CONSTANTS, QUANTITIES

GOLDEN = Path(__file__).with_name("golden") / "laws.yaml"

POWER = Law(
    name="ours",
    quantity="tau",
    form="power",
    input="tpp",
    constants={"coefficient": 1.1, "exponent": -0.5},
    source="planner fit: optima of sweeps of 40 runs of archive, train/loss",
    confidence="fitted",
    fitted_range={"tpp": (5.0, 320.0)},
    scatter=0.03,
    intervals={"coefficient": (1.0, 1.2), "exponent": (-0.53, -0.47)},
    level=0.9,
)
SURROGATE = Law(
    name="curves",
    quantity="curve",
    form="collapse-surrogate",
    input="tau_and_tpp",
    constants={
        "b_coefficient": 0.08,
        "b_exponent": -0.35,
        "q_coefficient": 0.9,
        "q_exponent": 0.0,
        "eps1": 0.001,
        "eps2": 0.1,
        "m": 0.05,
    },
    source="planner fit: normalized curves of 5 runs of archive, train/loss",
    confidence="fitted",
    fitted_range={"tau": (0.03, 0.3), "tpp": (20.0, 20.0)},
    intervals={"b_exponent": (-0.4, -0.3)},
    level=0.9,
    unidentified=("q_coefficient", "q_exponent"),
)


def test_the_file_as_a_person_reads_it() -> None:
    assert laws_text([SURROGATE, POWER]) == GOLDEN.read_text()
    assert load_laws(GOLDEN) == {"curves": SURROGATE, "ours": POWER}


def test_all_published_laws_survive(tmp_path: Path) -> None:
    path = tmp_path / "laws.yaml"
    write_laws(published().values(), path)
    assert load_laws(path) == published()


@settings(max_examples=40)
@given(data=st.data())
def test_any_law_survives(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    quantity = data.draw(st.sampled_from(sorted(QUANTITIES)))
    form, argument = QUANTITIES[quantity]
    number = st.floats(1e-12, 0.9)
    constants = {key: data.draw(number) for key in CONSTANTS[form]}
    some = data.draw(st.lists(st.sampled_from(sorted(constants)), unique=True))
    law = Law(
        name=data.draw(st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)),
        quantity=quantity,
        form=form,
        input=argument,
        constants=constants,
        source=data.draw(st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1)),
        confidence="fitted",
        fitted_range={"tpp": (data.draw(number), 1e30)},
        scatter=data.draw(st.none() | number),
        intervals={key: (-1e20, data.draw(number)) for key in some},
        level=data.draw(st.none() | number),
        unidentified=tuple(some),
    )
    path = tmp_path_factory.mktemp("laws") / "laws.yaml"
    write_laws([law], path)
    assert load_laws(path) == {law.name: law}


def test_fits_come_together_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "laws.yaml"
    assert write_laws([POWER], path) == ()
    assert write_laws([SURROGATE], path) == ("ours",)
    assert load_laws(path) == {"curves": SURROGATE, "ours": POWER}
    before = path.read_bytes()
    assert write_laws([SURROGATE], path) == ("ours",)
    assert path.read_bytes() == before


def test_edited_and_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "laws.yaml"
    write_laws([POWER], path)
    edited = path.read_text().replace("-0.5}", "-0.4}")
    for text in (edited, path.read_text() + "# mine\n", "notes\n", edited.partition("\n")[2]):
        path.write_text(text)
        with pytest.raises(OutputError, match="is not as planner fit wrote it; nothing was"):
            write_laws([SURROGATE], path)
        assert path.read_text() == text
    # by force the laws of a person stay
    assert write_laws([SURROGATE], path, force=True) == ("ours",)
    assert load_laws(path)["ours"].constants["exponent"] == -0.4
    path.write_text("notes\n")
    assert write_laws([SURROGATE], path, force=True) == ()


def test_a_folder_is_no_laws_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_laws([POWER], tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("    level: 2", "level: got 2, wanted a probability between 0 and 1"),
        ("    level: high", "level: got 'high', wanted a number"),
        ("    unidentified: exponent", "unidentified: got 'exponent', wanted a list of constants"),
        ("    unidentified: [slope]", "unidentified.0: got 'slope'; "),
        ("    unidentified: [1]", "unidentified.0: got 1; "),
        ("    intervals: {slope: [0, 1]}", "intervals.slope: is unknown; "),
        ("    intervals: {exponent: [1, 0]}", "wanted low first"),
        ("    intervals: {exponent: 3}", "wanted [low, high]"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "laws.yaml"
    text = (
        "schema: planner.laws/1\nlaws:\n  ours:\n    quantity: tau\n    form: power\n"
        "    input: tpp\n    constants: {coefficient: 1.1, exponent: -0.5}\n    source: here\n"
        "    confidence: fitted\n"
    )
    path.write_text(text + line + "\n")
    with pytest.raises(LawError) as caught:
        load_laws(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
