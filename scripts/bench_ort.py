"""What a rewrite is worth on onnxruntime's CPU provider: original and rewritten, in turns.

    python scripts/bench_ort.py                               everything: about an hour
    python scripts/bench_ort.py --quick --only 'fsrcnn*'      a first look
    python scripts/bench_ort.py --policy fastest --threads 2 --json bench.json
    python scripts/bench_ort.py --table bench.json ...        what was measured, in Markdown

Takes the models of ``models/`` and, where torch is installed, the same networks at real sizes,
exported on the fly (`zoo.large`). Both models run on the same inputs in one process, A B, B A,
and each ratio is taken over two runs side by side: above 1, the rewritten model is faster. It
comes with its quartiles and an interval that holds its median with 95 % confidence.

Peak memory is the high water of the resident set while a process of its own loads a model and
runs it, above where it stood once onnxruntime was imported.

The floor is what no form of the model can beat here, see `bench.floor`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

from bench.floor import Rates, floor_of, measure_rates
from bench.memory import Memory
from bench.speed import QUICK, THOROUGH, Effort, time_pair
from bench.subjects import Subject, all_subjects, exported
from bench.table import HEADER, Policy, Row, line, markdown, summarise, summary_line

SCHEMA_VERSION = 1


def measure(subject: Subject, policy: Policy, rates: Rates, effort: Effort, folder: Path) -> Row:
    """Rewrite, prove and time one model; whatever goes wrong is in the row."""
    import deployconv

    threads = rates.threads
    rewritten = folder / f"{subject.name}.{policy}.{threads}.onnx"
    try:
        original = exported(subject, folder)
        done = deployconv.rewrite(
            original,
            output=rewritten,
            policy=policy,
            shape=subject.shapes,
            threads=threads,
            budget=effort.budget,
            bench=False,
            cache=False,
            force=True,
        )
        speed = time_pair(original, rewritten, subject.shapes, threads, effort)
        memory = Memory.of(original, rewritten, subject.shapes, threads)
        floor = floor_of(original, rewritten, subject.shapes, rates)
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return Row(subject.name, policy, threads, error=message)
    sites = tuple(asdict(site) for site in done.sites)
    return Row(subject.name, policy, threads, sites, speed, memory, floor)


def document(rows: Sequence[Row], effort: Effort, rates: Sequence[Rates]) -> dict[str, Any]:
    """Everything that was found, with what it was found on."""
    from deployconv import __version__
    from deployconv.backends import get_backend
    from deployconv.backends.machine import describe_machine

    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "deployconv", "version": __version__},
        "machine": describe_machine(),
        "runtime": get_backend("ort").runtime,
        "effort": asdict(effort),
        "rates": [asdict(rate) for rate in rates],
        "rows": [asdict(row) for row in rows],
        "summary": list(summarise(rows)),
    }


def run(
    policies: Sequence[Policy], subjects: Sequence[Subject], effort: Effort, rates: Sequence[Rates]
) -> list[Row]:
    """Measure and print row by row."""
    rows: list[Row] = []
    print(HEADER)
    with tempfile.TemporaryDirectory(prefix="bench-ort-") as folder:
        for subject in subjects:
            for policy in policies:
                for rate in rates:
                    rows.append(measure(subject, policy, rate, effort, Path(folder)))
                    print(line(rows[-1]), flush=True)
    print("", *map(summary_line, summarise(rows)), sep="\n")
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="GLOB", help="models by name")
    parser.add_argument("--policy", action="append", choices=get_args(Policy), help="default: all")
    parser.add_argument("--threads", action="append", type=int, help="default: 2, then 1")
    parser.add_argument("--runs", type=int, help="of each model (default: 10 seconds of them)")
    parser.add_argument("--budget", type=float, help="seconds for fastest to choose (default: 60)")
    parser.add_argument("--quick", action="store_true", help="measure for a tenth of the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument(
        "--table",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: the tables of these JSON files as one, in Markdown",
    )
    return parser.parse_args()


def main() -> int:
    options = _arguments()
    if options.table:
        found = [json.loads(path.read_text(encoding="utf-8")) for path in options.table]
        print(*markdown(found), sep="\n")
        return 0
    base = QUICK if options.quick else THOROUGH
    effort = Effort(base.seconds, options.budget or base.budget, options.runs)
    globs = options.only or ["*"]
    subjects = [
        subject
        for subject in all_subjects()
        if any(fnmatchcase(subject.name, glob) for glob in globs)
    ]
    if not subjects:
        print(f"no model is called {' or '.join(globs)}", file=sys.stderr)
        return 2
    rates = [measure_rates(threads) for threads in options.threads or (2, 1)]
    rows = run(options.policy or get_args(Policy), subjects, effort, rates)
    if options.json:
        text = json.dumps(document(rows, effort, rates), indent=1)
        options.json.write_text(text, encoding="utf-8")
    return 1 if any(row.error for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
