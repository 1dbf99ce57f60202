"""The layers that the cost model is fitted to: models of a few nodes, of many sizes.

They are what original and rewritten models are made of: convolutions of every kind, transposed
convolutions, every shuffle, crops, pointwise layers, repeated pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.results import ShuffleName
from deployconv.rewrites.emit import Emitter
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.shuffles import SHUFFLES, write_shuffle

OPSET, IR_VERSION = 18, 9


@dataclass(frozen=True)
class Layer:
    """A small model with the single input ``x`` and output ``y``."""

    name: str
    model: ModelProto


def layers() -> Iterator[Layer]:
    """Every layer that is measured."""
    yield from _convs()
    yield from _transposed_convs()
    yield from _shuffles()
    yield from _others()
    yield from _sums()
    yield from _bands()
    yield from _integers()


_IMAGES = (
    # C_in, C_out, kernel, size
    *((3, 64, 3, 128), (1, 56, 5, 128), (64, 3, 3, 128), (64, 12, 3, 128), (32, 4, 1, 160)),
    *((16, 16, 3, 128), (32, 32, 3, 96), (64, 64, 3, 64), (64, 64, 3, 128), (128, 128, 3, 32)),
    *((256, 256, 3, 16), (512, 512, 3, 8), (64, 64, 5, 48), (128, 64, 3, 128), (48, 24, 3, 160)),
    *((64, 256, 2, 64), (128, 128, 2, 32), (512, 1024, 2, 8), (32, 64, 2, 128), (64, 128, 1, 64)),
    *((256, 1024, 1, 14), (24, 96, 1, 160), (96, 16, 1, 160), (56, 12, 1, 96), (12, 56, 1, 160)),
    *((512, 512, 1, 16), (64, 36, 3, 64), (56, 9, 3, 180), (20, 80, 2, 64), (12, 12, 3, 120)),
    *((16, 64, 2, 16), (32, 32, 3, 16), (64, 12, 3, 24), (24, 24, 1, 40), (64, 256, 2, 128)),
    *((64, 256, 3, 40), (96, 384, 1, 80), (32, 16, 9, 32), (128, 512, 2, 16), (1024, 2048, 2, 4)),
)
_GROUPED = (
    # channels, C_out, kernel, size, group
    *((64, 64, 3, 64, 64), (128, 128, 3, 32, 128), (32, 32, 5, 128, 32), (64, 64, 3, 64, 4)),
    *((64, 256, 2, 64, 64), (21, 84, 2, 40, 21), (128, 512, 1, 32, 128), (32, 128, 3, 48, 8)),
    *((21, 1344, 3, 32, 21), (16, 64, 2, 128, 16), (64, 128, 2, 32, 4), (8, 32, 2, 16, 8)),
)
_OTHER_CONVS = (
    # C_in, C_out, kernel, spatial sizes
    *((256, 128, 3, (64,)), (128, 128, 7, (512,)), (64, 64, 3, (4096,)), (256, 1024, 3, (64,))),
    *((128, 512, 2, (512,)), (32, 32, 11, (8192,)), (80, 256, 7, (256,)), (32, 1, 7, (16384,))),
    *((513, 256, 5, (128,)), (64, 128, 2, (4096,)), (16, 16, 3, (16, 32, 32))),
    *((16, 32, 2, (16, 24, 24)), (32, 256, 1, (8, 16, 16)), (8, 16, 5, (16, 32, 32))),
    *((22, 30, 3, (64, 64)), (50, 50, 3, (32, 32)), (30, 120, 1, (64, 64))),
)


def _convs() -> Iterator[Layer]:
    for c_in, c_out, kernel, size in _IMAGES:
        yield _conv(c_in, c_out, kernel, (size, size))
    for c_in, c_out, kernel, size, group in _GROUPED:
        yield _conv(c_in, c_out, kernel, (size, size), group)
    for c_in, c_out, kernel, sizes in _OTHER_CONVS:
        yield _conv(c_in, c_out, kernel, sizes)
    # Three after each other: nothing is reordered between them.
    for channels, size in ((32, 96), (64, 64), (128, 32)):
        yield _conv(channels, channels, 3, (size, size), depth=3)


def _conv(
    c_in: int, c_out: int, kernel: int, sizes: Sequence[int], group: int = 1, depth: int = 1
) -> Layer:
    rank = len(sizes)
    begin, end = kernel // 2, (kernel - 1) // 2
    weight = _values(c_out, c_in // group, *[kernel] * rank)
    pads = [begin] * rank + [end] * rank
    names = ["x", *(f"h{i}" for i in range(1, depth)), "y"]
    nodes = [
        helper.make_node("Conv", [source, "w"], [result], group=group, pads=pads)
        for source, result in pairwise(names)
    ]
    title = f"conv {c_in}-{c_out} k{kernel} g{group} {_by(sizes)} x{depth}"
    return _layer(title, nodes, (1, c_in, *sizes), w=weight)


_UPSAMPLERS = (
    # C_in, C_out, kernel, stride, pad, group, spatial sizes
    *((64, 32, 4, 2, 1, 1, (128, 128)), (256, 128, 4, 2, 1, 1, (32, 32))),
    *((512, 256, 4, 2, 1, 1, (16, 16)), (64, 3, 4, 2, 1, 1, (128, 128))),
    *((56, 12, 9, 3, 4, 1, (96, 96)), (56, 1, 9, 3, 4, 1, (180, 160))),
    *((64, 64, 8, 4, 2, 1, (32, 32)), (32, 16, 5, 2, 2, 1, (64, 64))),
    *((64, 64, 2, 2, 0, 1, (64, 64)), (24, 24, 2, 2, 0, 1, (160, 160))),
    *((24, 1, 2, 2, 0, 1, (160, 160)), (256, 64, 2, 2, 0, 1, (16, 16))),
    *((128, 64, 3, 2, 1, 1, (64, 64)), (1024, 512, 4, 2, 1, 1, (4, 4))),
    *((100, 512, 4, 1, 0, 1, (1, 1)), (512, 256, 4, 2, 1, 1, (4, 4))),
    *((32, 16, 4, 2, 1, 1, (16, 16)), (64, 32, 4, 2, 1, 1, (8, 8)), (8, 8, 4, 2, 1, 8, (16, 16))),
    *((64, 64, 2, 2, 0, 1, (160, 160)), (16, 8, 16, 8, 4, 1, (64,)), (32, 16, 4, 2, 1, 1, (128,))),
    *((16, 8, 2, 2, 0, 1, (24, 24)), (21, 21, 4, 2, 0, 21, (40, 40))),
    *((21, 21, 16, 8, 0, 21, (40, 40)), (64, 64, 4, 2, 1, 64, (64, 64))),
    *((128, 128, 2, 2, 0, 128, (32, 32)), (64, 32, 4, 2, 1, 4, (32, 32))),
    *((256, 128, 16, 8, 4, 1, (64,)), (128, 64, 16, 8, 4, 1, (512,))),
    *((64, 32, 4, 2, 1, 1, (4096,)), (32, 16, 4, 2, 1, 1, (8192,))),
    *((513, 1, 1024, 256, 0, 1, (128,)), (256, 256, 20, 10, 5, 1, (64,))),
    *((32, 16, 2, 2, 0, 1, (8, 16, 16)), (16, 8, 4, 2, 1, 1, (8, 16, 16))),
)


def _transposed_convs() -> Iterator[Layer]:
    for c_in, c_out, kernel, stride, pad, group, sizes in _UPSAMPLERS:
        rank = len(sizes)
        node = helper.make_node(
            *("ConvTranspose", ["x", "w"], ["y"]),
            group=group,
            strides=[stride] * rank,
            pads=[pad] * 2 * rank,
        )
        weight = _values(c_in, c_out // group, *[kernel] * rank)
        title = f"transposed {c_in}-{c_out} k{kernel} s{stride} g{group} {_by(sizes)}"
        yield _layer(title, [node], (1, c_in, *sizes), w=weight)


_SHUFFLED = (
    # output channels, stride, input sizes
    *((64, (2, 2), (64, 64)), (32, (2, 2), (128, 128)), (3, (2, 2), (128, 128))),
    *((256, (2, 2), (16, 16)), (16, (2, 2), (24, 24)), (1, (3, 3), (180, 320))),
    *((12, (3, 3), (96, 96)), (1, (4, 4), (160, 160)), (16, (4, 4), (48, 48))),
    *((21, (8, 8), (40, 40)), (32, (4,), (4096,)), (64, (8,), (512,)), (128, (8,), (64,))),
    *((64, (2, 2), (128, 128)), (64, (2, 2), (256, 256)), (16, (2, 2), (8, 8))),
    *((8, (8,), (64,)), (16, (2,), (128,)), (16, (4,), (16384,)), (3, (4, 4), (16, 16))),
    *((1, (256,), (128,)), (8, (2, 2, 2), (16, 24, 24)), (16, (1, 2), (64, 64))),
    *((21, (1, 8), (40, 40)), (21, (8, 1), (40, 320)), (21, (8, 1), (64, 512))),
    *((32, (1, 4), (64, 64)), (32, (4, 1), (64, 256)), (64, (2, 1), (32, 64))),
    *((64, (2, 1), (64, 128)), (64, (2, 1), (128, 256)), (21, (8, 1), (16, 128))),
)


def _shuffles() -> Iterator[Layer]:
    for channels, stride, sizes in _SHUFFLED:
        for crop in (0, 1):
            layout = Layout(
                channels=channels,
                stride=stride,
                sizes=sizes,
                crop=tuple((crop if step > 1 else 0, 0) for step in stride),
                group=1,
                opset=OPSET,
                dtype="float32",
            )
            for name, shuffle in SHUFFLES.items():
                # Between integer layers the outer Transposes of channels-last cancel: not alone.
                alone = not shuffle.integers_only and shuffle.takes(layout)
                if alone and (not crop or name == "col2im"):
                    yield _shuffle(name, layout)


def _shuffle(name: ShuffleName, layout: Layout) -> Layer:
    crop = " crop" if any(map(sum, layout.crop)) else ""
    title = f"{name} {layout.channels} s{_by(layout.stride)} {_by(layout.static or ())}{crop}"
    return written(title, layout, partial(write_shuffle, name=name, layout=layout))


def written(name: str, layout: Layout, write: Callable[[Emitter, gs.Tensor], gs.Tensor]) -> Layer:
    """A layer that ``write`` makes from the phases of ``layout``, whose sizes are known."""
    number = count()
    emitter = Emitter(OPSET, lambda suffix: f"{suffix}{next(number)}")
    write(emitter, gs.Variable("x"))
    nodes = emitter.finish("y")
    constants = {
        tensor.name: tensor.values
        for node in nodes
        for tensor in node.inputs
        if isinstance(tensor, gs.Constant)
    }
    assert layout.static is not None
    shape = (1, layout.channels * prod(layout.stride), *layout.static)
    exported = [OnnxExporter.export_node(node) for node in nodes]
    return _layer(name, exported, shape, **constants)


_ELEMENTS = (
    (1, 16, 24, 24),
    (1, 64, 64, 64),
    (1, 64, 128, 128),
    (1, 32, 320, 320),
    (1, 64, 512, 512),
)


def _others() -> Iterator[Layer]:
    for shape in _ELEMENTS:
        for op in ("Relu", "Sigmoid", "Erf"):
            yield _layer(f"{op} {_by(shape)}", [helper.make_node(op, ["x"], ["y"])], shape)
        for op in ("PRelu", "Add"):
            node = helper.make_node(op, ["x", "w"], ["y"])
            yield _layer(f"{op} {_by(shape)}", [node], shape, w=_values(shape[1], 1, 1))
        node = helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
        yield _layer(f"Concat {_by(shape)}", [node], shape)
        node = helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"])
        bounds = {"starts": [1, 1], "ends": [1 << 30] * 2, "axes": [2, 3]}
        given = {name: np.array(values) for name, values in bounds.items()}
        yield _layer(f"Slice {_by(shape)}", [node], shape, **given)
    for channels, size in ((64, 64), (16, 128), (256, 16)):
        yield from _repeated(channels, size)
    yield from _interpolated()
    yield from _interpolated_blocks()
    for depth in (4, 16):
        names = ["x", *(f"h{i}" for i in range(1, depth)), "y"]
        nodes = [
            helper.make_node(("Abs", "Neg")[i % 2], [source], [result])
            for i, (source, result) in enumerate(pairwise(names))
        ]
        yield _layer(f"{depth} nodes", nodes, (1, 16, 4, 4))


_SMALL_IMAGES = ((16, 8), (8, 16), (32, 10), (64, 8), (32, 16), (16, 32), (1, 64))
"""Channels and sizes of images that take no longer to resize than threads take to wake."""


def _interpolated() -> Iterator[Layer]:
    """A linear or cubic Resize, and one with antialias."""
    for mode in ("linear", "cubic"):
        for channels, size in ((64, 16), (21, 48), (128, 32), (8, 96)):
            for factor in (2, 4):
                # A cubic Resize takes a tenth of a microsecond for each element.
                if mode == "linear" or channels * (size * factor) ** 2 <= 1 << 20:
                    yield _resized(mode, channels, size, factor, antialias=False)
        if mode == "linear":
            for channels, size in _SMALL_IMAGES:
                yield _resized(mode, channels, size, 2, antialias=False)
        for channels, size, part in (
            *((3, 256, 0.5), (3, 512, 0.4375)),
            *((32, 64, 0.5), (16, 96, 0.25)),
        ):
            yield _resized(mode, channels, size, part, antialias=True)


def _interpolated_blocks() -> Iterator[Layer]:
    """A linear Resize between two 1x1 Convs, which leave the channels in blocks."""
    for channels, size, factor in ((256, 16, 4), (256, 32, 2), (64, 64, 2), (128, 16, 8)):
        nodes = [
            helper.make_node("Conv", ["x", "u"], ["g"]),
            helper.make_node("Resize", ["g", "", "scales"], ["h"], mode="linear"),
            helper.make_node("Conv", ["h", "w"], ["y"]),
        ]
        given = {
            "scales": np.array([1, 1, factor, factor], np.float32),
            "u": _values(channels, channels, 1, 1),
            "w": _values(16, channels, 1, 1),
        }
        name = f"conv, linear resize, conv {channels} {size} by {factor}"
        yield _layer(name, nodes, (1, channels, size, size), **given)


def _resized(mode: str, channels: int, size: int, factor: float, antialias: bool) -> Layer:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode)
    if antialias:
        node.attribute.append(helper.make_attribute("antialias", 1))
    scales = np.array([1, 1, factor, factor], np.float32)
    name = f"{mode} resize {channels} {size} by {factor}{' antialias' if antialias else ''}"
    return _layer(name, [node], (1, channels, size, size), scales=scales)


def _repeated(channels: int, size: int) -> Iterator[Layer]:
    """A nearest Resize alone, before a Conv, and between two."""
    given = {
        "scales": np.array([1, 1, 2, 2], np.float32),
        "w": _values(channels, channels, 3, 3),
        "u": _values(channels, channels, 1, 1),
    }

    def resize(source: str, result: str) -> NodeProto:
        modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        inputs = [source, "", "scales"]
        return helper.make_node("Resize", inputs, [result], mode="nearest", **modes)

    first = helper.make_node("Conv", ["x", "u"], ["g"])
    last = helper.make_node("Conv", ["h", "w"], ["y"], pads=[1] * 4)
    for name, nodes in {
        "resize": [resize("x", "y")],
        "resize, conv": [resize("x", "h"), last],
        "conv, resize, conv": [first, resize("g", "h"), last],
    }.items():
        read = {key: given[key] for node in nodes for key in node.input if key in given}
        yield _layer(f"{name} {channels} {size}", nodes, (1, channels, size, size), **read)


_SUMMED = (
    # channels, spatial sizes
    *((16, (64, 16)), (32, (64, 64)), (64, (32, 32)), (64, (256, 64)), (24, (100, 100))),
    *((256, (64, 64)), (32, (256, 256)), (128, (96, 96)), (128, (4096,)), (48, (8, 24, 24))),
    *((64, (56, 56)), (128, (28, 28)), (32, (120, 160)), (64, (200, 304)), (256, (40, 40))),
)
_ROWS = (1, 4, 32)
"""Rows of the matrix that an image is multiplied by."""


def _sums() -> Iterator[Layer]:
    """Sums over channels: as a reduction, and as a matrix of weights times the image."""
    for channels, sizes in _SUMMED:
        title = f"{channels} {_by(sizes)}"
        node = helper.make_node("ReduceMean", ["x", "axes"], ["y"])
        shape = (1, channels, *sizes)
        yield _layer(f"mean {title}", [node], shape, axes=np.array([1]))
        for rows in _ROWS:
            node = helper.make_node("MatMul", ["w", "x"], ["y"])
            shape = (1, channels, prod(sizes))
            yield _layer(f"matmul {rows} {title}", [node], shape, w=_values(rows, channels))


_BANDS = (
    # channels, rows, columns, outputs per row
    *((21, 64, 64, 512), (64, 32, 32, 64), (32, 48, 48, 192), (21, 16, 20, 160), (21, 16, 16, 32)),
    *((21, 9, 512, 64), (21, 10, 512, 64), (64, 10, 128, 16), (32, 10, 192, 32)),
    (21, 16, 160, 128),
)


def _bands() -> Iterator[Layer]:
    """A band matrix along the rows of an image, and along its columns."""
    small = [(channels, size, size, 2 * size) for channels, size in _SMALL_IMAGES]
    for channels, rows, columns, made in (*_BANDS, *small):
        for along in ("rows", "columns"):
            size = columns if along == "rows" else rows
            shape = (size, made) if along == "rows" else (made, size)
            inputs = ["x", "w"] if along == "rows" else ["w", "x"]
            title = f"matrix along {along} {channels} {rows}x{columns} to {made}"
            node = helper.make_node("MatMul", inputs, ["y"])
            yield _layer(title, [node], (1, channels, rows, columns), w=_values(*shape))


_QUANTIZED = (
    # C_in, C_out, kernel, size, Convs after each other
    *((64, 64, 3, 64, 1), (64, 64, 3, 64, 3), (128, 128, 3, 32, 1), (32, 128, 2, 64, 1)),
    *((32, 128, 1, 64, 1), (16, 16, 3, 128, 2), (256, 256, 1, 16, 1), (16, 64, 2, 16, 1)),
    *((24, 24, 1, 160, 1), (64, 12, 3, 64, 1), (8, 8, 3, 24, 2), (64, 256, 2, 32, 2)),
)


def _integers() -> Iterator[Layer]:
    for c_in, c_out, kernel, size, depth in _QUANTIZED:
        nodes = [*_quantized("x", "q0")]
        constants: dict[str, Any] = {"scale": np.float32(0.02), "zero": np.uint8(128)}
        channels = c_in
        for i in range(depth):
            shape = (c_out, channels, kernel, kernel)
            integers = np.random.default_rng(0).integers(-127, 128, shape)
            constants |= {f"w{i}": integers.astype(np.int8), "step": np.float32(0.001)}
            begin, end = kernel // 2, (kernel - 1) // 2
            nodes += [
                helper.make_node("DequantizeLinear", [f"w{i}", "step"], [f"v{i}"]),
                helper.make_node("DequantizeLinear", [f"q{i}", "scale", "zero"], [f"d{i}"]),
                helper.make_node(
                    *("Conv", [f"d{i}", f"v{i}"], [f"c{i}"]), pads=[begin, begin, end, end]
                ),
                *_quantized(f"c{i}", f"q{i + 1}"),
            ]
            channels = c_out
        nodes.append(helper.make_node("DequantizeLinear", [f"q{depth}", "scale", "zero"], ["y"]))
        name = f"integer conv {c_in}-{c_out} k{kernel} {size} x{depth}"
        yield _layer(name, nodes, (1, c_in, size, size), **constants)
    for shape in _ELEMENTS[:4]:
        nodes = [
            *_quantized("x", "q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            helper.make_node("Neg", ["d"], ["y"]),
        ]
        given = {"scale": np.float32(0.02), "zero": np.uint8(128)}
        yield _layer(f"quantized {_by(shape)}", nodes, shape, **given)


def _quantized(source: str, result: str) -> Iterator[NodeProto]:
    yield helper.make_node("QuantizeLinear", [source, "scale", "zero"], [result])


def _layer(name: str, nodes: Sequence[NodeProto], shape: Sequence[int], **constants: Any) -> Layer:
    graph = helper.make_graph(
        list(nodes),
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values), key) for key, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return Layer(name, helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION))


def _values(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
