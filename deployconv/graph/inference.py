"""Infer shapes as onnxruntime computes them, where it departs from ONNX.

A Resize that keeps the aspect ratio ignores its negative axes in onnxruntime: they keep their
sizes. ONNX infers the sizes that the standard asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import onnx
from onnx import ModelProto, NodeProto

from deployconv.graph.tensors import is_onnx, nested


def infer(model: ModelProto, check_type: bool = False) -> ModelProto:
    """A copy of ``model`` with inferred shapes. Raises what ONNX's shape inference raises.

    The output of a Resize that ignores axes has unknown sizes: onnxruntime checks a model by the
    sizes of ONNX and runs it with its own, so neither can be relied on. Its type and rank are kept.
    """
    infer_shapes = partial(onnx.shape_inference.infer_shapes, check_type=check_type, data_prop=True)
    inferred: ModelProto = infer_shapes(model)
    places = [place for place, node in enumerate(_nodes(model)) if _ignores_axes(node)]
    if not places:
        return inferred
    changed = ModelProto()
    changed.CopyFrom(model)
    nodes = list(_nodes(changed))
    made = {nodes[place].output[0] for place in places}
    declared = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    for value in inferred.graph.value_info:
        if value.name in made - declared:
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()
            changed.graph.value_info.add().CopyFrom(value)
    # Nothing is inferred through an operator that ONNX does not know.
    for place in places:
        nodes[place].op_type = "ResizeOfUnknownSizes"
    inferred = infer_shapes(changed)
    before, after = list(_nodes(model)), list(_nodes(inferred))
    for place in places:
        after[place].CopyFrom(before[place])
    return inferred


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for owner in (model.graph, *model.functions):
        for graph in nested(owner):
            yield from graph.node


def _ignores_axes(node: NodeProto) -> bool:
    """Whether a Resize keeps the aspect ratio and has a negative axis, which is ignored then."""
    if node.op_type != "Resize" or not is_onnx(node.domain):
        return False
    given = {attribute.name: attribute for attribute in node.attribute}
    if "axes" not in given or "keep_aspect_ratio_policy" not in given:
        return False
    keeps = given["keep_aspect_ratio_policy"].s not in (b"", b"stretch")
    return keeps and min(given["axes"].ints, default=0) < 0
