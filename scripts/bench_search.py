"""Measure how often noise is taken for a difference, and ``fastest`` beside ``cost``.

    python scripts/bench_search.py                        everything: about an hour
    python scripts/bench_search.py --quick                about ten minutes on two CPUs
    python scripts/bench_search.py --part noise           only how often noise is a difference
    python scripts/bench_search.py --before CHECKOUT      beside an earlier version of deployconv
    python scripts/bench_search.py --table search.json    earlier results, in Markdown

- **noise**: models are timed with themselves, with nothing else running and with a neighbour that
  keeps one processor busy. Of 100 such timings, at most 5 may claim a difference.
- **models**: the networks at real sizes (`zoo.large`) and a quantized one are rewritten under
  ``cost`` and under ``fastest``, each in a process of its own. Then the original and all results
  are timed in turns, in blocks (`deployconv.runtimes.blocks`). Each ratio has its 95 % confidence
  interval. ``fastest`` must not be slower than ``cost`` beyond the interval, and must not take
  longer than ``cost`` by more than 1.5 times its budget and one run of the model.

Needs torch for the models that are exported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnx
from bench.process import in_own_process
from bench.search import Call, Noise, Row, compare, measure_noise
from bench.subjects import MODELS, Subject, exported, large, samples
from zoo.quantize import quantize, random_batches

from deployconv import __version__
from deployconv.runtimes import get_backend
from deployconv.runtimes.machine import busy_machine, describe_machine

SCHEMA_VERSION = 1
_NOISY = ("vae_block", "text_detector_head", "unet_decoder")
"""The models that are timed with themselves."""
_QUANTIZED = "vae_decoder_512"
"""The model that is quantized for one more row."""
_BUDGET, _BUDGET_BEFORE = 10.0, 60.0


def main() -> int:
    options = _arguments()
    if options.table:
        found = [json.loads(path.read_text(encoding="utf-8")) for path in options.table]
        for one in found:
            print(*markdown(one), sep="\n")
        return 0
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "deployconv", "version": __version__},
        "machine": describe_machine(),
        "runtime": get_backend("ort").runtime,
        "threads": options.threads,
        "budget": options.budget,
        "note": busy_machine(),
        "noise": [],
        "rows": [],
    }
    if document["note"]:
        print(f"{document['note']}: the ratios will be uncertain", file=sys.stderr)
    if options.part in (None, "noise"):
        for busy in (False, True):
            document["noise"].append(asdict(_noise(options, busy)))
            print(_noise_line(document["noise"][-1]), flush=True)
    if options.part in (None, "models"):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            for row in _rows(options, Path(folder)):
                document["rows"].append(asdict(row))
                print(_line(document["rows"][-1]), flush=True)
    document["summary"] = summary(document["rows"])
    print("", *markdown(document), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 1 if any(row["error"] for row in document["rows"]) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=("noise", "models"), help="default: both")
    parser.add_argument("--only", action="append", metavar="GLOB", help="models by name")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--budget", type=float, default=_BUDGET, help="of fastest (default: 10)")
    parser.add_argument("--timings", type=int, help="of models with themselves (default: 100)")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier version")
    parser.add_argument(
        "--before-budget",
        type=float,
        default=_BUDGET_BEFORE,
        help="its budget of fastest (default: 60)",
    )
    parser.add_argument("--quick", action="store_true", help="fewer timings, and shorter ones")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument(
        "--table",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: the tables of these JSON files, in Markdown",
    )
    return parser.parse_args()


def _noise(options: argparse.Namespace, busy: bool) -> Noise:
    """Time small models with themselves."""
    models = [
        (MODELS / subject.path.name, subject.shapes)
        for subject in samples()
        if subject.name in _NOISY and subject.path is not None
    ]
    timings = options.timings or (50 if options.quick else 100)
    budget = 2.0 if options.quick else 10.0
    return measure_noise(models, busy, timings, budget, options.threads)


def _rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Compare the policies on each model."""
    calls = [
        Call("cost", ("--policy", "cost")),
        Call(
            *("fastest", ("--policy", "fastest", "--budget", f"{options.budget}", "--no-cache")),
            budget=options.budget,
        ),
    ]
    if options.before is not None:
        asked = ("--policy", "fastest", "--budget", f"{options.before_budget}", "--no-cache")
        calls.append(Call("before", asked, options.before_budget, options.before.resolve()))
    subjects: list[Subject] = in_own_process(large)
    for subject in subjects:
        for name, path in _variants(subject, options.only or ["*"], folder):
            seconds = 6.0 if options.quick else 20.0
            yield compare(name, path, subject.shapes, options.threads, calls, seconds, folder)


def _variants(subject: Subject, globs: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """The model, and the quantized one if it is to have a row; those whose names are asked for."""
    if any(fnmatchcase(subject.name, glob) for glob in globs):
        yield subject.name, exported(subject, folder)
    name = f"{subject.name}_int8"
    if subject.name == _QUANTIZED and any(fnmatchcase(name, glob) for glob in globs):
        path = folder / f"{name}.onnx"
        batches = random_batches(subject.shapes, seed=34, count=1)
        onnx.save(quantize(onnx.load(exported(subject, folder)), batches), path)
        yield name, path


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The geometric means, and in how many models ``fastest`` is slower beyond the interval."""
    timed = [row for row in rows if not row["error"]]
    if not timed:
        return {}
    names = list(timed[0]["outcomes"])
    means = {
        name: statistics.geometric_mean(row["outcomes"][name]["ratio"]["ratio"] for row in timed)
        for name in names
    }
    seconds = {
        name: statistics.fmean(row["outcomes"][name]["seconds"] for row in timed) for name in names
    }
    slower = {
        name: [row["model"] for row in timed if row["outcomes"][name]["against"]["high"] < 1]
        for name in names
        if name != "fastest"
    }
    return {
        "models": len(timed),
        "geometric_mean": means,
        "mean_seconds": seconds,
        "fastest_is_slower_than": slower,
        "beyond_budget": [row["model"] for row in timed if row["overshoot"] > 0],
    }


def _noise_line(found: Mapping[str, Any]) -> str:
    where = "with a busy neighbour" if found["busy"] else "nothing else running"
    return (
        f"{where}: {found['claims']} of {found['timings']} timings of a model with itself claim a"
        f" difference (a fixed limit of 2 %: {found['fixed']}); ratios {found['lowest']:.2f} to"
        f" {found['highest']:.2f}, intervals {found['width']:.3f} wide,"
        f" {found['seconds']:.1f} s each"
    )


def _shown(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['ratio']:.2f} ({found['low']:.2f} to {min(found['high'], 99.0):.2f})"


def _line(row: Mapping[str, Any]) -> str:
    if row["error"]:
        return f"{row['model']:26}{row['error']}"
    calls = (
        f"{name} {_shown(one['ratio'])} in {one['seconds']:.1f} s"
        for name, one in row["outcomes"].items()
    )
    return f"{row['model']:26}{row['original_ms']:9.2f} ms  {', '.join(calls)}"


def markdown(document: Mapping[str, Any]) -> Iterator[str]:
    """The tables of one JSON document."""
    if document["noise"]:
        yield "| | timings | claims | claims of a fixed 2 % | ratios | width | seconds |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in document["noise"]:
        where = "with a busy neighbour" if one["busy"] else "nothing else running"
        ratios = f"{one['lowest']:.2f} to {one['highest']:.2f}"
        cells = [where, one["timings"], one["claims"], one["fixed"], ratios]
        cells += [f"{one['width']:.3f}", f"{one['seconds']:.1f}"]
        yield f"| {' | '.join(map(str, cells))} |"
    timed = [row for row in document["rows"] if not row["error"]]
    if not timed:
        return
    names = list(timed[0]["outcomes"])
    heads = ["model", "original, ms"]
    for name in names:
        heads += [f"`{name}`, s", f"`{name}`"]
    heads += [f"`fastest` / `{name}`" for name in names if name != "fastest"]
    yield ""
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for row in timed:
        cells = [row["model"], f"{row['original_ms']:.3g}"]
        for name in names:
            one = row["outcomes"][name]
            cells += [f"{one['seconds']:.1f}", _shown(one["ratio"])]
        cells += [_shown(row["outcomes"][name]["against"]) for name in names if name != "fastest"]
        yield f"| {' | '.join(cells)} |"
    found = document["summary"]
    cells = ["geometric mean; mean of the seconds", ""]
    for name in names:
        mean = found["geometric_mean"][name]
        cells += [f"{found['mean_seconds'][name]:.1f}", f"**{mean:.2f}**"]
    ours = found["geometric_mean"]["fastest"]
    cells += [f"{ours / found['geometric_mean'][name]:.2f}" for name in names if name != "fastest"]
    yield f"| {' | '.join(cells)} |"
    yield ""
    for name, models in found["fastest_is_slower_than"].items():
        listed = ", ".join(models) or "never"
        yield f"`fastest` is slower than `{name}` beyond the interval: {listed}"
    over = ", ".join(found["beyond_budget"]) or "none"
    yield f"beyond 1.5 times the budget and one run: {over}"


if __name__ == "__main__":
    sys.exit(main())
