"""Run the layers of `matrix.further` with the toolchains of targets, and record what they do.

    python scripts/target_further.py mnn tract           every layer
    python scripts/target_further.py mnn --forms 'd3_*'  these; the rest of the record stays

The records are ``tests/targets/recorded/further``, one file a target.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from dataclasses import replace
from fnmatch import fnmatch

from matrix.further import FURTHER, FURTHER_RECORDS
from matrix.record import EXPORTED, Record, merged, read, write
from matrix.runs import runs

from deployconv.runtimes.toolchains.call import ToolchainProcess
from deployconv.runtimes.toolchains.catalogue import get_toolchain
from deployconv.runtimes.toolchains.environments import installed
from deployconv.runtimes.worker_process import Limits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--forms", nargs="+", default=["*"], help="patterns of names")
    chosen = parser.parse_args()
    forms = [name for name in FURTHER if any(fnmatch(name, glob) for glob in chosen.forms)]
    for target in chosen.targets:
        toolchain = get_toolchain(target)
        python = installed(toolchain)
        if python is None:
            print(f"{target}: not installed: deployconv target install {toolchain.name}")
            return 3
        with ToolchainProcess(toolchain, python, Limits(seconds=120)) as process:
            version = process.version()
        path = FURTHER_RECORDS / f"{target}.json"
        record = Record(target, version, datetime.date.today().isoformat(), ())
        if path.exists() and read(path).version == version:
            record = replace(record, runs=read(path).runs)
        for run in runs(toolchain, python, target, forms, (EXPORTED, "target")):
            print(f"{target} {run.form} {run.spelling}: {run.outcome} {run.words}", flush=True)
            record = replace(record, runs=merged(record, [run]))
            write(record, FURTHER_RECORDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
