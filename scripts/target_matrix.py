"""Run every form of upsampling layer with the toolchains of targets, and record what they do.

    python scripts/target_matrix.py                    every toolchain that is installed
    python scripts/target_matrix.py ncnn iree          these targets
    python scripts/target_matrix.py ncnn --forms 'd3_*' --spellings exported target
                                                       only these; the rest of the record stays
    python scripts/target_matrix.py ncnn --resizes     the Resizes instead of the forms
    python scripts/target_matrix.py --tables           write docs/targets-matrix.md from the records

It needs the toolchain of a target: ``deployconv target install NAME``. onnxruntime-web and
TensorRT have scripts of their own: ``web_matrix.py``, ``tensorrt_matrix.py``. The records are
files in ``tests/targets/recorded``, one for each target; those of the Resizes are in ``resizes``.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from matrix.arguments import (
    add_layers,
    chosen_layers,
    installed_toolchain,
    new_parser,
    status_of,
)
from matrix.record import EXPORTED, RESIZE_RECORDS, Record, records
from matrix.runs import ALL, RESIZE_SPELLINGS, SPELLINGS, record_runs, runs
from matrix.tables import PAGE, page

from deployconv.errors import BackendUnavailable
from deployconv.runtimes.toolchains.call import Refusal, ToolchainProcess
from deployconv.runtimes.toolchains.catalogue import TOOLCHAINS, Toolchain
from deployconv.runtimes.worker_process import Limits


def record(
    toolchain: Toolchain,
    python: Path,
    target: str,
    forms: list[str],
    spellings: list[str],
    folder: Path,
) -> None:
    """Run ``forms`` and write the record; other runs of the same version are kept."""
    with ToolchainProcess(toolchain, python, Limits(seconds=120)) as process:
        version = process.version()
    today = datetime.date.today().isoformat()
    empty = Record(target, version, today, (), tuple(_packages(python)))
    record_runs(empty, runs(toolchain, python, target, forms, spellings), folder)


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
    parser = new_parser(__doc__)
    parser.add_argument("targets", nargs="*", help="default: all whose toolchain is installed")
    add_layers(parser)
    parser.add_argument(
        "--spellings", nargs="+", choices=ALL, metavar="SPELLING", help=", ".join(ALL)
    )
    parser.add_argument("--tables", action="store_true", help="write the tables; run nothing")
    chosen = parser.parse_args()
    if chosen.tables:
        PAGE.write_text(page(records(), records(RESIZE_RECORDS)), encoding="utf-8")
        return 0
    names, folder = chosen_layers(chosen)
    others = RESIZE_SPELLINGS if chosen.resizes else ("default", *SPELLINGS)
    spellings = chosen.spellings or [EXPORTED, "target", *others]
    everything = [name for row in TOOLCHAINS.values() for name in row.targets]
    for target in chosen.targets or everything:
        try:
            record(*installed_toolchain(target), target, names, spellings, folder)
        except BackendUnavailable as missing:
            if chosen.targets:
                raise
            print(missing)
        except Refusal as refusal:
            raise BackendUnavailable(f"{target}: {refusal}") from refusal
    return 0


if __name__ == "__main__":
    sys.exit(status_of(main))
