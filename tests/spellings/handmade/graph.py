"""One hand-made graph: its text, its constants, its oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from tests.spellings import oracle
from tests.spellings.corpus import Array, Family, Run, Shape, example, run_of

IMAGE: Shape = (2, 2, 3, 4)
KERNEL: Shape = (3, 2, 3, 3)
NEAREST = 'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"'
"""Attributes of a Resize whose element ``o`` is ``x[o // scale]``."""

_IR_VERSIONS = {1: 3, 9: 4, 10: 5, 11: 6, 13: 7, 15: 8, 19: 9}
"""Opset -> the IR version it came with, for those where it rose."""


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def conv(x: Array) -> Array:
    """What the Conv with ``w``, ``b`` and a pad of one makes of its input."""
    return oracle.conv(x, oracle.weight(KERNEL), oracle.bias(KERNEL[0]))


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph with input ``x`` and output ``y``.

    Attributes:
        opset: of the ONNX operators.
        body: the nodes, as text for onnx.parser.
        oracle: the output that inputs have.
        constants: initializers by name; ``w`` and ``b`` of a Conv 3x3 are there without.
        shape: of the input at export.
        dims: the input's dimensions as declared, e.g. ``N,2,H,W``; static if empty.
        rank_out: number of dimensions of the output.
        kernel: shape of ``w``.
        overridable: names of initializers that are graph inputs too.
    """

    name: str
    family: Family
    opset: int
    body: str
    oracle: Callable[[Array], Array]
    constants: Mapping[str, Any] = field(default_factory=dict)
    stride: Shape | None = (2, 2)
    expect: str | None = "rewritten"
    shape: Shape = IMAGE
    dims: str = ""
    kernel: Shape = KERNEL
    overridable: tuple[str, ...] = ()

    @property
    def dynamic(self) -> bool:
        """True where a dimension has a name instead of a size."""
        return bool(self.dims)

    @property
    def runs(self) -> tuple[Run, ...]:
        """What the graph must compute; at two sizes if dynamic."""
        shapes = [self.shape]
        if self.dynamic:
            dims = self.dims.split(",")
            pairs = zip(self.shape, dims, strict=True)
            shapes.append(tuple(size if dim.isdigit() else size + 1 for size, dim in pairs))
        return tuple(run_of((shape,), self.oracle(example(shape))) for shape in shapes)

    def model(self) -> onnx.ModelProto:
        """The graph as a model that onnx.checker accepts."""
        made = {"w": oracle.weight(self.kernel), "b": oracle.bias(self.kernel[0]), **self.constants}
        dims = self.dims or ",".join(map(str, self.shape))
        inputs = [f"float[{dims}] x"]
        for name in self.overridable:
            kind = {"float32": "float", "int64": "int64"}[made[name].dtype.name]
            inputs.append(f"{kind}[{','.join(map(str, made[name].shape))}] {name}")
        output = self.runs[0].output
        declared = [f"o{axis}" for axis in range(len(output))] if self.dynamic else output
        version = max(value for opset, value in _IR_VERSIONS.items() if opset <= self.opset)
        model = parser.parse_model(
            f'<ir_version: {version}, opset_import: ["" : {self.opset}]> {self.name} '
            f"({', '.join(inputs)}) => (float[{','.join(map(str, declared))}] y) {{ {self.body} }}"
        )
        used = {name for node in model.graph.node for name in node.input}
        for name, value in made.items():
            if name in used:
                model.graph.initializer.append(numpy_helper.from_array(value, name))
                if version < 4 and name not in self.overridable:  # IR 3: also an input
                    dtype = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                    model.graph.input.append(
                        onnx.helper.make_tensor_value_info(name, dtype, value.shape)
                    )
        return model
