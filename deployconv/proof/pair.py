"""Two tiny models, the old nodes and the new ones of one site, and what to run them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import prod
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from deployconv.graph.float32_twin import float32_twin
from deployconv.match import Original, Parameter, UpsampleSite
from deployconv.rewrites.lowering import (
    AnyPlan,
    MatrixPlan,
    Plan,
    SeparablePlan,
    Subject,
    new_nodes,
)

Array = NDArray[Any]

AFFORDABLE = 200_000_000
"""Multiplications for which a site is run as it is; larger ones are run smaller."""
_TWINNED = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Trial:
    """Two models, the old nodes and the new ones, with what feeds both."""

    old: ModelProto
    new: ModelProto
    feeds: Mapping[str, Array]
    output: str


def pair(
    subject: Subject,
    plan: AnyPlan,
    original: Original,
    parameters: Sequence[Parameter | None],
    feeds: Mapping[str, Array],
) -> Trial:
    """Both models on ``feeds``.

    Args:
        subject: what is lowered, with integers for weights.
        plan: in which form.
        original: its nodes as they stand, and the constants that old and new nodes read.
        parameters: weights and biases that only the old nodes read.
        feeds: by the name of the input.
    """
    given = {parameter.name: parameter.read() for parameter in parameters if parameter}
    opset, output = subject.scope.opset, subject.output
    old = _model(original.nodes, {**original.constants, **given}, opset, output, feeds)
    number = count()
    constants: dict[str, Array] = dict(original.constants)
    nodes: list[NodeProto] = []
    for node in new_nodes(subject, plan, lambda suffix: f"certificate/{suffix}_{next(number)}"):
        nodes.append(OnnxExporter.export_node(node))
        for tensor in node.inputs:
            # What the new nodes read of the old ones is in ``original``, as integers.
            if isinstance(tensor, gs.Constant) and tensor.name not in constants:
                constants[tensor.name] = tensor.values
    return Trial(old, _model(nodes, constants, opset, output, feeds), feeds, output)


def _model(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    opset: int,
    output: str,
    feeds: Mapping[str, Array],
) -> ModelProto:
    graph = onnx.helper.make_graph(
        nodes,
        "certificate",
        [
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, list(x.shape))
            for name, x in feeds.items()
        ],
        [onnx.helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    # IR version 8 allows initializers that are no inputs and is known to every runtime here.
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return float32_twin(model, _TWINNED)


def sizes_of(
    site: UpsampleSite, plan: Plan | SeparablePlan | MatrixPlan, original: Original
) -> tuple[int, ...]:
    """The site's own sizes where they are known and cheap, or matter; else small, unequal ones."""
    if original.sizes is not None:
        return original.sizes
    known = [size for size in site.sizes if size is not None]
    work = prod(known) * max(plan.macs.before, plan.macs.after)
    if len(known) == site.rank and work <= AFFORDABLE:
        return tuple(known)
    # Beyond the reach of all taps, so that borders and the inside are both there; unequal,
    # so that exchanged axes show.
    reach = [max(form.span, -form.low, form.pads[1]) for form in plan.axes]
    return tuple(
        size if size is not None and size < wanted else wanted
        for size, wanted in zip(site.sizes, (r + 3 + i for i, r in enumerate(reach)), strict=True)
    )
