"""What TensorRT accepts in silence though it is broken, refused before it sees it.

Files that are no models, unknown opsets and models without outputs are refused on loading;
this is what the ONNX checker passes too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto

from deployconv.errors import ModelError
from deployconv.graph.tensors import graph_attributes

_WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "ConvInteger"})
_PER_AXIS = ("kernel_shape", "strides", "dilations", "output_padding")
_LARGEST_DIM = (1 << 31) - 1


def refuse_what_tensorrt_overlooks(model: ModelProto, name: str) -> None:
    """Raise ModelError where ``model`` has inconsistent attributes or an impossible size."""
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value > _LARGEST_DIM:
                raise ModelError(
                    f"{name}: input '{value.name}' has a dimension of {dim.dim_value}, which "
                    "TensorRT cannot count: export the model with real or dynamic sizes"
                )
    for function in model.functions:
        _check(function.node, {}, name)
    _check_graph(model.graph, {}, name)


def _check_graph(graph: GraphProto, outer: Mapping[str, int], name: str) -> None:
    ranks = {**outer, **{tensor.name: len(tensor.dims) for tensor in graph.initializer}}
    _check(graph.node, ranks, name)


def _check(nodes: Iterable[NodeProto], ranks: Mapping[str, int], name: str) -> None:
    for node in nodes:
        if node.op_type in _WINDOWED and node.domain in ("", "ai.onnx"):
            _check_windowed(node, ranks, name)
        for _, body in graph_attributes(node):
            _check_graph(body, ranks, name)


def _check_windowed(node: NodeProto, ranks: Mapping[str, int], name: str) -> None:
    """Every list of ``node`` must speak of the same number of spatial axes."""
    axes = dict(_axes(node))
    weight = node.input[1] if len(node.input) > 1 else ""
    if weight in ranks:
        axes["weight"] = ranks[weight] - 2
    if len(set(axes.values())) > 1:
        stated = ", ".join(f"{what} {count:g}" for what, count in axes.items())
        where = node.name or (node.output[0] if node.output else "")
        raise ModelError(
            f"{name}: node '{where}' ({node.op_type}) disagrees with itself on how many spatial "
            f"axes there are ({stated}): export the model again"
        )


def _axes(node: NodeProto) -> Iterator[tuple[str, float]]:
    for attribute in node.attribute:
        if not attribute.ints or attribute.ref_attr_name:
            continue
        if attribute.name in _PER_AXIS:
            yield attribute.name, len(attribute.ints)
        elif attribute.name == "pads":
            yield attribute.name, len(attribute.ints) / 2
