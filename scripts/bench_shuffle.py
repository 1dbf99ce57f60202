"""Time the ways to write a shuffle on onnxruntime's CPU provider.

    python scripts/bench_shuffle.py              with two threads, then with one
    python scripts/bench_shuffle.py --threads 2

The phases of C channels, ``[1, C * s * s, H, W]``, become ``[1, C, s * H, s * W]``: once by each
shuffle that deployconv writes, and in two ways that it does not use (a Concat of adjacent phases, a
Gather of the elements one by one). For comparison, Neg reads and writes as many elements in order:
no shuffle can take less. All results are compared with each other, and all models run in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from costfit.layers import OPSET, written
from onnx import ModelProto

from deployconv.restrictions import ChannelOrder
from deployconv.results import ShuffleName
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.shuffles import SHUFFLES, write_shuffle
from deployconv.runtimes import get_backend
from deployconv.runtimes.timing import time_interleaved

_IMAGES = ((64, 2, 128), (24, 2, 160), (32, 4, 64), (1, 4, 160), (21, 8, 64))
"""Channels, stride, rows and columns."""
_SHUFFLES: tuple[ShuffleName, ...] = ("col2im", "two-step", "dcr", "crd", "transpose")

Write = Callable[[Emitter, gs.Tensor, Layout], gs.Tensor]


@dataclass(frozen=True)
class Way:
    """One way to write the shuffle, and the order of channels and phases that it reads."""

    name: str
    model: ModelProto
    channel_order: ChannelOrder


def ways(layout: Layout) -> Iterator[Way]:
    """All ways to write the shuffle; the first only copies."""
    yield Way("copy", _model(layout, lambda emitter, x, _: emitter.add("Neg", [x])), "CRD")
    for name in _SHUFFLES:
        written = _model(layout, _by_name(name))
        yield Way(name, written, SHUFFLES[name].channel_order)
    yield Way("Concat", _model(layout, _side_by_side), "CRD")
    yield Way("Gather", _model(layout, _one_by_one), "CRD")


def _by_name(name: ShuffleName) -> Write:
    return lambda emitter, x, layout: write_shuffle(emitter, x, name, layout)


def _side_by_side(emitter: Emitter, x: gs.Tensor, layout: Layout) -> gs.Tensor:
    """Interleave columns by Concat along the last axis, then whole rows by Transpose."""
    (rows, columns), step = layout.static or (0, 0), layout.stride[0]
    x = emitter.reshape(x, [layout.channels * step, step, rows * columns])
    parts = [emitter.slice(x, [q], [q + 1], [1]) for q in range(step)]
    shape = [layout.channels * step, rows * columns, 1]
    x = emitter.add("Concat", [emitter.reshape(part, shape) for part in parts], axis=2)
    x = emitter.reshape(x, [layout.channels, step, rows, columns * step])
    x = emitter.add("Transpose", [x], perm=[0, 2, 1, 3])
    return emitter.reshape(x, [1, layout.channels, rows * step, columns * step])


def _one_by_one(emitter: Emitter, x: gs.Tensor, layout: Layout) -> gs.Tensor:
    (rows, columns), step = layout.static or (0, 0), layout.stride[0]
    places = np.arange(layout.channels * step * step * rows * columns, dtype=np.int32)
    moved = places.reshape(layout.channels, step, step, rows, columns).transpose(0, 3, 1, 4, 2)
    where = moved.reshape(1, layout.channels, rows * step, columns * step)
    flat = emitter.reshape(x, [-1])
    return emitter.add("Gather", [flat, emitter.constant("where", where)], axis=0)


def _model(layout: Layout, write: Write) -> ModelProto:
    return written("shuffle", layout, lambda emitter, x: write(emitter, x, layout)).model


def _shape(layout: Layout) -> tuple[int, ...]:
    return (1, layout.channels * layout.stride[0] ** 2, *(size or 1 for size in layout.sizes))


def measure(layout: Layout, threads: int, seconds: float) -> dict[str, float]:
    """Median milliseconds of each way. Raises ValueError if two of them do not agree."""
    backend = get_backend("ort")
    found = list(ways(layout))
    sessions = [backend.prepare(w.model.SerializeToString(), threads=threads) for w in found]
    phased = np.random.default_rng(0).standard_normal(_shape(layout), np.float32)
    shape = (layout.channels, layout.stride[0] ** 2, *phased.shape[2:])
    first = np.ascontiguousarray(phased.reshape(shape).swapaxes(0, 1)).reshape(phased.shape)
    expected = sessions[1].run({"x": phased})["y"]
    for way, session in zip(found[2:], sessions[2:], strict=True):
        made = session.run({"x": first if way.channel_order == "DCR" else phased})["y"]
        if not np.array_equal(made, expected):
            raise ValueError(f"{way.name} makes something else than {found[1].name}")
    taken = time_interleaved(sessions, {"x": phased}, seconds=seconds)
    return {way.name: float(np.median(ms)) for way, ms in zip(found, taken, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", action="append", type=int, help="default: 2, then 1")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each image (4)")
    options = parser.parse_args()
    for number, threads in enumerate(options.threads or (2, 1)):
        for channels, stride, size in _IMAGES:
            layout = Layout(
                channels, (stride,) * 2, (size,) * 2, ((0, 0),) * 2, 1, OPSET, "float32"
            )
            found = measure(layout, threads, options.seconds)
            if not number and (channels, stride, size) == _IMAGES[0]:
                print(f"{'C, stride, size':17}{'threads':>8}", *(f"{name:>9}" for name in found))
            figures = (f"{ms:6.2f} ms" for ms in found.values())
            print(f"{f'{channels}, {stride}, {size}':17}{threads:8}", *figures, flush=True)


if __name__ == "__main__":
    main()
