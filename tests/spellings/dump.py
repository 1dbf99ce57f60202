"""Write the committed graphs and print them.

python -m tests.spellings.dump --all OUTDIR         every graph, and OUTDIR/graphs.txt
python -m tests.spellings.dump NAME... OUTDIR       those whose id fits a name or glob
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tests.spellings.corpus import Row, gaps, rows
from tests.spellings.listing import listing


def text(row: Row) -> Iterator[str]:
    """The lines about one graph, its expectation first."""
    yield f"=== {row.id}  {row.family}  stride {row.stride}  expect {row.expect}"
    yield from listing(row.model())
    yield ""


def dump(chosen: Iterable[Row], folder: Path) -> str:
    """Copy the graphs of ``chosen`` into ``folder`` and list them in its ``graphs.txt``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for row in chosen:
        (folder / row.file).write_bytes(row.data())
        lines += text(row)
    lines += [f"--- {gap.id}: {gap.reason}" for gap in gaps()]
    document = "\n".join(lines) + "\n"
    (folder / "graphs.txt").write_text(document, encoding="utf-8")
    return document


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="spelling, id of a graph, or glob")
    parser.add_argument("outdir", type=Path, metavar="OUTDIR")
    parser.add_argument("--all", action="store_true", help="every graph, printed to the file only")
    arguments = parser.parse_args()
    chosen = [
        row
        for row in rows()
        if arguments.all
        or any(name == row.name or fnmatchcase(row.id, name) for name in arguments.names)
    ]
    if not chosen:
        print(
            "dump: no graph has such a name; give --all or a spelling's, such as assign",
            file=sys.stderr,
        )
        return 2
    document = dump(chosen, arguments.outdir)
    if not arguments.all:
        print(document, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
