"""Measure how much faster a rewrite makes models on onnxruntime's CPU provider.

    python scripts/bench_ort.py                               everything: about an hour
    python scripts/bench_ort.py --quick --only 'fsrcnn*'      a few models, briefly
    python scripts/bench_ort.py --models resizes              those with an interpolating Resize
    python scripts/bench_ort.py --policy fastest --threads 2 --json bench.json
    python scripts/bench_ort.py --table bench.json ...        earlier results, in Markdown

Takes the models of ``models/`` and, if torch is installed, the same networks at real sizes,
exported when they are needed (`zoo.large`). The original and the rewritten model run on the same
inputs in one process, in turns and in several pairs of sessions (`bench.speed`). Each ratio is that
of two runs in the same turn; above 1, the rewritten model is faster. The table shows the median
ratio with its 95 % confidence interval and the quartiles of all ratios.

Peak memory is the largest resident set while a process of its own loads a model and runs it, less
what the process takes once onnxruntime is imported.

The floor is a lower bound of the time of every form of the model, see `bench.floor`. The limit is
the ratio that no rewrite of the upsampling layers can exceed; moving is the part of the rewritten
model's time that goes into shuffles, crops and reorders, see `bench.share`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import command
from bench.floor import Rates, floor_of, measure_rates
from bench.memory import Memory
from bench.process import on_one_line
from bench.rows import Policy
from bench.share import limit, moving_part, upsampling_share
from bench.speed import Effort, time_pair
from bench.subjects import Subject, all_subjects, exported, resizing
from bench.table import TABLE, Row


def measure(subject: Subject, policy: Policy, rates: Rates, effort: Effort, folder: Path) -> Row:
    """Rewrite, verify and time one model; an error becomes part of the row."""
    threads = rates.threads
    rewritten = folder / f"{subject.name}.{policy}.{threads}.onnx"
    try:
        original = exported(subject, folder)
        done = command.rewrite(original, rewritten, subject, policy, threads, effort)
        speed = time_pair(original, rewritten, subject.shapes, threads, effort)
        memory = Memory.of(original, rewritten, subject.shapes, threads)
        floor = floor_of(original, rewritten, subject.shapes, rates)
        share = upsampling_share(original, subject.shapes, threads)
        moving = moving_part(original, rewritten, subject.shapes, threads)
    except Exception as error:
        return Row(subject.name, policy, threads, error=on_one_line(error))
    sites = tuple(asdict(site) for site in done.sites)
    most = limit(share, floor, rates, speed.before_ms)
    return Row(subject.name, policy, threads, sites, speed, memory, floor, share, most, moving)


def prepare(threads: Sequence[int]) -> tuple[command.Measure[Row], Mapping[str, Any]]:
    """Measure the rates of the machine, which the floor follows from."""
    rates = {number: measure_rates(number) for number in threads}

    def one(subject: Subject, policy: Policy, number: int, effort: Effort, folder: Path) -> Row:
        return measure(subject, policy, rates[number], effort, folder)

    return one, {"rates": [asdict(rate) for rate in rates.values()]}


BENCHMARK = command.Benchmark(
    __doc__,
    {"all": all_subjects, "resizes": resizing},
    ("all", "cost", "fastest"),
    TABLE,
    prepare,
)

if __name__ == "__main__":
    sys.exit(command.main(BENCHMARK))
