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
import multiprocessing
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

MODELS = Path(__file__).resolve().parent.parent / "models"
SCHEMA_VERSION = 1

Policy = Literal["all", "fastest"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Subject:
    """A model to measure; ``path`` is None where it is yet to be exported."""

    name: str
    shapes: Shapes
    path: Path | None = None


@dataclass(frozen=True)
class Effort:
    """How long to measure; ``runs`` of each model, or what ``seconds`` allow."""

    seconds: float
    budget: float
    """Seconds for ``--policy fastest`` to choose."""
    runs: int | None = None


THOROUGH, QUICK = Effort(seconds=10.0, budget=60.0), Effort(seconds=1.0, budget=5.0)


@dataclass(frozen=True)
class Speed:
    """Medians in milliseconds, and original / rewritten with its spread."""

    runs: int
    before_ms: float
    after_ms: float
    ratio: float
    low: float
    high: float
    quartiles: tuple[float, float]


@dataclass(frozen=True)
class Memory:
    """Peak of the resident set in bytes, above that with everything imported."""

    before: int
    after: int

    @property
    def ratio(self) -> float:
        return self.after / max(self.before, 1)


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


def samples() -> list[Subject]:
    """The models of ``models/``, with the shapes that they were exported with."""
    manifest = json.loads((MODELS / "manifest.json").read_text(encoding="utf-8"))
    return [
        Subject(
            entry["name"],
            {given["name"]: tuple(given["example"]) for given in entry["inputs"]},
            MODELS / entry["file"],
        )
        for entry in manifest["models"]
    ]


def large() -> list[Subject]:
    """Those at real sizes, not yet exported."""
    from zoo.large import LARGE

    return [Subject(one.name, {given.name: given.shape for given in one.inputs}) for one in LARGE]


def export_large(name: str, path: Path) -> None:
    """Export the model called ``name`` to ``path``."""
    import onnx
    from zoo.export import export
    from zoo.large import LARGE

    onnx.save(export(next(sample for sample in LARGE if sample.name == name)), path)


def all_subjects() -> list[Subject]:
    """All there is to measure here."""
    if find_spec("torch") is None:
        print("torch is not installed: only the models of models/", file=sys.stderr)
        return samples()
    return [*samples(), *_apart(large)]


def measure(subject: Subject, policy: Policy, threads: int, effort: Effort, folder: Path) -> Row:
    """Rewrite, prove and time one model; whatever goes wrong is in the row."""
    import deployconv

    rewritten = folder / f"{subject.name}.{policy}.{threads}.onnx"
    try:
        original = _exported(subject, folder)
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
        peaks = [
            _apart(peak_memory, path, subject.shapes, threads) for path in (original, rewritten)
        ]
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        return Row(subject.name, policy, threads, error=message)
    sites = tuple(asdict(site) for site in done.sites)
    return Row(subject.name, policy, threads, sites, speed, Memory(*peaks))


def _exported(subject: Subject, folder: Path) -> Path:
    """The model's file, exported at the first call where it was not there."""
    if subject.path is not None:
        return subject.path
    path = folder / f"{subject.name}.onnx"
    if not path.exists():
        _apart(export_large, subject.name, path)
    return path


def time_pair(
    original: Path, rewritten: Path, shapes: Shapes, threads: int, effort: Effort
) -> Speed:
    """Run both in turns, see `deployconv.backends.timing`."""
    import numpy as np

    from deployconv.backends import get_backend
    from deployconv.backends.timing import time_interleaved
    from deployconv.options import FeedOptions
    from deployconv.planning.race import Timing
    from deployconv.proof.inputs import make_feeds

    backend = get_backend("ort")
    sessions = [backend.prepare(path, threads=threads) for path in (original, rewritten)]
    feeds = make_feeds(sessions[0].inputs, FeedOptions(shapes)).arrays
    before, after = time_interleaved(sessions, feeds, effort.runs, effort.seconds)
    timing = Timing.of(after, before)
    lower, upper = np.percentile(np.divide(before, after), [25, 75])
    return Speed(
        runs=len(before),
        before_ms=float(np.median(before)),
        after_ms=timing.median_ms,
        ratio=timing.ratio,
        low=timing.low,
        high=timing.high,
        quartiles=(float(lower), float(upper)),
    )


def peak_memory(path: Path, shapes: Shapes, threads: int) -> int:
    """Bytes that loading the model and running it three times takes; in a process of its own."""
    from deployconv.backends import get_backend
    from deployconv.options import FeedOptions
    from deployconv.proof.inputs import make_feeds

    backend = get_backend("ort")
    before = _high_water()
    session = backend.prepare(path, threads=threads)
    feeds = make_feeds(session.inputs, FeedOptions(shapes)).arrays
    for _ in range(3):
        session.timed_run(feeds)
    return _high_water() - before


def _high_water() -> int:
    """Of this process's resident set, in bytes.

    On Linux a new process starts with ``ru_maxrss`` of the one that started it; what
    ``/proc`` says is its own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function`` in a new interpreter: high water never falls, torch never leaves."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


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
