"""A small writer of graphsurgeon nodes that knows how operators changed between opsets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = Sequence[int]

INT64_MAX = np.iinfo(np.int64).max


class Emitter:
    """Collects nodes; every name is made unique by ``fresh``."""

    def __init__(self, opset: int, fresh: Callable[[str], str]) -> None:
        self.opset = opset
        self.nodes: list[gs.Node] = []
        self._fresh = fresh

    def add(
        self, op: str, inputs: Sequence[gs.Tensor], suffix: str = "", **attrs: Any
    ) -> gs.Tensor:
        """Add a node with one output and return that output."""
        name = self._fresh(suffix or op.lower())
        output = gs.Variable(name)
        self.nodes.append(gs.Node(op, name, attrs, list(inputs), [output]))
        return output

    def constant(self, suffix: str, values: Array) -> gs.Constant:
        """A constant; the splice makes it an initializer, or a node inside a function."""
        return gs.Constant(self._fresh(suffix), np.ascontiguousarray(values))

    def ints(self, suffix: str, values: Ints) -> gs.Constant:
        """A 1-D int64 constant: shapes, axes, sizes."""
        return self.constant(suffix, np.array(values, np.int64))

    def reshape(self, tensor: gs.Tensor, shape: Ints | gs.Tensor) -> gs.Tensor:
        """Reshape; before opset 5 the shape is an attribute and so must be known."""
        if isinstance(shape, gs.Tensor):
            return self.add("Reshape", [tensor, shape])
        if self.opset < 5:
            return self.add("Reshape", [tensor], shape=list(shape))
        return self.add("Reshape", [tensor, self.ints("shape", shape)])

    def reshape_to_image(
        self, tensor: gs.Tensor, front: Ints, sizes: Sequence[int | None], image: gs.Tensor
    ) -> gs.Tensor:
        """Reshape to ``[*front, *sizes]``: the sizes of ``image``, which say what is not known.

        More than one of these is found as the model runs, from opset 5 on.
        """
        if sum(size is None for size in sizes) <= 1:
            return self.reshape(tensor, [*front, *(-1 if size is None else size for size in sizes)])
        ends = [self.ints("front", front), self.spatial_shape(image)]
        return self.reshape(tensor, self.add("Concat", ends, axis=0))

    def slice(self, tensor: gs.Tensor, starts: Ints, ends: Ints, axes: Ints) -> gs.Tensor:
        """Slice; before opset 10 the bounds are attributes."""
        starts, ends, axes = list(starts), list(ends), list(axes)
        if self.opset < 10:
            return self.add("Slice", [tensor], starts=starts, ends=ends, axes=axes)
        bounds = {"starts": starts, "ends": ends, "axes": axes}
        inputs = [self.ints(name, values) for name, values in bounds.items()]
        return self.add("Slice", [tensor, *inputs])

    def spatial_shape(self, tensor: gs.Tensor) -> gs.Tensor:
        """The sizes behind batch and channels, as the model runs."""
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

    def finish(self, output: str) -> list[gs.Node]:
        """The nodes, the last one's output named ``output``."""
        self.nodes[-1].outputs[0].name = output
        return self.nodes
