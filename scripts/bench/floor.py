"""A lower bound of the time of a model on this machine, from its multiplications and bytes.

Multiplications take as long as in onnxruntime's own MatMul of two large float32 matrices, or in a
large Conv if that is quicker; bytes take as long as in a copy of as many; both with the same number
of threads. A model takes at least the longer of the two, unless it computes in integers or by an
algorithm with fewer multiplications, which onnxruntime does not have. Multiplications are those of
the form with the fewest, without inserted zeros and repeated pixels; bytes are the model's inputs,
outputs and weights, each once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

from bench.subjects import Shapes
from bench.work import Work, work_of

_MATRIX = 1024
"""Rows and columns of the matrices: a billion multiplications."""
_CHANNELS, _KERNEL, _IMAGE = 256, 3, 34
"""Channels, kernel and image of the Conv, without padding: 0.6 billion multiplications."""
_SIZES = tuple(4**power * 2**18 for power in range(5))
"""Bytes of the copies: 256 KiB to 64 MiB."""
_REPEATS = 9


@dataclass(frozen=True)
class Rates:
    """Measured rates: multiplications, and bytes read and written, per millisecond."""

    threads: int
    matmul: float
    conv: float
    bytes: Mapping[int, float]
    """By the size of the block that is copied."""

    @property
    def macs(self) -> float:
        """Multiplications per millisecond: the higher of both rates."""
        return max(self.matmul, self.conv)

    def copy_ms(self, amount: int) -> float:
        """Milliseconds to read or write ``amount`` bytes once, as in a copy of half of them."""
        size = max((size for size in self.bytes if 2 * size <= amount), default=min(self.bytes))
        return amount / self.bytes[size]


@dataclass(frozen=True)
class Floor:
    """The lower bound of the time of a model, in milliseconds, and what it follows from."""

    before: Work
    after: Work
    macs: int | None
    """Multiplications of the form with the fewest."""
    multiply_ms: float | None
    copy_ms: float
    ms: float


def floor_of(original: Path, rewritten: Path, shapes: Shapes, rates: Rates) -> Floor:
    """The floor of a model, with the work of the model and of ``rewritten``."""
    import onnx

    import deployconv

    before, after = (work_of(onnx.load(path), shapes) for path in (original, rewritten))
    every = deployconv.rewrite(original, verify=False, bench=False, shape=shapes).model
    forms = [before, after, *([work_of(every, shapes)] if every is not None else [])]
    macs = min((work.macs for work in forms if work.macs is not None), default=None)
    multiply = None if macs is None else macs / rates.macs
    copy = rates.copy_ms(before.needed)
    return Floor(before, after, macs, multiply, copy, max(multiply or 0.0, copy))


def measure_rates(threads: int) -> Rates:
    """Measure the rates of this machine with a number of threads: the best of several runs."""
    square = (_MATRIX, _MATRIX)
    image, kernel = (1, _CHANNELS, _IMAGE, _IMAGE), (_CHANNELS, _CHANNELS, _KERNEL, _KERNEL)
    made = (_IMAGE - _KERNEL + 1) ** 2
    return Rates(
        threads,
        _MATRIX**3 / _best_ms("MatMul", square, square, threads),
        made * prod(kernel) / _best_ms("Conv", image, kernel, threads),
        {size: _copy_rate(size, threads) for size in _SIZES},
    )


def _best_ms(op: str, shape: tuple[int, ...], weight: tuple[int, ...], threads: int) -> float:
    """Milliseconds of one node with a constant weight."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from deployconv.runtimes import get_backend

    generator = np.random.default_rng(0)
    constant = numpy_helper.from_array(generator.standard_normal(weight, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"])],
        op,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [constant],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = get_backend("ort").prepare(model.SerializeToString(), threads=threads)
    feeds = {"x": generator.standard_normal(shape, np.float32)}
    session.timed_run(feeds)
    return min(_milliseconds(lambda: session.timed_run(feeds)) for _ in range(_REPEATS))


def _copy_rate(size: int, threads: int) -> float:
    """Bytes per millisecond, read and written.

    Each thread copies a part of its own; small blocks are copied many times in a row.
    """
    import numpy as np

    part = size // threads
    pairs = [(np.ones(part, np.uint8), np.empty(part, np.uint8)) for _ in range(threads)]
    times = max(1, 2**24 // size)

    def copy(number: int) -> None:
        source, target = pairs[number]
        for _ in range(times):
            np.copyto(target, source)

    with ThreadPoolExecutor(threads) as pool:

        def run() -> None:
            list(pool.map(copy, range(threads)))

        run()
        best = min(_milliseconds(run) for _ in range(_REPEATS))
    return 2 * part * threads * times / best


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
