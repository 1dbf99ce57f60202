"""Infer shapes as onnxruntime computes them, where it departs from ONNX.

A Resize that keeps the aspect ratio ignores its negative axes in onnxruntime: they keep their
sizes. ONNX infers the sizes that the standard asks for.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ModelProto, NodeProto

from deployconv.graph.tensors import is_onnx, nested


def infer(model: ModelProto, check_type: bool = False) -> ModelProto:
    """A copy of ``model`` with inferred shapes. Raises what ONNX's shape inference raises.

    Such a Resize has an output of unknown sizes: what stands there follows neither rule for sure,
    as onnxruntime checks models by the sizes of ONNX and runs them with its own.
    """
    places = [place for place, node in enumerate(_nodes(model)) if _ignored(node)]
    if not places:
        return onnx.shape_inference.infer_shapes(model, check_type=check_type, data_prop=True)
    changed = ModelProto()
    changed.CopyFrom(model)
    nodes = list(_nodes(changed))
    made = {nodes[place].output[0] for place in places}
    declared = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    plain = onnx.shape_inference.infer_shapes(model, check_type=check_type, data_prop=True)
    for value in plain.graph.value_info:
        if value.name in made - declared:
            for dim in value.type.tensor_type.shape.dim:
                dim.Clear()
            changed.graph.value_info.add().CopyFrom(value)
    for place in places:
        nodes[place].op_type = "ResizeOfUnknownSizes"
    inferred = onnx.shape_inference.infer_shapes(changed, check_type=check_type, data_prop=True)
    before, after = list(_nodes(model)), list(_nodes(inferred))
    for place in places:
        after[place].CopyFrom(before[place])
    return inferred


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    for owner in (model.graph, *model.functions):
        for graph in nested(owner):
            yield from graph.node


def _ignored(node: NodeProto) -> list[int]:
    """The axes of a Resize that keeps the aspect ratio, if one is negative."""
    if node.op_type != "Resize" or not is_onnx(node.domain):
        return []
    given = {attribute.name: attribute for attribute in node.attribute}
    if "axes" not in given or "keep_aspect_ratio_policy" not in given:
        return []
    axes = list(given["axes"].ints)
    keeps = given["keep_aspect_ratio_policy"].s not in (b"", b"stretch")
    return axes if keeps and min(axes, default=0) < 0 else []
