"""The emitter: collects new nodes, and knows how operators changed between opsets.

Below it stand the functions that write weights and biases, float or integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.ir.tensor import LazyValues

from deployconv.errors import ModelError
from deployconv.match import Parameter, Quantized, UpsampleSite
from deployconv.match.site import AxisMove

Array = NDArray[Any]
Ints = Sequence[int]

INT64_MAX = np.iinfo(np.int64).max


class _MadeWhenRead(LazyValues):  # type: ignore[misc]
    """Values of a constant that are made when they are read or exported."""

    def __init__(
        self, shape: Sequence[int], dtype: np.dtype[Any], make: Callable[[], Array]
    ) -> None:
        self.shape = list(shape)
        self.dtype = dtype
        self.nbytes = prod(shape) * dtype.itemsize
        self._make = make

    def load(self) -> Array:
        return np.ascontiguousarray(self._make())

    @property
    def tensor(self) -> TensorProto:
        """The values as the exporter writes them, without a name."""
        made: TensorProto = OnnxExporter.export_tensor_proto(gs.Constant("", self.load()))
        return made


class Emitter:
    """Collects new nodes in graph order.

    Args:
        opset: version of the ONNX operators to write.
        fresh: makes a name that the model does not have from a short suffix.
    """

    def __init__(self, opset: int, fresh: Callable[[str], str]) -> None:
        self.opset = opset
        self.nodes: list[gs.Node] = []
        self.fresh = fresh

    def add(
        self, op: str, inputs: Sequence[gs.Tensor], suffix: str = "", **attrs: Any
    ) -> gs.Tensor:
        """Add a node with one output and return that output."""
        name = self.fresh(suffix or op.lower())
        output = gs.Variable(name)
        self.nodes.append(gs.Node(op, name, attrs, list(inputs), [output]))
        return output

    def constant(self, suffix: str, values: Array) -> gs.Constant:
        """A constant; the splice makes it an initializer, or a node inside a function."""
        return gs.Constant(self.fresh(suffix), np.ascontiguousarray(values))

    def weight(
        self, suffix: str, shape: Sequence[int], dtype: np.dtype[Any], make: Callable[[], Array]
    ) -> gs.Constant:
        """A constant whose values ``make`` returns when they are read.

        A model that is only looked at never reads them, and one that is written holds those of
        one constant at a time.
        """
        return gs.Constant(self.fresh(suffix), _MadeWhenRead(shape, dtype, make))

    def ints(self, suffix: str, values: Ints) -> gs.Constant:
        """A 1-D int64 constant: shapes, axes, sizes."""
        return self.constant(suffix, np.array(values, np.int64))

    def reshape(self, tensor: gs.Tensor, shape: Sequence[int | gs.Tensor]) -> gs.Tensor:
        """Reshape; a tensor in ``shape`` is 1-D and stands for as many sizes as it holds.

        Before opset 5 the shape is an attribute, so all sizes must be known. A -1 cannot be
        resolved beside a size that is 0.
        """
        if self.opset < 5:
            return self.add("Reshape", [tensor], shape=list(shape))
        parts: list[gs.Tensor] = []
        for computed, run in groupby(shape, lambda part: isinstance(part, gs.Tensor)):
            sizes = list(run)
            parts += sizes if computed else [self.ints("shape", sizes)]
        target = parts[0] if len(parts) == 1 else self.add("Concat", parts, axis=0)
        return self.add("Reshape", [tensor, target])

    def reshape_by(
        self, tensor: gs.Tensor, measured: gs.Tensor, factors: Ints, added: Ints
    ) -> gs.Tensor:
        """Reshape to the sizes of ``measured`` times ``factors`` plus ``added``, from opset 7 on.

        A size that comes to 0 stays as it is. Sizes are not concatenated: onnxruntime 1.32 would
        make a -1 of one that is computed, and cannot resolve that if the batch is empty.
        """
        scaled = self.add("Mul", [self.add("Shape", [measured]), self.ints("factors", factors)])
        return self.reshape(tensor, [self.add("Add", [scaled, self.ints("added", added)])])

    def flatten_pixels(self, tensor: gs.Tensor, channels: int) -> gs.Tensor:
        """Reshape ``[N, C, i_1 .. i_n]`` to ``[N, C, i_1 * .. * i_n]``; N may be 0."""
        pixels = self.unsqueeze(self.add("Flatten", [tensor], axis=2), [1])
        return self.reshape(pixels, [-1, channels, 0])

    def unsqueeze(self, tensor: gs.Tensor, axes: Ints) -> gs.Tensor:
        """Unsqueeze; before opset 13 the axes are an attribute."""
        return self._with_axes("Unsqueeze", tensor, axes)

    def squeeze(self, tensor: gs.Tensor, axes: Ints) -> gs.Tensor:
        """Squeeze; before opset 13 the axes are an attribute."""
        return self._with_axes("Squeeze", tensor, axes)

    def _with_axes(self, op: str, tensor: gs.Tensor, axes: Ints) -> gs.Tensor:
        if self.opset < 13:
            return self.add(op, [tensor], axes=list(axes))
        return self.add(op, [tensor, self.ints("axes", axes)])

    def reshape_to_image(
        self, tensor: gs.Tensor, leading: Ints, sizes: Sequence[int | None], image: gs.Tensor
    ) -> gs.Tensor:
        """Reshape to ``[*leading, *sizes]``; unknown sizes are those of ``image``.

        If more than one is unknown they are read as the model runs, from opset 5 on.
        """
        if sum(size is None for size in sizes) <= 1:
            return self.reshape(
                tensor, [*leading, *(-1 if size is None else size for size in sizes)]
            )
        return self.reshape(tensor, [*leading, self.spatial_shape(image)])

    def slice(self, tensor: gs.Tensor, starts: Ints, ends: Ints, axes: Ints) -> gs.Tensor:
        """Slice; before opset 10 the bounds are attributes."""
        starts, ends, axes = list(starts), list(ends), list(axes)
        if self.opset < 10:
            return self.add("Slice", [tensor], starts=starts, ends=ends, axes=axes)
        bounds = {"starts": starts, "ends": ends, "axes": axes}
        inputs = [self.ints(name, values) for name, values in bounds.items()]
        return self.add("Slice", [tensor, *inputs])

    def crop(self, tensor: gs.Tensor, ends: Sequence[tuple[int, int]]) -> gs.Tensor:
        """Remove elements at the ends of the spatial axes by a Slice; nothing if there are none.

        ``ends`` has (begin, end) of each.
        """
        cropped = [axis for axis, pair in enumerate(ends) if any(pair)]
        if not cropped:
            return tensor
        return self.slice(
            tensor,
            [ends[axis][0] for axis in cropped],
            [-ends[axis][1] or INT64_MAX for axis in cropped],
            [axis + 2 for axis in cropped],
        )

    def split(self, tensor: gs.Tensor, parts: int, size: int) -> list[gs.Tensor]:
        """Split the channels into ``parts`` of this ``size``; before opset 13 by an attribute."""
        name = self.fresh("split")
        made = [gs.Variable(self.fresh("part")) for _ in range(parts)]
        sizes = [size] * parts
        old = {"split": sizes} if self.opset < 13 else {}
        inputs = [tensor] if old else [tensor, self.ints("sizes", sizes)]
        self.nodes.append(gs.Node("Split", name, {"axis": 1, **old}, inputs, made))
        return made

    def spatial_shape(self, tensor: gs.Tensor) -> gs.Tensor:
        """The sizes of the spatial axes, read as the model runs."""
        return self.slice(self.add("Shape", [tensor]), [2], [INT64_MAX], [0])

    def repeat(self, tensor: gs.Tensor, factors: Ints) -> gs.Tensor:
        """Repeat every element along the spatial axes: nearest Resize by whole factors."""
        scales = np.array([1, 1, *factors], np.float32)
        if self.opset < 9:
            return self.add("Upsample", [tensor], "repeat", mode="nearest", scales=scales.tolist())
        given = self.constant("scales", scales)
        if self.opset < 11:
            op = "Upsample" if self.opset < 10 else "Resize"
            return self.add(op, [tensor, given], "repeat", mode="nearest")
        modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        roi = gs.Variable.empty()
        if self.opset < 13:  # the region of interest may be empty, but not left out
            roi = self.constant("roi", np.zeros(0, np.float32))
        return self.add("Resize", [tensor, roi, given], "repeat", mode="nearest", **modes)

    def move_axes(self, tensor: gs.Tensor, move: AxisMove) -> gs.Tensor:
        """Transpose, Squeeze or Unsqueeze."""
        if move.op == "Transpose":
            return self.add("Transpose", [tensor], perm=list(move.axes))
        return self._with_axes(move.op, tensor, move.axes)

    def edge_pad(self, tensor: gs.Tensor, pads: Sequence[tuple[int, int]]) -> gs.Tensor:
        """Pad the spatial axes by the nearest element; the image itself if there is nothing to pad.

        ``pads`` has (begin, end) of each. Before opset 11 they are an attribute.
        """
        if not any(begin or end for begin, end in pads):
            return tensor
        begins, ends = zip(*pads, strict=True)
        values = [0, 0, *begins, 0, 0, *ends]
        if self.opset < 11:
            return self.add("Pad", [tensor], "edges", mode="edge", pads=values)
        return self.add("Pad", [tensor, self.ints("pads", values)], "edges", mode="edge")

    def edge_concat(self, tensor: gs.Tensor, pads: Sequence[tuple[int, int]]) -> gs.Tensor:
        """Pad like `edge_pad`, for runtimes without such a Pad: Slices and a Concat per axis.

        From opset 4 on.
        """
        for axis, (begin, end) in enumerate(pads, start=2):
            first = [self.slice(tensor, [0], [1], [axis])] * begin if begin else []
            last = [self.slice(tensor, [-1], [INT64_MAX], [axis])] * end if end else []
            if first or last:
                tensor = self.add("Concat", [*first, tensor, *last], "edges", axis=axis)
        return tensor

    def finish(self, output: str) -> list[gs.Node]:
        """Return all nodes; the output of the last one is named ``output``."""
        self.nodes[-1].outputs[0].name = output
        return self.nodes


def finish_layer(emitter: Emitter, site: UpsampleSite) -> None:
    """Write the moves of axes that ``site`` ends in, and name the last output."""
    tensor = emitter.nodes[-1].outputs[0]
    for move in site.tail:
        tensor = emitter.move_axes(tensor, move)
    emitter.finish(site.output)


def conv_attributes(
    kernel: Sequence[int], pads: Sequence[tuple[int, int]], group: int = 1
) -> dict[str, Any]:
    """The attributes of a Conv of stride 1; those that state a default are left out."""
    begins, ends = zip(*pads, strict=True)
    attributes: dict[str, Any] = {"kernel_shape": list(kernel)}
    if any(begins) or any(ends):
        attributes["pads"] = [*begins, *ends]
    if group > 1:
        attributes["group"] = group
    return attributes


def finite(parameter: Parameter, site: str) -> Array:
    """The values of a weight or bias, all of them finite.

    Raises ModelError if one is NaN or infinite, or if they do not have the declared shape.
    """
    values = parameter.read()
    _check_shape(values, parameter, site)
    if not np.isfinite(values).all():
        raise ModelError(
            f"{site}: '{parameter.name}' holds NaN or infinite values: check the training or"
            f" export that made it"
        )
    return values


def _check_shape(values: Array, parameter: Parameter, site: str) -> None:
    """Raise ModelError if ``values`` do not have the declared shape of ``parameter``."""
    if values.shape != parameter.shape:
        raise ModelError(
            f"{site}: '{parameter.name}' has shape {list(values.shape)}, declared"
            f" {list(parameter.shape)}: export the model again"
        )


def write_parameter(
    emitter: Emitter, suffix: str, parameter: Parameter, site: str, moved: Callable[[Array], Array]
) -> gs.Tensor:
    """A weight or bias whose output channels, axis 0, are arranged by ``moved``.

    Integers after a DequantizeLinear stay integers.
    """
    quantized = parameter.quantized
    if quantized is None:
        return emitter.constant(suffix, moved(finite(parameter, site)))
    integers = integers_of(parameter, quantized, site)
    return write_dequantized(emitter, suffix, quantized, moved(integers), moved)


def write_dequantized(
    emitter: Emitter,
    suffix: str,
    quantized: Quantized,
    integers: Array,
    by_channel: Callable[[Array], Array],
) -> gs.Tensor:
    """Write integers followed by a DequantizeLinear, without new rounding.

    Args:
        emitter: collects the nodes.
        suffix: name of the integers.
        quantized: their scale and zero point, for the channels in their old order.
        integers: the new initializer, its output channels on axis 0.
        by_channel: turns one value per old channel into one per new channel.
    """
    inputs = [emitter.constant(suffix, integers)]
    scales = {"scale": quantized.scale, "zero_point": quantized.zero_point}
    for name, values in scales.items():
        if values is not None:
            spread = values if values.ndim == 0 else by_channel(values)
            inputs.append(emitter.constant(f"{suffix}_{name}", spread))
    axis = {} if quantized.scale.ndim == 0 else {"axis": 0}
    return emitter.add("DequantizeLinear", inputs, f"{suffix}_dequantized", **axis)


def write_requantized(emitter: Emitter, suffix: str, weight: Array) -> gs.Tensor:
    """A float64 ``weight`` as new integers with new scales and a DequantizeLinear after them."""
    integers, scale = requantized(weight)
    quantized = Quantized(
        integers.dtype, lambda: integers, scale, np.zeros(scale.shape, np.int8), None
    )
    return write_dequantized(emitter, suffix, quantized, integers, np.asarray)


def requantized(weight: Array) -> tuple[Array, Array]:
    """The int8 integers and float32 scales nearest to ``weight``, one scale per output channel.

    Symmetric: the largest magnitude of a channel (axis 0) becomes 127, zero stays zero.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    steps = weight / scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(steps), -127, 127).astype(np.int8), scale


def integers_of(parameter: Parameter, quantized: Quantized, site: str) -> Array:
    """The integers of ``parameter``; ModelError if they or the scales cannot be used."""
    values = quantized.read()
    _check_shape(values, parameter, site)
    if not np.isfinite(quantized.scale).all():
        raise ModelError(
            f"{site}: '{parameter.name}' has a scale that is NaN or infinite: check the"
            f" calibration that made it"
        )
    return values
