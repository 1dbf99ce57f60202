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
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto, SparseTensorProto, TensorProto

from deployconv.model.load import LoadedModel
from deployconv.model.tensors import read_tensor

if TYPE_CHECKING:
    from deployconv.model.view import Scope

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
        if isinstance(tensor, gs.Constant):
            return self._initializer(tensor.name, scope)
        if not tensor.inputs:
            return None
        producer = tensor.inputs[0]
        home = next((s for s in scope.ancestors() if s.holds(producer)), None)
        if home is None:
            return None
        if id(producer) not in self._folded:
            self._folded[id(producer)] = None  # a cycle finds no constant
            self._folded[id(producer)] = self._fold(producer, home)
        results = self._folded[id(producer)]
        position = next(i for i, out in enumerate(producer.outputs) if out is tensor)
        return None if results is None else results[position]

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
        if node.domain not in (None, "", "ai.onnx") or node.op in _RANDOM | _WITH_BODIES:
            return None
        proto = home.proto.node[home.index(node)]
        if node.op == "Constant":
            return self._constant_node(node, proto)
        if node.op == "Shape" and not isinstance(node.inputs[0], gs.Constant):
            return _static_shape(node)
        if not node.inputs:
            return None
        inputs = [self.of(tensor, home) for tensor in node.inputs if tensor.name]
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
    return [np.asarray(array) for array in ReferenceEvaluator(model).run(None, inputs)]
