"""Rewrite a model within what a target takes, and look at the nodes that were written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from deployconv.graph.load import load
from deployconv.options import LayerRequest, RewriteOptions
from deployconv.proof.certificate import certify_sites
from deployconv.restrictions import Restrictions
from deployconv.results import SiteReport
from deployconv.rewrites.planning import apply, plan_model
from tests.build import Feeds, assert_equal, feeds_for, run


def limited(
    model: ModelProto,
    restrictions: Restrictions,
    feeds: Feeds | None = None,
    certify: bool = True,
    **request: object,
) -> tuple[list[SiteReport], ModelProto]:
    """The sites and the rewritten model, whose new nodes obey and which computes the same."""
    asked = LayerRequest(restrictions=restrictions, **request)  # type: ignore[arg-type]
    planning = plan_model(load(model), RewriteOptions(request_for=lambda _: asked))
    if certify:
        planning = certify_sites(planning, 0, None)
        verdicts = {one.certificate for one in planning.reports if one.status == "rewritten"}
        assert verdicts <= {"exact"}
    after = apply(planning).proto
    onnx.checker.check_model(after)
    assert list(disobeyed(model, after, restrictions)) == []
    feeds = feeds_for(model) if feeds is None else feeds
    assert_equal(run(model, feeds), run(after, feeds))
    return list(planning.reports), after


def disobeyed(before: ModelProto, after: ModelProto, limits: Restrictions) -> Iterator[str]:
    """What the nodes that ``after`` has and ``before`` has not do against ``limits``."""
    old = {node.SerializeToString() for node in before.graph.node}
    new = [node for node in after.graph.node if node.SerializeToString() not in old]
    inferred = onnx.shape_inference.infer_shapes(after, data_prop=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    ranks |= {tensor.name: len(tensor.dims) for tensor in after.graph.initializer}
    constants = {one.name: numpy_helper.to_array(one) for one in after.graph.initializer}
    measured = {node.output[0] for node in new if node.op_type == "Shape"}
    for node in new:
        if limits.operators is not None and node.op_type not in limits.operators:
            yield f"operator {node.op_type}"
        if node.op_type == "DepthToSpace" and limits.depth_to_space is not None:
            mode, block = attribute(node, "mode", b"DCR").decode(), attribute(node, "blocksize")
            taken = limits.depth_to_space.get(mode, ())
            if taken is not None and block not in taken:
                yield f"DepthToSpace {mode} {block}"
        for name in filter(None, (*node.input, *node.output)):
            if limits.max_rank is not None and ranks[name] > limits.max_rank:
                yield f"{name} has rank {ranks[name]}"
        if node.op_type == "Slice" and not limits.crops and node.input[0] not in measured:
            yield "a Slice"
        if node.op_type == "Shape" and not limits.computed_shapes:
            yield "Shape"
        if node.op_type == "Reshape":
            stated = attribute(node, "shape") or constants.get(node.input[-1])
            stated = None if stated is None else list(stated)
            if stated is None and not limits.computed_shapes:
                yield "a computed Reshape"
            if stated is not None and 0 in stated and not limits.reshape_zero:
                yield "a Reshape with 0"
            if stated is not None and -1 in stated and not limits.reshape_minus_one:
                yield "a Reshape with -1"
        padded = node.op_type == "ConvTranspose" and any(attribute(node, "pads", []))
        if padded and not limits.transposed_pads:
            yield "a ConvTranspose with pads"
    symbols = (dim.dim_param for value in after.graph.value_info for dim in sizes(value))
    if new and not limits.symbolic_shapes and any(symbols):
        yield "a symbol"


def sizes(value: onnx.ValueInfoProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    yield from value.type.tensor_type.shape.dim


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    found = [one for one in node.attribute if one.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else default
