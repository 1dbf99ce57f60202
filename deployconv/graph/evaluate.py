"""Run a few nodes of a model by the ONNX reference evaluator, with operators corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto

from deployconv.graph.nearest import resize, upsample

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

Array = NDArray[Any]

_RESIZES = {"Resize": resize, "Upsample": upsample}
"""What `evaluate` computes by itself: most models have no other operator that is evaluated."""


def evaluate(
    nodes: Sequence[NodeProto], opset: int, feeds: Mapping[str, Array], outputs: Sequence[str]
) -> list[Array]:
    """The values of ``outputs`` after ``nodes`` ran on ``feeds``, which name all their inputs.

    Raises whatever the evaluator raises for nodes that it cannot run, and NotImplementedError
    for a ConvTranspose whose padding runtimes compute differently.
    """
    if all(map(_is_resize, nodes)):
        return _resized(nodes, feeds, outputs)
    for node in nodes:
        stated = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        same = stated.get("auto_pad", b"").startswith(b"SAME")
        if node.op_type == "ConvTranspose" and (same or stated.get("output_shape")):
            raise NotImplementedError("ConvTranspose without explicit pads")
    from deployconv.graph.reference_operators import OPERATORS

    return run_reference(nodes, opset, feeds, outputs, OPERATORS)


def run_reference(
    nodes: Sequence[NodeProto],
    opset: int,
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    operators: list[type[OpRun]] | None = None,
) -> list[Array]:
    """The values of ``outputs`` by the ONNX reference evaluator, some ``operators`` replaced."""
    # The evaluator takes long to import, and few models need it.
    from onnx.reference import ReferenceEvaluator

    unknown = onnx.TypeProto()
    graph = onnx.helper.make_graph(
        list(nodes),
        "evaluate",
        [onnx.helper.make_value_info(name, unknown) for name in feeds],
        [onnx.helper.make_value_info(name, unknown) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    evaluator = ReferenceEvaluator(model, new_ops=operators)
    # Infinity and NaN are results like others.
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in evaluator.run(None, dict(feeds))]


def _is_resize(node: NodeProto) -> bool:
    of_function = any(attribute.ref_attr_name for attribute in node.attribute)
    return node.op_type in _RESIZES and not node.domain and not of_function


def _resized(
    nodes: Sequence[NodeProto], feeds: Mapping[str, Array], outputs: Sequence[str]
) -> list[Array]:
    """The values of ``outputs`` after ``nodes``, each a Resize or Upsample, ran on ``feeds``."""
    known: dict[str, Array | None] = {**feeds, "": None}
    for node in nodes:
        # Defaults are those of the newest opset, as the evaluator has them.
        schema = onnx.defs.get_schema(node.op_type)
        stated = {a.name: _value(a) for a in node.attribute}
        defaults = {
            name: _value(attribute.default_value)
            for name, attribute in schema.attributes.items()
            if name not in stated and attribute.default_value.type
        }
        data, *inputs = [known[name] for name in node.input]
        assert data is not None
        known[node.output[0]] = _RESIZES[node.op_type](data, inputs, {**defaults, **stated})
    return [np.asarray(known[name]) for name in outputs]


def _value(attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value
