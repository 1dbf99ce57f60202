"""The step of outputs that are quantized: what one rounding at a tie moves them by.

    ... -> QuantizeLinear (-> movement) -> y         integers: one
    ... -> QuantizeLinear -> DequantizeLinear (-> movement) -> y      floats: the scale

Two right implementations of a layer add in another order, and a sum that lies at the border of
two steps goes to one or the other. No smaller difference than a step can be asked of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto

from deployconv.errors import ModelError
from deployconv.graph.tensors import read_tensor
from deployconv.runtimes.base import ModelSource

_MOVES = frozenset(
    [
        "DepthToSpace",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)
"""What passes its first input on, whatever the values."""


def output_steps(source: ModelSource) -> dict[str, float]:
    """The step of every quantized output of a model file or serialized model, by its name.

    Outputs that anything but movement follows on the way from the grid are not listed.
    """
    try:
        model = _read(source)
    except (OSError, DecodeError):
        return {}
    producers = {name: node for node in model.graph.node for name in node.output}
    folder = None if isinstance(source, bytes) else Path(source).parent
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    steps = {}
    for output in model.graph.output:
        node = _behind_movement(output.name, producers)
        step = None if node is None else _step(node, producers, constants, folder)
        if step is not None:
            steps[output.name] = step
    return steps


def _read(source: ModelSource) -> ModelProto:
    if isinstance(source, bytes):
        return onnx.load_model_from_string(source)
    return onnx.load(source, load_external_data=False)


def _behind_movement(name: str, producers: Mapping[str, NodeProto]) -> NodeProto | None:
    """What computes the tensor, past the nodes that only move it."""
    node = producers.get(name)
    while node is not None and node.domain in ("", "ai.onnx") and node.op_type in _MOVES:
        node = producers.get(node.input[0])
    return node


def _step(
    node: NodeProto,
    producers: Mapping[str, NodeProto],
    constants: Mapping[str, TensorProto],
    folder: Path | None,
) -> float | None:
    if node.op_type in ("QuantizeLinear", "QLinearConv"):
        return 1.0
    if node.op_type != "DequantizeLinear" or node.input[1] not in constants:
        return None
    origin = _behind_movement(node.input[0], producers)
    if origin is None or origin.op_type not in ("QuantizeLinear", "QLinearConv"):
        return None
    try:
        scale = read_tensor(constants[node.input[1]], folder).astype(np.float64)
    except ModelError:
        return None
    step = float(np.max(np.abs(scale), initial=0.0))
    return step if np.isfinite(step) and step > 0 else None
