"""Fit the constants of `--policy cost` for a runtime on the CPU to measurements.

    python scripts/fit_cost.py                          measure, fit, print the table
    python scripts/fit_cost.py --save measured.json     ... and write the measurements to a file
    python scripts/fit_cost.py --load measured.json     fit earlier measurements
    python scripts/fit_cost.py --terms linear cubic     fit these terms alone, others as they are
    python scripts/fit_cost.py --backend openvino       for another runtime than onnxruntime
    python scripts/fit_cost.py --busy                   while other programs run

Measures a designed set of layers (`costfit.layers`), each in a session of its own, with one thread
and with all. Every round goes over all layers, so that a drift of the machine affects all of them.
The constants minimise the sum of the squared relative errors, with none below zero. The printed
table goes to ``deployconv/search/cost_table.py``.

With ``--busy`` the CPU time of one thread is measured, one layer after the other, as other programs
change it little. How far threads share the work is not measured then: all of it is taken as shared,
but for the time of each node.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from costfit.layers import Layer, layers
from numpy.typing import NDArray
from onnx import ModelProto

from deployconv.errors import BackendUnavailable
from deployconv.graph.shapes import Shapes
from deployconv.graph.skeleton import skeleton
from deployconv.rewrites.shuffles import SHUFFLES
from deployconv.runtimes import get_backend, get_runtime
from deployconv.runtimes.base import Backend
from deployconv.runtimes.machine import describe_machine, usable_cpus
from deployconv.search.cost_graph import graph_of
from deployconv.search.cost_table import ORT_CPU, Rate
from deployconv.search.cost_terms import Term, Work

Matrix = NDArray[np.float64]

BLOCK = 16
"""Channels in a block of onnxruntime's convolutions on a processor with AVX-512."""
_ROUNDS = 3
_SECONDS = 0.06
"""Seconds for one layer in one round."""
_FEWEST, _MOST = 3, 30
"""Runs of one layer in one round."""


@dataclass(frozen=True)
class Sample:
    """The measured time of one layer with a number of threads, and its work."""

    name: str
    threads: int
    work: Work
    ms: float


def measure(
    threads: Sequence[int],
    terms: Collection[Term] = (),
    backend_name: str = "ort",
    busy: bool = False,
) -> Iterator[Sample]:
    """Time every layer with each number of threads: the median over rounds of their medians.

    With ``terms``, only the layers that have such work. Shuffles that the runtime is not to use are
    left out. On a ``busy`` machine CPU time is measured.
    """
    unused = set(SHUFFLES) - set(get_runtime(backend_name).shuffles or SHUFFLES)
    chosen = [
        layer
        for layer in layers()
        if (not terms or set(terms) & work_of_model(layer.model).keys())
        and not (unused & {layer.name.split()[0]})
    ]
    groups = [[layer] for layer in chosen] if busy else [chosen]
    for group in groups:
        yield from _measure(group, threads, get_backend(backend_name), busy)


def _measure(
    group: Sequence[Layer], threads: Sequence[int], backend: Backend, busy: bool
) -> Iterator[Sample]:
    """Time the layers of ``group`` in turns."""
    prepared = []
    for layer in group:
        given = layer.model.graph.input[0].type.tensor_type.shape.dim
        feeds = {"x": np.random.default_rng(0).standard_normal([d.dim_value for d in given])}
        feeds["x"] = feeds["x"].astype(np.float32)
        for number in threads:
            try:
                session = backend.prepare(layer.model.SerializeToString(), threads=number)
                session.timed_run(feeds)
            except BackendUnavailable as error:
                print(f"{layer.name}: left out: {error}", file=sys.stderr)
                continue
            prepared.append((layer.name, number, work_of_model(layer.model), session, feeds))
    rounds: list[list[float]] = [[] for _ in prepared]
    clock = time.process_time if busy else time.perf_counter
    for _ in range(_ROUNDS):
        for (_, _, _, session, feeds), found in zip(prepared, rounds, strict=True):
            session.timed_run(feeds)
            found.append(float(np.median(_times(session, feeds, clock))))
    for (name, number, work, *_), found in zip(prepared, rounds, strict=True):
        yield Sample(name, number, work, float(np.median(found)))


def _times(session: Any, feeds: Mapping[str, Any], clock: Callable[[], float]) -> list[float]:
    """Milliseconds of some runs."""
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < _FEWEST or (len(taken) < _MOST and time.perf_counter() - begin < _SECONDS):
        start = clock()
        measured = session.timed_run(feeds)
        taken.append(1e3 * (clock() - start) if measured is None else measured)
    return taken


def work_of_model(model: ModelProto) -> Work:
    """The work of a model with static shapes."""
    (shapes,) = Shapes(skeleton(model)).instances()
    work, unknown = graph_of(model.graph, shapes, static=True, block=BLOCK).work()
    assert not unknown, unknown
    return work


def fit(
    samples: Sequence[Sample], wanted: Collection[Term] = ()
) -> tuple[dict[Term, Rate], float, list[float]]:
    """The rate of each term, the milliseconds of a call, and the relative error of each sample.

    If terms are ``wanted``, only theirs: the others keep the rates that they have.
    """
    terms: list[Term] = [term for term in get_args(Term) if any(term in s.work for s in samples)]
    if wanted:
        samples = [_less_the_rest(sample, wanted) for sample in samples]
        terms = [term for term in terms if term in wanted]
    rows = [[part for term in terms for part in _parts(sample, term)] + [1.0] for sample in samples]
    if all(sample.threads == 1 for sample in samples):  # nothing tells what threads share
        rows = [[0.0 if i % 2 else part for i, part in enumerate(row[:-1])] + [1.0] for row in rows]
    times = np.array([sample.ms for sample in samples])
    relative = np.array(rows) / times[:, None]
    constants = non_negative(relative, np.ones(len(samples)))
    errors = relative @ constants - 1.0
    pairs = constants[:-1].reshape(-1, 2)
    table = {
        term: Rate(0.0, float(a), float(b))
        if term in _SLOWED_BY_THREADS
        else Rate(float(a), float(b))
        for term, (a, b) in zip(terms, pairs, strict=True)
    }
    return table, float(constants[-1]), [float(error) for error in errors]


def _less_the_rest(sample: Sample, terms: Collection[Term]) -> Sample:
    """``sample`` without the work of other kinds, and without the time that it takes."""
    rest = {term: amount for term, amount in sample.work.items() if term not in terms}
    work = {term: amount for term, amount in sample.work.items() if term in terms}
    return replace(sample, work=work, ms=sample.ms - ORT_CPU.milliseconds(rest, sample.threads))


_SLOWED_BY_THREADS: frozenset[Term] = frozenset(
    {"launches", "forks", "transposed_axis", "transposed_rows"}
)
"""Terms that take longer with more threads: waking them costs time, or they compete."""


def _parts(sample: Sample, term: Term) -> tuple[float, float]:
    """The factors of the two constants of a term."""
    amount = sample.work.get(term, 0.0)
    if term in _SLOWED_BY_THREADS:
        return amount, amount * (sample.threads - 1)
    return amount / sample.threads, amount


def non_negative(matrix: Matrix, target: Matrix, rounds: int = 20_000) -> Matrix:
    """Solve least squares without negative unknowns, by improving one unknown at a time."""
    gram, right = matrix.T @ matrix, matrix.T @ target
    found = np.zeros(len(right))
    for _ in range(rounds):
        largest = 0.0
        for i in np.flatnonzero(np.diag(gram)):
            change = max(-found[i], (right[i] - gram[i] @ found) / gram[i, i])
            found[i] += change
            largest = max(largest, abs(change) * float(np.sqrt(gram[i, i])))
        if largest < 1e-9:
            break
    return found


def report(samples: Sequence[Sample], machine: str, terms: Collection[Term]) -> None:
    """Print the table and its errors."""
    table, call, errors = fit(samples, terms)
    size = np.abs(errors)
    print(f"# {machine}")
    print(f"# {len(samples)} timings: relative error {np.median(size):.0%} in the median,")
    print(
        f"# {np.percentile(size, 90):.0%} in the 90th percentile; a call takes {1e3 * call:.0f} us"
    )
    for term, rate in table.items():
        constants = [rate.parallel, rate.serial, *([rate.each] if rate.each else [])]
        print(f'    "{term}": Rate({", ".join(f"{constant:.3g}" for constant in constants)}),')
    print("\nfarthest off:", file=sys.stderr)
    for i in sorted(range(len(samples)), key=lambda i: -size[i])[:20]:
        sample = samples[i]
        print(
            f"  {sample.name:44} {sample.threads} threads {sample.ms:8.3f} ms"
            f" predicted {sample.ms * (1 + errors[i]):8.3f}",
            file=sys.stderr,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the measurements there")
    parser.add_argument("--load", type=Path, metavar="FILE", help="fit these, measure nothing")
    parser.add_argument(
        "--terms", nargs="+", choices=get_args(Term), default=[], help="fit these terms alone"
    )
    parser.add_argument("--backend", default="ort", help="the runtime to measure (default: ort)")
    parser.add_argument("--busy", action="store_true", help="other programs run meanwhile")
    options = parser.parse_args()
    if options.load:
        document = json.loads(options.load.read_text(encoding="utf-8"))
        works = {layer.name: work_of_model(layer.model) for layer in layers()}
        machine = document["machine"]
        samples = [
            Sample(entry["name"], entry["threads"], works[entry["name"]], entry["ms"])
            for entry in document["samples"]
            if entry["name"] in works
        ]
    else:
        threads = [1] if options.busy else sorted({1, usable_cpus()})
        samples = list(measure(threads, options.terms, options.backend, options.busy))
        machine = f"{describe_machine()}; {get_backend(options.backend).runtime}"
    if options.save:
        document = {"machine": machine, "samples": [asdict(sample) for sample in samples]}
        options.save.write_text(json.dumps(document, indent=1), encoding="utf-8")
    report(samples, machine, options.terms)


if __name__ == "__main__":
    main()
