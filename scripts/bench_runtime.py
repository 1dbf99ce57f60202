"""Measure how much faster a rewrite makes models on OpenVINO, MNN or tract.

    python scripts/bench_runtime.py --backend openvino        a quarter of an hour
    python scripts/bench_runtime.py --backend openvino --models resizes
    python scripts/bench_runtime.py --backend mnn --quick --only 'fsrcnn*'

``decoders`` are the larger decoders of ``zoo.large``; ``resizes`` are the networks with an
interpolating Resize, of ``models/`` and of ``zoo.large``. Those of ``zoo.large`` are exported by
torch when they are needed. Original and rewritten model run on the same inputs, in turns and in
several pairs of sessions (`bench.speed`). The last column says what became of each layer.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import command
from bench.process import on_one_line
from bench.rows import Policy, Row, Table
from bench.speed import Effort, time_pair
from bench.subjects import Subject, exported, larger_decoders, resizing


def measure(subject: Subject, policy: Policy, threads: int, effort: Effort, folder: Path) -> Row:
    """Rewrite, verify and time one model; an error becomes part of the row."""
    rewritten = folder / f"{subject.name}.{policy}.{threads}.onnx"
    try:
        original = exported(subject, folder)
        done = command.rewrite(original, rewritten, subject, policy, threads, effort)
        speed = time_pair(original, rewritten, subject.shapes, threads, effort)
    except Exception as error:
        return Row(subject.name, policy, threads, error=on_one_line(error))
    return Row(subject.name, policy, threads, tuple(asdict(site) for site in done.sites), speed)


def prepare(threads: Sequence[int]) -> tuple[command.Measure[Row], Mapping[str, Any]]:
    """Nothing needs to be known before the first model."""
    return measure, {}


def _forms(row: Row) -> str:
    """What became of each site."""
    forms = [
        f"{site['form']}/{site['shuffle']}" if site["form"] else site["status"]
        for site in row.sites
    ]
    return "  " + ", ".join(forms)


TABLE = Table[Row]("  sites", _forms, lambda _: {}, lambda _: "see the table", {})

BENCHMARK = command.Benchmark(
    __doc__,
    {"decoders": larger_decoders, "resizes": resizing},
    ("all", "cost", "fastest"),
    TABLE,
    prepare,
    backends=("openvino", "mnn", "tract", "ort"),
)

if __name__ == "__main__":
    sys.exit(command.main(BENCHMARK))
