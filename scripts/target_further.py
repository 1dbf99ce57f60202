"""Run the layers of `matrix.further` with the toolchains of targets, and record what they do.

    python scripts/target_further.py mnn tract           every layer
    python scripts/target_further.py mnn --forms 'd3_*'  these; the rest of the record stays

It needs the toolchain of each target: ``deployconv target install NAME``. The records are
``tests/targets/recorded/further``, one file a target.
"""

from __future__ import annotations

import datetime
import sys

from matrix.arguments import add_forms, chosen_names, installed_toolchain, new_parser, status_of
from matrix.further import FURTHER, FURTHER_RECORDS
from matrix.record import EXPORTED, Record
from matrix.runs import record_runs, runs

from deployconv.errors import BackendUnavailable
from deployconv.runtimes.toolchains.call import Refusal, ToolchainProcess
from deployconv.runtimes.worker_process import Limits


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("targets", nargs="+")
    add_forms(parser)
    chosen = parser.parse_args()
    forms = chosen_names(chosen.forms, FURTHER)
    for target in chosen.targets:
        toolchain, python = installed_toolchain(target)
        try:
            with ToolchainProcess(toolchain, python, Limits(seconds=120)) as process:
                version = process.version()
        except Refusal as refusal:
            raise BackendUnavailable(f"{target}: {refusal}") from refusal
        record = Record(target, version, datetime.date.today().isoformat(), ())
        made = runs(toolchain, python, target, forms, (EXPORTED, "target"))
        record_runs(record, made, FURTHER_RECORDS)
    return 0


if __name__ == "__main__":
    sys.exit(status_of(main))
