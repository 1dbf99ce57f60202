"""Walk over the graphs and tensors of a model; read a tensor, from external data too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    ValueInfoProto,
)

from deployconv.errors import ModelError

Array = NDArray[Any]

_WITHOUT_TENSORS = frozenset(
    (
        AttributeProto.FLOAT,
        AttributeProto.FLOATS,
        AttributeProto.INT,
        AttributeProto.INTS,
        AttributeProto.STRING,
        AttributeProto.STRINGS,
    )
)
_SUB_BYTE = {"INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2"}


@dataclass(frozen=True)
class ExternalData:
    """The location of the bytes of an external tensor: a file beside the model, offset, length."""

    location: str
    offset: int
    length: int | None

    @classmethod
    def of(cls, tensor: TensorProto) -> ExternalData:
        """Read the external_data entries of ``tensor``; ModelError if they make no sense."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        numbers: dict[str, int] = {}
        for key in ("offset", "length"):
            text = entries.get(key)
            if not text:
                continue
            if not (text.isascii() and text.isdecimal()):
                raise ModelError(
                    f"tensor '{tensor.name}' has '{text}' as the {key} of its external data, no"
                    f" number of bytes: export the model again"
                )
            numbers[key] = int(text)
        return cls(entries.get("location", ""), numbers.get("offset", 0), numbers.get("length"))


def is_onnx(domain: str | None) -> bool:
    """True for the domain of ONNX's own operators, which has two names."""
    return domain in (None, "", "ai.onnx")


def qualified_name(domain: str | None, operator: str) -> str:
    """The operator as targets name it: ``Conv``, or with its domain ``com.microsoft::Gelu``."""
    return operator if is_onnx(domain) else f"{domain}::{operator}"


def onnx_version(imports: Iterable[OperatorSetIdProto]) -> int | None:
    """The version of ONNX's own operators among ``imports``; None if it is not imported."""
    return next((entry.version for entry in imports if is_onnx(entry.domain)), None)


def dtype_name(dtype: Any) -> str | None:
    """The NumPy name of an element type, e.g. ``float32``; None if it is not known.

    onnx-graphsurgeon gives a NumPy dtype, or the ONNX number or type if NumPy has none.
    """
    if dtype is None:
        return None
    try:
        if isinstance(dtype, int):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(dtype)
        return str(np.dtype(dtype).name)
    except (KeyError, TypeError):
        return None


def is_external(tensor: TensorProto) -> bool:
    """True if the bytes of ``tensor`` lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def graph_attributes(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """Name and body of each subgraph of ``node`` (If, Loop, Scan, custom operators)."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            for position, graph in enumerate(attribute.graphs):
                yield f"{attribute.name}[{position}]", graph


Owner = TypeVar("Owner", GraphProto, FunctionProto)


def nested(owner: Owner) -> Iterator[Owner | GraphProto]:
    """``owner`` and the bodies of its nodes, at any depth."""
    yield owner
    for node in owner.node:
        for _, body in graph_attributes(node):
            yield from nested(body)


def read_inside(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Names of the tensors that subgraphs of ``nodes`` read, those that they make included."""
    for node in nodes:
        for _, body in graph_attributes(node):
            for inner in body.node:
                yield from inner.input
            yield from (value.name for value in body.output)
            yield from read_inside(body.node)


def all_graphs(model: ModelProto) -> Iterator[GraphProto | FunctionProto]:
    """Every graph of the model, functions, training graphs and bodies included."""
    yield from nested(model.graph)
    for function in model.functions:
        yield from nested(function)
    for training in model.training_info:
        yield from nested(training.initialization)
        yield from nested(training.algorithm)


def used_names(model: ModelProto) -> frozenset[str]:
    """Every name that a tensor or node of the model has, in any of its graphs."""
    names: set[str] = set()
    for owner in all_graphs(model):
        for node in owner.node:
            names.add(node.name)
            names.update(node.input, node.output)
        if isinstance(owner, GraphProto):
            for value in (*owner.input, *owner.output, *owner.value_info):
                names.add(value.name)
            names.update(tensor.name for tensor in owner.initializer)
            names.update(sparse.values.name for sparse in owner.sparse_initializer)
        else:
            names.update(owner.input, owner.output)
    return frozenset(names)


def open_sizes(sizes: Iterable[int | str | None]) -> tuple[int | str | None, ...]:
    """The declared sizes of one input: numbers, names of open sizes, None for those without one.

    onnxruntime relates no sizes to each other. So a name that the input has several times, as some
    exporters give one to batch, height and width, becomes different names: ``N``, ``N#2``. A
    number below 0 and a name without a letter, such as ``?``, mean an open size without a name.
    """
    uses: dict[str, int] = {}
    found: list[int | str | None] = []
    for size in sizes:
        if isinstance(size, str) and any(map(str.isalpha, size)):
            uses[size] = uses.get(size, 0) + 1
            found.append(size if uses[size] == 1 else f"{size}#{uses[size]}")
        else:
            found.append(size if isinstance(size, int) and size >= 0 else None)
    return tuple(found)


def declared_sizes(value: ValueInfoProto) -> tuple[int | str | None, ...]:
    """The sizes that an input of tensor type declares, see `open_sizes`; empty if none."""
    return open_sizes(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param
        for dim in value.type.tensor_type.shape.dim
    )


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the model, training graphs, subgraphs and functions included."""
    yield from _graph_tensors(model.graph)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)
        yield from _node_tensors(function)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph)


def _node_tensors(owner: GraphProto | FunctionProto) -> Iterator[TensorProto]:
    for node in owner.node:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.type in _WITHOUT_TENSORS:
        return
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)


def byte_size(tensor: TensorProto) -> int | None:
    """Bytes that the elements of ``tensor`` take; None for strings.

    Raises ModelError for an unknown element type or a negative dimension.
    """
    if min(tensor.dims, default=0) < 0:
        raise ModelError(
            f"tensor '{tensor.name}' has the negative shape {list(tensor.dims)}: export the model"
            f" again"
        )
    if tensor.data_type == TensorProto.STRING:
        return None
    try:
        return (int(prod(tensor.dims)) * _bits(tensor.data_type) + 7) // 8
    except (KeyError, ValueError):
        raise ModelError(
            f"tensor '{tensor.name}' has element type {tensor.data_type}, which the installed onnx"
            f" does not know: update onnx or export the model again"
        ) from None


@cache
def _bits(data_type: int) -> int:
    """Bits of one element. Raises KeyError or ValueError for a type that has none."""
    name = TensorProto.DataType.Name(data_type)
    if name in _SUB_BYTE:
        return int("".join(filter(str.isdigit, name))[0])
    return 8 * int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)


def read_tensor(tensor: TensorProto, folder: Path | None) -> Array:
    """The values of ``tensor``; external data is read from below ``folder``.

    bfloat16 and the narrow floats come as ml_dtypes arrays. Raises ModelError for data that
    does not fit the declared shape.
    """
    try:
        if not is_external(tensor):
            return np.asarray(onnx.numpy_helper.to_array(tensor))
        where = ExternalData.of(tensor)
        size = byte_size(tensor) if where.length is None else where.length
        with (Path(folder or ".") / where.location).open("rb") as file:
            file.seek(where.offset)
            raw = file.read(-1 if size is None else size)
        inline = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=raw)
        return np.asarray(onnx.numpy_helper.to_array(inline))
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"tensor '{tensor.name}' cannot be read ({reason}): export the model again"
        ) from error
