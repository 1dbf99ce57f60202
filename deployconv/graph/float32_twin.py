"""A copy of a model with float32 in place of element types that a runtime lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    numpy_helper,
)

from deployconv.errors import ModelError

TWINNED = (TensorProto.BFLOAT16, TensorProto.DOUBLE)
"""Element types that onnxruntime's CPU provider has no Conv or no ConvTranspose for."""

_DTYPE_ATTRIBUTES = frozenset(
    {"to", "dtype", "output_dtype", "output_datatype", "softmax_precision", "stash_type"}
)
"""INT attributes that hold a TensorProto.DataType: Cast, EyeLike, RandomNormal, ..."""


def float32_twin(model: ModelProto, dtypes: Collection[int] = TWINNED) -> ModelProto:
    """A copy of ``model`` in which every element type among ``dtypes`` is float32.

    Initializers, sparse ones too, tensors in attributes, the dtype attributes of Cast and its
    like, and every declared type are changed, in subgraphs and functions too. bfloat16
    becomes float32 without loss; float64 is rounded.

    Args:
        model: left untouched; its tensors in the file itself, none external.
        dtypes: ``TensorProto.DataType`` values.

    Raises:
        ModelError: a tensor to convert is external or has the wrong number of bytes.
    """
    twin = ModelProto()
    twin.CopyFrom(model)
    converter = _Converter(frozenset(dtypes))
    converter.graph(twin.graph)
    for function in twin.functions:
        converter.function(function)
    return twin


def has_element_types(model: ModelProto, dtypes: Collection[int] = TWINNED) -> bool:
    """Whether an input, output, initializer, Constant or Cast of ``model`` is of ``dtypes``."""
    return any(dtype in dtypes for dtype in _element_types(model))


def _element_types(model: ModelProto) -> Iterator[int]:
    graphs: list[GraphProto] = [model.graph]
    nodes: list[NodeProto] = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes.extend(graph.node)
            yield from (tensor.data_type for tensor in graph.initializer)
            yield from (sparse.values.data_type for sparse in graph.sparse_initializer)
            for value in (*graph.input, *graph.output):
                yield value.type.tensor_type.elem_type
            continue
        for attribute in nodes.pop().attribute:
            yield attribute.t.data_type
            if attribute.name in _DTYPE_ATTRIBUTES:
                yield attribute.i
            graphs.extend((attribute.g, *attribute.graphs))


class _Converter:
    """Changes protos in place; each method takes the message it is named after."""

    def __init__(self, dtypes: frozenset[int]) -> None:
        self._dtypes = dtypes

    def graph(self, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            self.tensor(tensor)
        for sparse in graph.sparse_initializer:
            self.tensor(sparse.values)
        self.values((*graph.input, *graph.output, *graph.value_info))
        self.nodes(graph.node)

    def function(self, function: FunctionProto) -> None:
        self.values(function.value_info)
        for attribute in function.attribute_proto:
            self.attribute(attribute)
        self.nodes(function.node)

    def nodes(self, nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            for attribute in node.attribute:
                self.attribute(attribute)

    def attribute(self, attribute: AttributeProto) -> None:
        if attribute.type == AttributeProto.INT:
            if attribute.name in _DTYPE_ATTRIBUTES and attribute.i in self._dtypes:
                attribute.i = TensorProto.FLOAT
        elif attribute.type == AttributeProto.TENSOR:
            self.tensor(attribute.t)
        elif attribute.type == AttributeProto.SPARSE_TENSOR:
            self.tensor(attribute.sparse_tensor.values)
        elif attribute.type == AttributeProto.GRAPH:
            self.graph(attribute.g)
        elif attribute.type == AttributeProto.TYPE_PROTO:
            self.type(attribute.tp)
        for tensor in attribute.tensors:
            self.tensor(tensor)
        for sparse in attribute.sparse_tensors:
            self.tensor(sparse.values)
        for graph in attribute.graphs:
            self.graph(graph)
        for type_proto in attribute.type_protos:
            self.type(type_proto)

    def values(self, values: Iterable[ValueInfoProto]) -> None:
        for value in values:
            self.type(value.type)

    def type(self, type_proto: TypeProto) -> None:
        kind = type_proto.WhichOneof("value")
        if kind in ("tensor_type", "sparse_tensor_type"):
            tensor_type = getattr(type_proto, kind)
            if tensor_type.elem_type in self._dtypes:
                tensor_type.elem_type = TensorProto.FLOAT
        elif kind in ("sequence_type", "optional_type"):
            self.type(getattr(type_proto, kind).elem_type)
        elif kind == "map_type":
            self.type(type_proto.map_type.value_type)

    def tensor(self, tensor: TensorProto) -> None:
        if tensor.data_type not in self._dtypes:
            return
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"tensor {tensor.name!r} is external: load the model with its external data"
            )
        try:
            values = numpy_helper.to_array(tensor)
        except ValueError as error:
            raise ModelError(
                f"tensor {tensor.name!r} cannot be read ({error}): export the model again"
            ) from error
        with np.errstate(over="ignore"):
            raw = np.asarray(values, np.float32).astype("<f4").tobytes()
        for field in ("float_data", "int32_data", "double_data", "raw_data"):
            tensor.ClearField(field)
        tensor.data_type = TensorProto.FLOAT
        tensor.raw_data = raw
