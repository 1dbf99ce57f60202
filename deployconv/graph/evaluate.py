"""Run a few nodes of a model by the ONNX reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from deployconv.graph.operators import (
    LARGEST,
    ConvTranspose,
    Resize,
    Scatter,
    ScatterElements,
    ScatterND,
    Upsample,
)
from deployconv.graph.quantization import DequantizeLinear, QuantizeLinear

Array = NDArray[Any]

_REPLACED = [
    ConvTranspose,
    DequantizeLinear,
    QuantizeLinear,
    Resize,
    Scatter,
    ScatterElements,
    ScatterND,
    Upsample,
]


def evaluate(
    nodes: Sequence[NodeProto], opset: int, feeds: Mapping[str, Array], outputs: Sequence[str]
) -> list[Array]:
    """The values of ``outputs`` after ``nodes`` ran on ``feeds``, which name all their inputs.

    Raises whatever the evaluator raises for nodes that it cannot run, and NotImplementedError
    for a ConvTranspose whose padding runtimes compute differently.
    """
    for node in nodes:
        stated = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        same = stated.get("auto_pad", b"").startswith(b"SAME")
        if node.op_type == "ConvTranspose" and (same or stated.get("output_shape")):
            raise NotImplementedError("ConvTranspose without explicit pads")
    unknown = onnx.TypeProto()
    graph = onnx.helper.make_graph(
        list(nodes),
        "evaluate",
        [onnx.helper.make_value_info(name, unknown) for name in feeds],
        [onnx.helper.make_value_info(name, unknown) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    evaluator = ReferenceEvaluator(model, new_ops=_REPLACED)
    # Infinity and NaN are results like others.
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in evaluator.run(None, dict(feeds))]


__all__ = ["LARGEST", "evaluate"]
