"""Tiny models for the tests of backends and proof, built with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

FLOAT, DOUBLE, BFLOAT16 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16
INT64 = TensorProto.INT64


def value(name: str, dtype: int, shape: Sequence[Any] | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def constant(name: str, values: Any, dtype: int = FLOAT) -> TensorProto:
    array = np.asarray(values).astype(helper.tensor_dtype_to_np_dtype(dtype))
    return numpy_helper.from_array(array, name)


def graph(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
) -> GraphProto:
    return helper.make_graph(nodes, "tiny", inputs, outputs, list(initializers))


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: Sequence[TensorProto] = (),
    opset: int = 17,
    **rest: Any,
) -> ModelProto:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    body = graph(nodes, inputs, outputs, initializers)
    return helper.make_model(body, opset_imports=opsets, ir_version=10, **rest)


def upsampler(
    dtype: int = FLOAT, scale: float = 1.0, shape: Sequence[Any] = (1, 2, 5, 5), **attributes: Any
) -> ModelProto:
    """One ConvTranspose, 2 to 3 channels, k4 s2 p1; its weights times ``scale``."""
    weight = np.random.default_rng(7).standard_normal((2, 3, 4, 4)) * scale
    geometry = {"strides": [2, 2], "pads": [1, 1, 1, 1], **attributes}
    return model(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], **geometry)],
        [value("x", dtype, shape)],
        [value("y", dtype, [None] * len(shape))],
        [constant("w", weight, dtype)],
        opset=22,
    )


def unary(op: str, dtype: int = FLOAT, shape: Sequence[Any] | None = ("n", 2)) -> ModelProto:
    """One operator from ``x`` to ``y``."""
    return model(
        [helper.make_node(op, ["x"], ["y"])], [value("x", dtype, shape)], [value("y", dtype, None)]
    )
