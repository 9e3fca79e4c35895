"""The table in docs/archive.md: what an archive holds of each folder of the shared data.

    python tools/shared_data_table.py DATA          print the table
    python tools/shared_data_table.py DATA --write  put it into docs/archive.md

Every number is read back from an archive that is made for it; nothing is typed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from planner.archive import Archive, ingest, list_runs, read_mapping

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "archive.md"
START, END = "<!-- made by tools/shared_data_table.py -->", "<!-- end -->"
MAPPINGS = ROOT / "examples" / "mappings"  # a file for each folder with private column names
# The loss that a folder's README tells the final value of, where it is not the training loss.
METRICS = {
    "olmo_ladder": "eval/c4_en-validation/loss",
    "overtrain_testbed": "eval/c4/loss",
    "wsd_cosine_llama": "final_val_loss",
    "nanogpt_speedrun": "eval/validation/loss",
    "algoperf_wmt": "eval/validation/loss",
}


def rows(data: Path) -> list[tuple[str, ...]]:
    """Return a row of text for each folder: runs, points, readers, losses, what is of note."""
    result = []
    with tempfile.TemporaryDirectory() as work:
        for folder in sorted(path for path in data.iterdir() if path.is_dir()):
            archive = Path(work) / folder.name
            rules = MAPPINGS / f"{folder.name}.yaml"
            mapping = read_mapping(rules) if rules.exists() else None
            report = ingest([folder], archive, mapping=mapping)
            runs = list_runs(Archive(archive))
            if not runs:
                continue
            result.append(
                (
                    f"`{folder.name}`",
                    str(len(runs)),
                    f"{sum(run['points'] for run in runs):,}",
                    _readers(runs),
                    _losses(runs, METRICS.get(folder.name)),
                    _of_note(runs) + (f"; {len(report.failed)} failed" if report.failed else ""),
                )
            )
    return result


def _readers(runs: list[dict[str, Any]]) -> str:
    found = Counter(name.partition("/")[0] for run in runs for name in run["readers"])
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


def _losses(runs: list[dict[str, Any]], metric: str | None) -> str:
    last = []
    for run in runs:
        wanted = metric or run["metric"]
        last += [s["last"] for s in run["series"] if s["name"] == wanted and s["last"] is not None]
    if not last:
        return ""
    return f"{min(last):.3f} to {max(last):.3f} ({metric or 'train/loss'})"


def _of_note(runs: list[dict[str, Any]]) -> str:
    counts = {
        "out of order": sum(run["policy"]["out_of_order"] for run in runs),
        "restarted": sum(bool(run["boundaries"]) for run in runs),
        "branched off another": sum(run["parent_run"] is not None for run in runs),
        "with values that are not finite": sum(
            any(s["nonfinite"] for s in run["series"]) for run in runs
        ),
        "diverged": sum(run["diverged_step"] is not None for run in runs),
        "with TPP": sum(run["tpp"] is not None for run in runs),
        "with tau": sum(run["tau"] is not None for run in runs),
    }
    return "; ".join(f"{count} {what}" for what, count in counts.items() if count)


def table(data: Path) -> str:
    """Return the table as Markdown."""
    header = ("folder", "runs", "points", "readers", "last losses", "of note")
    lines = [header, ("---",) * len(header), *rows(data)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    made = table(options.data)
    if not options.write:
        print(made)
        return
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{made}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
