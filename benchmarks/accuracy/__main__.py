"""Measure how well the analytics do on real runs, and write docs/accuracy.md.

Every number of that page comes from here: nothing is typed by hand. A part is a module of this
folder with ``evaluate(data, work) -> Section``: it reads the real logs under ``data`` and may write
below ``work``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# in the order in which they stand in the page
PARTS = ("ladder", "schedule_law", "sweep", "detection", "surrogate", "scale")

sys.path.insert(0, str(HERE.parent))

from accuracy.section import Section, Table  # noqa: E402

INTRO = """# Accuracy

How well the analytics do on real training runs. `make evaluate` measures all of it again from the
logs and writes this page; no number is typed by hand.
"""


def main() -> int:
    """Run the parts asked for; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all if none")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("-o", "--output", type=Path, help="write the page here; else print it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    wrong = sorted({*given.parts} - {*PARTS})
    if wrong:
        parser.error(f"no part is called {wrong[0]!r}; there are {', '.join(PARTS)}")
    if not given.data.is_dir():
        parser.error(f"{given.data}: no such folder; --data names the folder of the runs")
    names = [name for name in PARTS if not given.parts or name in given.parts]
    sections: dict[str, Section] = {}
    for name in names:
        start = time.perf_counter()
        module = importlib.import_module(f"accuracy.{name}")
        with tempfile.TemporaryDirectory() as work:
            sections[name] = module.evaluate(given.data, Path(work))
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    page = INTRO + "".join(_section(section) for section in sections.values())
    if given.output:
        given.output.write_text(page)
    else:
        sys.stdout.write(page)
    if given.json:
        figures = {name: section.figures for name, section in sections.items()}
        given.json.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    missed = [t for section in sections.values() for t in section.targets if not t.met]
    for target in missed:
        print(f"missed: {target.name}: {target.got}, wanted {target.wanted}", file=sys.stderr)
    return 1 if missed else 0


def _section(section: Section) -> str:
    text = f"\n## {section.title}\n\n{section.text.strip()}\n"
    for table in section.tables:
        text += "\n" + (f"{table.caption}\n\n" if table.caption else "") + _table(table)
    if section.targets:
        rows = [(t.name, t.wanted, t.got, "yes" if t.met else "**no**") for t in section.targets]
        text += "\n" + _table(Table(("target", "wanted", "measured", "met"), rows))
    return text


def _table(table: Table) -> str:
    lines = [table.header, tuple("---" for _ in table.header), *table.rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
