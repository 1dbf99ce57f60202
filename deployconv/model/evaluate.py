"""Run a few nodes of a model by the ONNX reference evaluator.

ScatterND, Resize and Upsample are replaced by vectorised implementations: the evaluator's own
loop over elements in Python. Resize is the nearest one only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from deployconv.model.nearest import nearest_sources, resize_sizes

Array = NDArray[Any]


def evaluate(
    nodes: Sequence[NodeProto], opset: int, feeds: Mapping[str, Array], outputs: Sequence[str]
) -> list[Array]:
    """The values of ``outputs`` after ``nodes`` ran on ``feeds``, which name all their inputs.

    Raises whatever the evaluator raises for nodes that it cannot run.
    """
    unknown = onnx.TypeProto()
    graph = onnx.helper.make_graph(
        list(nodes),
        "evaluate",
        [onnx.helper.make_value_info(name, unknown) for name in feeds],
        [onnx.helper.make_value_info(name, unknown) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    evaluator = ReferenceEvaluator(model, new_ops=[_ScatterND, _Resize, _Upsample])
    return [np.asarray(array) for array in evaluator.run(None, dict(feeds))]


class _ScatterND(OpRun):
    op_domain = ""
    op_type = "ScatterND"

    def _run(
        self, data: Array, indices: Array, updates: Array, reduction: str | None = None
    ) -> tuple[Array]:
        if reduction not in (None, "none"):
            raise NotImplementedError(f"ScatterND with reduction {reduction}")
        result = data.copy()
        result[tuple(np.moveaxis(indices, -1, 0))] = updates
        return (result,)


class _Resize(OpRun):
    op_domain = ""
    op_type = "Resize"

    def _run(self, data: Array, *inputs: Array | None, **attributes: Any) -> tuple[Array]:
        if attributes.get("mode") != "nearest":
            raise NotImplementedError(f"Resize with mode {attributes.get('mode')}")
        # Opset 10 has (X, scales), later ones (X, roi, scales, sizes).
        scales, sizes = (inputs[0], None) if len(inputs) == 1 else (*inputs[1:], None, None)[:2]
        return (_nearest(data, scales, sizes, attributes),)


class _Upsample(OpRun):
    op_domain = ""
    op_type = "Upsample"

    def _run(self, data: Array, scales: Array | None = None, **attributes: Any) -> tuple[Array]:
        if attributes.get("mode") not in (None, "nearest"):
            raise NotImplementedError(f"Upsample with mode {attributes.get('mode')}")
        given = attributes["scales"] if scales is None else scales
        plain = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return (_nearest(data, np.asarray(given, np.float32), None, plain),)


def _nearest(
    data: Array, scales: Array | None, sizes: Array | None, attributes: Mapping[str, Any]
) -> Array:
    for axis, (size, scale) in enumerate(resize_sizes(data.shape, scales, sizes, attributes)):
        if (size, scale) != (data.shape[axis], 1.0):
            sources = nearest_sources(
                data.shape[axis],
                size,
                scale,
                attributes["coordinate_transformation_mode"],
                attributes["nearest_mode"],
            )
            data = data.take(sources, axis=axis)
    return data
