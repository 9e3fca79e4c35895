"""From a JSON document to a picture file: the same document, the same bytes.

(With one version of matplotlib: versions differ.)
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import MissingExtraError, UnitError
from planner.plan.store import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
MOST_BANDS = 3  # columns of a family's picture
_NO_DATE: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "planner",  # ids of the file's parts, random without
    "svg.fonttype": "none",
    "figure.dpi": 120.0,
}


def check_picture(path: str) -> None:
    """Check that a picture can be drawn into a file of this name, before the work is done.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        UnitError: If the name does not end as a picture's.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise UnitError(f"got {path!r}, wanted a name that ends in {', '.join(FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(
            "pictures need matplotlib, which is not installed; "
            'install it with: pip install "collapse-planner[plots]"'
        )


def draw(kind: str, document: dict[str, Any], path: str) -> None:
    """Draw a document into a file.

    Args:
        kind: ``coordinates``, ``transfer`` or ``family``.
        document: What the verb of it (``coordinate-check``, ``transfer-check``, ``plot``) prints
            with ``--json``.
        path: The file; a whole picture or none.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        UnitError: If the name does not end as a picture's.
        OutputError: If it cannot be written.
    """
    check_picture(path)
    import matplotlib as mpl

    from planner.report.checks import coordinate_figure, transfer_figure
    from planner.report.family import family_figure

    drawers = {
        "coordinates": coordinate_figure,
        "transfer": transfer_figure,
        "family": family_figure,
    }
    with mpl.rc_context(_STYLE):
        figure: Figure = drawers[kind](document)
        suffix = Path(path).suffix.lower()
        data = io.BytesIO()
        figure.savefig(data, format=suffix[1:], metadata=_NO_DATE[suffix])
    write_bytes(path, data.getvalue())
