"""Take the upsampling layers of a model out of it, each as a model of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnx import shape_inference
from onnx.utils import Extractor

import deployconv


def layers_alone(
    model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield each layer that `deployconv` rewrites, as it is exported, with its id.

    Args:
        model: a model without subgraphs; it is not changed.
        shapes: the sizes of its inputs.
    """
    fixed = _with_sizes(model, shapes)
    constants = _constants(fixed)
    extractor = Extractor(fixed)
    for site in deployconv.inspect(fixed).sites:
        if site.status != "rewritten":
            continue
        nodes = [node for node in fixed.graph.node if (node.name or node.output[0]) in site.nodes]
        made = {name for node in nodes for name in node.output}
        read = {name for node in nodes for name in node.input if name}
        yield (
            site.id,
            extractor.extract_model(sorted(read - made - constants), sorted(made - read)),
        )


def _with_sizes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """The same model for one size of its inputs, with the shapes of all tensors."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for given in fixed.graph.input:
        sizes = given.type.tensor_type.shape.dim
        for dim, size in zip(sizes, shapes[given.name], strict=True):
            dim.dim_value = size
    for result in fixed.graph.output:
        for dim in result.type.tensor_type.shape.dim:
            dim.Clear()
    return shape_inference.infer_shapes(fixed, data_prop=True)


def _constants(model: onnx.ModelProto) -> set[str]:
    """The names of all that no input of the model has a part in, such as folded weights."""
    found = {one.name for one in model.graph.initializer} | {""}
    for node in model.graph.node:
        if found.issuperset(node.input):
            found.update(node.output)
    return found
