"""Run every form of upsampling layer with the toolchains of targets, and record what they do.

    python scripts/target_matrix.py                    every toolchain that is installed
    python scripts/target_matrix.py ncnn iree          these targets
    python scripts/target_matrix.py ncnn --forms 'd3_*' --spellings exported target
                                                       only these; the rest of the record stays
    python scripts/target_matrix.py ncnn --resizes     the Resizes instead of the forms
    python scripts/target_matrix.py --tables           write docs/targets-matrix.md from the records

``deployconv target install NAME`` installs a toolchain. The records are ``tests/targets/recorded``,
one file a target; those of the Resizes are in a folder of their own in there.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from matrix.forms import FORMS
from matrix.further import EVERY
from matrix.record import (
    EXPORTED,
    RECORDS,
    RESIZE_RECORDS,
    Record,
    Run,
    merged,
    read,
    records,
    write,
)
from matrix.resizes import RESIZES
from matrix.runs import RESIZE_SPELLINGS, SPELLINGS, runs
from matrix.tables import PAGE, page

from deployconv.runtimes.toolchains.call import Refusal, ToolchainProcess
from deployconv.runtimes.toolchains.catalogue import TOOLCHAINS, Toolchain, get_toolchain
from deployconv.runtimes.toolchains.environments import installed
from deployconv.runtimes.worker_process import Limits

ALL = (EXPORTED, "default", "target", *SPELLINGS, *RESIZE_SPELLINGS)


def record(
    toolchain: Toolchain,
    python: Path,
    target: str,
    forms: list[str],
    spellings: list[str],
    folder: Path,
) -> Record:
    """Run ``forms`` and write the record; other runs of the same version are kept."""
    with ToolchainProcess(toolchain, python, Limits(seconds=120)) as process:
        version = process.version()
    today = datetime.date.today().isoformat()
    empty = Record(target, version, today, (), tuple(_packages(python)))
    path = folder / f"{target}.json"
    old = read(path) if path.exists() else empty
    if old.version != version:
        old = empty
    new = replace(empty, runs=old.runs)
    for run in runs(toolchain, python, target, forms, spellings):
        print(f"{target} {run.form} {run.spelling}: {run.outcome} {run.words}", flush=True)
        new = replace(new, runs=_ordered(merged(new, [run])))
        write(new, folder)  # after each run: a toolchain may take an hour
    return new


def _ordered(found: tuple[Run, ...]) -> tuple[Run, ...]:
    forms, spellings = list(EVERY), list(ALL)
    return tuple(
        sorted(found, key=lambda run: (forms.index(run.form), spellings.index(run.spelling)))
    )


def _packages(python: Path) -> Iterator[str]:
    """What is installed beside `python`, with versions."""
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=True,
    )
    yield from (line for line in listed.stdout.split() if not line.startswith(("pip=", "setup")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", help="default: all whose toolchain is installed")
    parser.add_argument("--forms", nargs="+", default=["*"], help="patterns of names")
    parser.add_argument("--spellings", nargs="+", choices=ALL)
    parser.add_argument("--resizes", action="store_true", help="run the Resizes")
    parser.add_argument("--tables", action="store_true", help="write the tables; run nothing")
    chosen = parser.parse_args()
    if chosen.tables:
        PAGE.write_text(page(records(), records(RESIZE_RECORDS)), encoding="utf-8")
        return 0
    layers, folder = (RESIZES, RESIZE_RECORDS) if chosen.resizes else (FORMS, RECORDS)
    others = RESIZE_SPELLINGS if chosen.resizes else ("default", *SPELLINGS)
    spellings = chosen.spellings or [EXPORTED, "target", *others]
    forms = [name for name in layers if any(fnmatch(name, glob) for glob in chosen.forms)]
    everything = [name for row in TOOLCHAINS.values() for name in row.targets]
    for target in chosen.targets or everything:
        toolchain = get_toolchain(target)
        python = installed(toolchain)
        if python is None:
            print(f"{target}: not installed: deployconv target install {toolchain.name}")
            continue
        try:
            new = record(toolchain, python, target, forms, spellings, folder)
        except Refusal as refusal:
            print(f"{target}: {refusal}", file=sys.stderr)
            return 3
        for spelling in spellings:
            counted = Counter(run.outcome for run in new.runs if run.spelling == spelling)
            print(f"{target} {spelling}: {dict(counted)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
