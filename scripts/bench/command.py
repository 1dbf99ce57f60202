"""The command line that the benchmarks share."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from bench.rows import Policy, R, Table, document
from bench.speed import QUICK, THOROUGH, Effort
from bench.subjects import Subject

if TYPE_CHECKING:
    from deployconv.options import Shuffle
    from deployconv.results import Rewriting

Measure = Callable[[Subject, Policy, int, Effort, Path], R]
"""Measures one model under a policy with a number of threads; files go into the folder."""

Groups = Mapping[str, Callable[[], Sequence[Subject]]]
"""The groups of models that a benchmark can measure; the first one by default."""


@dataclass(frozen=True)
class Benchmark(Generic[R]):
    """What is measured, and how it is shown."""

    description: str | None
    subjects: Groups
    policies: tuple[Policy, ...]
    table: Table[R]
    prepare: Callable[[Sequence[int]], tuple[Measure[R], Mapping[str, Any]]]
    """From numbers of threads to a `Measure`, and to the conditions that the JSON records."""
    backends: tuple[str, ...] = ("ort",)
    """The runtimes that it can measure; the first one by default."""


def main(benchmark: Benchmark[R]) -> int:
    """Measure what the command line asks for, print row by row, and return the exit status."""
    options, table = _arguments(benchmark), benchmark.table
    if options.table:
        found = [json.loads(path.read_text(encoding="utf-8")) for path in options.table]
        print(*table.markdown(found), sep="\n")
        return 0
    base = QUICK if options.quick else THOROUGH
    budget = options.budget or base.budget
    effort = Effort(base.seconds, budget, options.runs, options.backend, options.max_memory)
    globs = options.only or ["*"]
    subjects = [
        subject
        for subject in benchmark.subjects[options.models]()
        if any(fnmatchcase(subject.name, glob) for glob in globs)
    ]
    if not subjects:
        print(f"no model is called {' or '.join(globs)}", file=sys.stderr)
        return 2
    threads = options.threads or (2, 1)
    measure, conditions = benchmark.prepare(threads)
    rows: list[R] = []
    print(table.header)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for subject in subjects:
            for policy in options.policy or benchmark.policies:
                for number in threads:
                    rows.append(measure(subject, policy, number, effort, Path(folder)))
                    print(table.line(rows[-1]), flush=True)
    summary = list(table.summarise(rows))
    print("", *map(table.summary_line, summary), sep="\n")
    if options.json:
        text = json.dumps(document(rows, effort, conditions, summary), indent=1)
        options.json.write_text(text, encoding="utf-8")
    return 1 if any(row.error for row in rows) else 0


def _arguments(benchmark: Benchmark[R]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(benchmark.description or "").partition("\n")[0])
    groups = tuple(benchmark.subjects)
    parser.add_argument("--models", choices=groups, default=groups[0], help="group of models")
    parser.add_argument("--only", action="append", metavar="GLOB", help="models by name")
    policies = benchmark.policies
    parser.add_argument("--policy", action="append", choices=policies, help="default: each")
    parser.add_argument("--threads", action="append", type=int, help="default: 2, then 1")
    parser.add_argument(
        "--backend", choices=benchmark.backends, default=benchmark.backends[0], help="runtime"
    )
    parser.add_argument("--runs", type=int, help="of each model (default: 10 seconds of them)")
    parser.add_argument("--budget", type=float, help="seconds for fastest to choose (default: 60)")
    parser.add_argument(
        "--max-memory", type=float, default=1.1, help="as deployconv rewrite (default: 1.1)"
    )
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


def rewrite(
    model: Path,
    output: Path,
    subject: Subject,
    policy: Policy,
    threads: int,
    effort: Effort,
    shuffle: Shuffle = "auto",
) -> Rewriting:
    """Rewrite and verify ``model`` for the sizes of ``subject``."""
    import deployconv

    return deployconv.rewrite(
        model,
        output=output,
        policy=policy,
        shuffle=shuffle,
        shape=subject.shapes,
        threads=threads,
        budget=effort.budget,
        max_memory=effort.max_memory,
        backend=effort.backend,
        bench=False,
        cache=False,
        force=True,
    )
