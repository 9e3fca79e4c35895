"""Jinja templates: where they are found, what they may print, and what their errors say.

A template is found by name (``modelzoo/params.yaml.j2``), in the user's folder first and then among
those that came with the package. Templates run in Jinja's sandbox with undefined names as errors.
Output is checked: only integers and text that went through ``| yaml``, ``| sh``, ``| comment``,
``| md`` or ``| raw`` may be printed, so that no name from a plan can become syntax.
"""

from __future__ import annotations

import traceback
from dataclasses import is_dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.render.errors import TemplateError
from planner.render.escape import (
    Quoted,
    raw,
    to_comment,
    to_kubernetes,
    to_markdown,
    to_shell,
    to_yaml,
    to_yaml_block,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import jinja2


def template_folder() -> Path:
    """Return the folder of the templates that came with the package.

    Raises:
        TemplateError: If the installation lacks them.
    """
    package = Path(str(files("planner")))
    # In a wheel they are planner/templates; in the source tree, templates/ beside planner/.
    for folder in (package / "templates", package.parent / "templates"):
        if (folder / "modelzoo").is_dir():
            return folder
    raise TemplateError(f"the installation has no templates: {package / 'templates'} is missing")


class Engine:
    """Compiled templates of one search path; each is compiled once, however many runs use it.

    Args:
        folder: A user's folder, whose templates override the shipped ones by name.

    Raises:
        TemplateError: If the folder does not exist.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise TemplateError(f"there is no template folder {str(folder)!r}", field="templates")
        self._env = _environment(folder)

    def render(self, name: str, values: Mapping[str, Any]) -> str:
        """Return template ``name`` filled in.

        Raises:
            TemplateError: With the template and line, if it is missing, cannot be parsed, uses an
                undefined name, prints unquoted text or fails otherwise.
        """
        import jinja2

        try:
            template = self._env.get_template(name)
        except jinja2.TemplateNotFound as error:
            raise TemplateError(f"there is no template {error.name!r}") from None
        except UnicodeDecodeError:
            raise TemplateError("the template is not UTF-8 text", file=name) from None
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"cannot read the template: {error.message}",
                file=error.filename or error.name or name,
                line=error.lineno,
            ) from None
        try:
            return template.render(values)
        except Exception as error:
            file, line = _where(error, template)
            message = f"cannot fill in the template: {_first_line(error)}"
            if isinstance(error, jinja2.TemplateNotFound):
                message = f"there is no template {error.name!r}"
            raise TemplateError(message, file=file, line=line) from error


@lru_cache(maxsize=8)
def _environment(folder: Path | None) -> jinja2.Environment:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    class Sandbox(SandboxedEnvironment):
        """Jinja's sandbox, without its slow look at every attribute of our own plain records."""

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            kind: Any = type(obj)
            if _is_record(kind):
                return not attr.startswith("_")
            return super().is_safe_attribute(obj, attr, value)

    search = [str(template_folder())]
    if folder is not None:
        search.insert(0, str(folder))
    env = Sandbox(
        loader=jinja2.FileSystemLoader(search),
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=True,
    )
    quoting: dict[str, Callable[..., str]] = {
        "yaml": to_yaml,
        "sh": to_shell,
        "comment": to_comment,
        "md": to_markdown,
        "raw": raw,
        "yamlblock": to_yaml_block,
        "kubernetes": to_kubernetes,
    }
    env.filters.update({name: _defined(function) for name, function in quoting.items()})
    return env


@lru_cache(maxsize=256)
def _is_record(kind: type) -> bool:
    """Whether a type is a frozen dataclass of this package, which no template can change."""
    return (
        kind.__module__.startswith("planner.")
        and is_dataclass(kind)
        and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    )


def _defined(function: Callable[..., str]) -> Callable[..., str]:
    """Make a filter name what is undefined rather than quote it."""
    import jinja2

    def filter_(value: object, *arguments: object) -> str:
        if isinstance(value, jinja2.Undefined):
            str(value)  # A strict undefined value raises an error that names it.
        return function(value, *arguments)

    return filter_


def _printable(value: object) -> object:
    """Refuse to print what no filter has quoted (Jinja's ``finalize``)."""
    if isinstance(value, Quoted) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    import jinja2

    if isinstance(value, jinja2.Undefined):
        return value  # Printing it raises, and that error names what is undefined.
    raise jinja2.TemplateRuntimeError(
        f"the {type(value).__name__} {value!r:.60} is printed without one of the filters "
        "yaml, sh, comment and md"
    )


def _where(error: BaseException, template: jinja2.Template) -> tuple[str, int | None]:
    """Return the file and line of the innermost template frame of a traceback.

    Jinja rewrites tracebacks of compiled templates so that they hold template files and lines.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith(".j2"):
            return frame.filename, frame.lineno
    return template.filename or template.name or "<template>", None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
