"""Which tensors of a view are constant, where they come from, and their values when asked.

Weights arrive as initializers, Constant nodes, or chains of both through Identity, Cast,
Transpose, Mul and the like: a weight-norm export computes its weight at run time. Such a
chain is folded by the ONNX reference evaluator. A plain tensor is not read before it is
asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto, SparseTensorProto, TensorProto

from deployconv.graph.load import LoadedModel
from deployconv.graph.scope import Scope
from deployconv.graph.tensors import read_tensor

Array = NDArray[Any]

_FIRST_IR_WITH_DEFAULTS = 4
"""From IR version 4 a graph input with an initializer is a default that callers may override."""

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_QUANTIZED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
"""Folding these would take a layer out of the integers that it is meant to run in."""
_WITH_BODIES = frozenset(("If", "Loop", "Scan", "SequenceMap"))


@dataclass(frozen=True)
class Constant:
    """A tensor whose value is known before the model runs.

    Attributes:
        name: the tensor's name in its graph.
        shape: its dimensions.
        dtype: its NumPy dtype (ml_dtypes for bfloat16).
        read: reads or returns the values.
        computed: True where nodes of the graph compute it.
        overridable: True where a caller may feed another value (IR version 4 or higher).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]
    computed: bool = False
    overridable: bool = False


_Source = tuple[gs.Node, Scope]


class Constants:
    """Finds the constants of a model; one per view, so that each chain is folded once.

    ``frozen`` tells that the defaults of graph inputs are never overridden.
    """

    def __init__(self, model: LoadedModel, frozen: bool = False) -> None:
        self._model = model
        self.frozen = frozen
        self._folded: dict[int, tuple[Constant, ...] | None] = {}
        has_defaults = model.proto.ir_version >= _FIRST_IR_WITH_DEFAULTS
        inputs = model.proto.graph.input if has_defaults else ()
        self._overridable = frozenset(value.name for value in inputs)

    def of(self, tensor: gs.Tensor, scope: Scope) -> Constant | None:
        """What ``tensor``, as seen from ``scope``, always holds; None if that varies."""
        source = self._source(tensor, scope)
        if source is not None and id(source[0]) not in self._folded:
            self._fold_in_order(*source)
        return self._known(tensor, scope)

    def fixed(self, tensor: gs.Tensor, scope: Scope) -> Constant | None:
        """The same, but None for a default that a caller may override, unless these are frozen."""
        constant = self.of(tensor, scope)
        return None if constant and constant.overridable and not self.frozen else constant

    def _known(self, tensor: gs.Tensor, scope: Scope) -> Constant | None:
        """The constant that ``tensor`` is, as far as nodes are folded already."""
        if isinstance(tensor, gs.Constant):
            return self._initializer(tensor.name, scope)
        source = self._source(tensor, scope)
        results = None if source is None else self._folded.get(id(source[0]))
        if source is None or results is None:
            return None
        return results[next(i for i, out in enumerate(source[0].outputs) if out is tensor)]

    def _source(self, tensor: gs.Tensor, scope: Scope) -> _Source | None:
        """The node that makes ``tensor`` and its scope; None for what is fed from outside."""
        if not tensor.inputs:
            return None
        producer = tensor.inputs[0]
        home = next((place for place in scope.ancestors() if place.holds(producer)), None)
        return None if home is None else (producer, home)

    def _fold_in_order(self, node: gs.Node, home: Scope) -> None:
        """Fold ``node`` after what it reads. A stack, as networks are thousands of nodes deep."""
        waiting: dict[int, _Source] = {id(node): (node, home)}
        while waiting:
            node, home = waiting[next(reversed(waiting))]
            source = self._unfolded(node, home)
            if source is not None and id(source[0]) not in waiting:
                waiting[id(source[0])] = source
                continue
            # A cycle finds no constant.
            self._folded[id(node)] = None if source is not None else self._fold(node, home)
            waiting.popitem()

    def _unfolded(self, node: gs.Node, home: Scope) -> _Source | None:
        """Which node to fold before ``node``; None where all are, or where one varies."""
        if not _foldable(node) or node.op == "Shape":
            return None
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant) or not tensor.name:
                continue
            source = self._source(tensor, home)
            if source is None:
                return None
            if id(source[0]) not in self._folded:
                return source
            if self._folded[id(source[0])] is None:
                return None
        return None

    def _initializer(self, name: str, scope: Scope) -> Constant | None:
        for place in scope.ancestors():
            tensor = place.initializers.get(name)
            if tensor is None:
                continue
            if isinstance(tensor, SparseTensorProto):
                dims, data_type = tensor.dims, tensor.values.data_type
            else:
                dims, data_type = tensor.dims, tensor.data_type
            return Constant(
                name,
                tuple(dims),
                np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type)),
                partial(self._read, tensor),
                overridable=place.parent is None and name in self._overridable,
            )
        return None

    def _read(self, tensor: TensorProto | SparseTensorProto) -> Array:
        if isinstance(tensor, TensorProto):
            return read_tensor(tensor, self._model.folder)
        values = read_tensor(tensor.values, self._model.folder)
        indices = read_tensor(tensor.indices, self._model.folder)
        dense = np.zeros(tuple(tensor.dims), values.dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values
        else:
            dense[tuple(indices.T)] = values
        return dense

    def _fold(self, node: gs.Node, home: Scope) -> tuple[Constant, ...] | None:
        if not _foldable(node):
            return None
        proto = home.proto.node[home.index(node)]
        if node.op == "Constant":
            return self._constant_node(node, proto)
        if node.op == "Shape" and not isinstance(node.inputs[0], gs.Constant):
            return _static_shape(node)
        if not node.inputs:
            return None
        inputs = [self._known(tensor, home) for tensor in node.inputs if tensor.name]
        if any(constant is None for constant in inputs):
            return None
        known = [constant for constant in inputs if constant is not None]
        try:
            arrays = _evaluate(proto, home.opset, {c.name: c.read() for c in known})
        except Exception:  # whatever the reference evaluator cannot do is not constant for us
            return None
        overridable = any(constant.overridable for constant in known)
        return tuple(
            _folded(tensor.name, array, overridable)
            for tensor, array in zip(node.outputs, arrays, strict=True)
        )

    def _constant_node(self, node: gs.Node, proto: NodeProto) -> tuple[Constant, ...] | None:
        name = node.outputs[0].name
        for attribute in proto.attribute:
            if attribute.name == "value" and attribute.HasField("t"):
                tensor = attribute.t
                dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
                return (Constant(name, tuple(tensor.dims), dtype, partial(self._read, tensor)),)
            if attribute.name == "sparse_value":
                sparse = attribute.sparse_tensor
                return (_folded(name, self._read(sparse), False),)
            if attribute.ref_attr_name or attribute.name.startswith("value_string"):
                return None
            if attribute.name.startswith("value_"):
                value = onnx.helper.get_attribute_value(attribute)
                dtype = np.dtype(np.float32 if "float" in attribute.name else np.int64)
                return (_folded(name, np.array(value, dtype), False),)
        return None


def is_function(node: gs.Node) -> bool:
    """Whether equal inputs always give equal outputs, and nothing else is looked at."""
    return node.domain in (None, "", "ai.onnx") and node.op not in _RANDOM | _WITH_BODIES


def _foldable(node: gs.Node) -> bool:
    return is_function(node) and node.op not in _QUANTIZED


def _folded(name: str, array: Array, overridable: bool) -> Constant:
    return Constant(name, array.shape, array.dtype, lambda: array, True, overridable)


def _static_shape(node: gs.Node) -> tuple[Constant, ...] | None:
    """The value of a Shape node, where the sizes follow from the model's inputs."""
    shape = node.inputs[0].shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    start, end = node.attrs.get("start", 0), node.attrs.get("end", len(shape))
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    return (_folded(node.outputs[0].name, np.array(shape[start:end], np.int64), False),)


def _evaluate(node: NodeProto, opset: int, inputs: dict[str, Array]) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    unknown = onnx.TypeProto()
    graph = onnx.helper.make_graph(
        [node],
        "fold",
        [onnx.helper.make_value_info(name, unknown) for name in inputs],
        [onnx.helper.make_value_info(name, unknown) for name in node.output if name],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    # Infinity and NaN are results like others.
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, inputs)]
