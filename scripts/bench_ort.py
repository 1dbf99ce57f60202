"""What a rewrite is worth on onnxruntime's CPU provider: original and rewritten, in turns.

    python scripts/bench_ort.py                               everything: about an hour
    python scripts/bench_ort.py --quick --only 'fsrcnn*'      a first look
    python scripts/bench_ort.py --policy fastest --threads 2 --json bench.json

Takes the models of ``models/`` and, where torch is installed, the same networks at real sizes,
exported on the fly (`zoo.large`). Both models run on the same inputs in one process, A B, B A,
and each ratio is taken over two runs side by side: above 1, the rewritten model is faster. It
comes with its quartiles and an interval that holds its median with 95 % confidence.

Peak memory is the high water of the resident set while a process of its own loads a model and
runs it, above where it stood once onnxruntime was imported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from bench.memory import Memory
from bench.speed import QUICK, THOROUGH, Effort, Speed, time_pair
from bench.subjects import Subject, all_subjects, exported

SCHEMA_VERSION = 1

Policy = Literal["all", "cost", "fastest"]


@dataclass(frozen=True)
class Row:
    """One model under one policy; ``error`` says why there are no figures."""

    model: str
    policy: Policy
    threads: int
    sites: tuple[dict[str, Any], ...] = ()
    speed: Speed | None = None
    memory: Memory | None = None
    error: str | None = None


def measure(subject: Subject, policy: Policy, threads: int, effort: Effort, folder: Path) -> Row:
    """Rewrite, prove and time one model; whatever goes wrong is in the row."""
    import deployconv

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
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return Row(subject.name, policy, threads, error=message)
    sites = tuple(asdict(site) for site in done.sites)
    return Row(subject.name, policy, threads, sites, speed, memory)


def summarise(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """For each policy and number of threads: the geometric mean, and the worst of all models."""
    for policy, threads in dict.fromkeys((row.policy, row.threads) for row in rows):
        timed = [
            (row.speed.ratio, row.model, row.memory.ratio if row.memory else 0.0)
            for row in rows
            if (row.policy, row.threads) == (policy, threads) and row.speed
        ]
        if timed:
            lowest, slowest, _ = min(timed)
            yield {
                **{"policy": policy, "threads": threads, "models": len(timed)},
                "geometric_mean": statistics.geometric_mean(ratio for ratio, _, _ in timed),
                **{"lowest": lowest, "slowest": slowest},
                "most_memory": max(memory for _, _, memory in timed),
            }


def document(rows: Sequence[Row], effort: Effort) -> dict[str, Any]:
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
        "rows": [asdict(row) for row in rows],
        "summary": list(summarise(rows)),
    }


_HEADER = (
    f"{'model':26}{'policy':9}{'threads':>7}{'original':>11}{'rewritten':>11}"
    f"{'ratio':>7}  {'95 %':13}{'quartiles':14}{'memory':>7}"
)


def line(row: Row) -> str:
    """One row of the table."""
    head = f"{row.model:26}{row.policy:9}{row.threads:7}"
    if row.speed is None or row.memory is None:
        return f"{head}  {row.error}"
    speed = row.speed
    lower, upper = speed.quartiles
    return (
        f"{head}{speed.before_ms:8.2f} ms{speed.after_ms:8.2f} ms{speed.ratio:7.2f}"
        f"  {speed.low:.2f} - {speed.high:.2f}  {lower:.2f} - {upper:.2f}{row.memory.ratio:9.2f}"
    )


def summary_line(found: Mapping[str, Any]) -> str:
    """One line below the table."""
    return (
        f"--policy {found['policy']}, {found['threads']} threads, {found['models']} models: "
        f"geometric mean {found['geometric_mean']:.2f}, lowest {found['lowest']:.2f}"
        f" ({found['slowest']}), peak memory at most {found['most_memory']:.2f} times"
    )


def run(options: argparse.Namespace, subjects: Sequence[Subject], effort: Effort) -> list[Row]:
    """Measure and print row by row."""
    rows: list[Row] = []
    print(_HEADER)
    with tempfile.TemporaryDirectory(prefix="bench-ort-") as folder:
        for subject in subjects:
            for policy in options.policy or get_args(Policy):
                for threads in options.threads or (2, 1):
                    rows.append(measure(subject, policy, threads, effort, Path(folder)))
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
    return parser.parse_args()


def main() -> int:
    options = _arguments()
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
    rows = run(options, subjects, effort)
    if options.json:
        options.json.write_text(json.dumps(document(rows, effort), indent=1), encoding="utf-8")
    return 1 if any(row.error for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
