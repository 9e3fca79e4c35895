"""Whatever a name or number is, every file brings it back as exactly that."""

from __future__ import annotations

import math
import subprocess
from io import StringIO
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import MantissaNoDotYAML1_1Warning

from planner.render.errors import CannotExpressError
from planner.render.escape import to_comment, to_markdown, to_shell, to_yaml
from planner.render.paths import slug, slugs

NASTY = [
    "",
    "300M",
    "a: b # c",
    "yes",
    "null",
    "1e5",
    "0o17",
    "12:30:45",
    "- x",
    "%TAG !",
    'it\'s "quoted" \\ `here`',
    "line\nbreak\r\n\ttab",
    "$(touch /tmp/pwned); ${HOME} `id` !! & | > < * ? [a-z] ~ {x,y}",
    "-rf",
    "\u2028\u2029\x85\ufeff\x07\x1b[31m",
    "família ✓ 😀",
    "{{ 7 * 7 }} {% raw %}",
    "'''",
    "\\x41",
]
text = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


def load(source: str, version: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = version
    return yaml.load(StringIO(source))


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@given(name=text)
def test_text_comes_back_from_yaml(version: str, name: str) -> None:
    assert load(f"key: {to_yaml(name)}  # comment\n", version) == {"key": name}
    assert load(f"{{a: {to_yaml([name, name])}}}\n", version) == {"a": [name, name]}


@pytest.mark.parametrize("version", ["1.1", "1.2"])
@given(value=st.floats(allow_nan=False, allow_infinity=False))
@example(1e-05)
@example(1e22)
@example(5e-324)
@example(-0.0)
@example(0.1)
def test_floats_come_back_from_yaml(version: str, value: float) -> None:
    back = load(f"key: {to_yaml(value)}\n", version)["key"]
    assert type(back) is float
    assert back.hex() == value.hex()


def test_a_plain_repr_would_not_do() -> None:
    """The reason for `yaml_float`: by YAML 1.1 Python's own spelling is text."""
    with pytest.warns(MantissaNoDotYAML1_1Warning):
        load("key: 1e-05\n", "1.1")


@given(value=st.floats(allow_nan=False, allow_infinity=False), name=text)
@example(1e-05, "a")
def test_the_reader_that_modelzoo_uses(value: float, name: str) -> None:
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load("key: 1e-05\n") == {"key": "1e-05"}
    back = yaml.safe_load(f"number: {to_yaml(value)}\ntext: {to_yaml(name)}\n")
    assert back["number"].hex() == value.hex()
    assert back["text"] == name


@pytest.mark.parametrize("value", [None, True, False, 0, -3, 2**70, [], [1, "a", None, 0.5]])
def test_other_scalars_come_back(value: Any) -> None:
    for version in ("1.1", "1.2"):
        back = load(f"key: {to_yaml(value)}\n", version)["key"]
        assert back == value
        assert type(back) is type(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": 1}, object(), "\ud800"])
def test_what_has_no_yaml_form_is_refused(value: object) -> None:
    with pytest.raises(CannotExpressError):
        to_yaml(value)


@settings(max_examples=60, deadline=None)
@given(names=st.lists(text.filter(lambda t: "\0" not in t), min_size=1, max_size=8))
def test_text_comes_back_from_bash(names: list[str]) -> None:
    script = f"set -euo pipefail\nname={to_shell(names[0])}\nwords=({to_shell(names)})\n"
    script += 'printf "%s\\0" "$name" "${words[@]}"\n'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert done.stdout.decode().split("\0")[:-1] == [names[0], *names]


def test_a_shell_word_cannot_hold_nul() -> None:
    with pytest.raises(CannotExpressError, match="NUL"):
        to_shell("a\0b")


@given(name=text)
def test_comments_and_markdown_stay_on_their_line(name: str) -> None:
    for quoted in (to_comment(name), to_markdown(name)):
        assert quoted.isascii()
        assert len(quoted.splitlines()) <= 1


@given(names=st.lists(text, unique=True, max_size=6))
def test_folder_names_are_plain_and_differ(names: list[str]) -> None:
    found = [slug(name) for name in names]
    assert len(set(found)) == len(found)
    for folder in found:
        assert folder.isascii()
        assert 1 <= len(folder) <= 63
        assert folder[0].isalnum()
        assert folder[-1].isalnum()
        assert not set(folder) - set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
        )


def test_plain_names_are_their_own_folders() -> None:
    assert slug("300M-20tpp") == "300M-20tpp"
    assert slug("1.8B-20.5tpp") == "1.8B-20.5tpp"


@pytest.mark.parametrize("names", [["a", "a"], ["300M", "300m"]])
def test_names_that_would_share_a_folder_are_refused(names: list[str]) -> None:
    with pytest.raises(CannotExpressError, match="share one folder"):
        slugs(names, "runs")
