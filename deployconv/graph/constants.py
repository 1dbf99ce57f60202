"""Find the constants of a model, and read or compute their values when asked.

Weights arrive as initializers, Constant nodes, or chains of both through Identity, Cast,
Transpose, Mul and the like: a weight-norm export computes its weight at run time. The ONNX
reference evaluator folds these chains. A plain tensor is not read before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import NodeProto, SparseTensorProto, TensorProto

from deployconv.errors import ModelError
from deployconv.graph.evaluate import run_reference
from deployconv.graph.load import LoadedModel
from deployconv.graph.not_evaluated import NotEvaluated
from deployconv.graph.origins import Origins, Place
from deployconv.graph.scope import Scope
from deployconv.graph.shape_parts import (
    followed,
    has_static_shape,
    inferred_sizes,
    picked_sizes,
    values_of,
)
from deployconv.graph.symbolic import FEW, Known, Size
from deployconv.graph.tensors import dtype_name, is_onnx, read_tensor

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
_NO_FUNCTIONS = _RANDOM | {"If", "Loop", "Scan", "SequenceMap"}


@dataclass(frozen=True)
class Constant:
    """A tensor whose value is known before the model runs.

    Attributes:
        name: the tensor's name in its graph.
        shape: its dimensions.
        dtype: its NumPy dtype (ml_dtypes for bfloat16).
        read: reads or returns the values.
        computed: True if nodes of the graph compute it.
        overridable: True if a caller may feed another value (IR version 4 or higher).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], Array]
    computed: bool = False
    overridable: bool = False


_Source = tuple[gs.Node, Scope]
_Inputs = dict[str, Constant | Known]


class Constants:
    """Finds the constants of a model; one per view, so that each chain is folded once.

    ``frozen`` is True if the defaults of graph inputs are never overridden.
    """

    def __init__(self, model: LoadedModel, scopes: Sequence[Scope], frozen: bool = False) -> None:
        self._model = model
        self._origins = Origins(scopes)
        self.frozen = frozen
        self._folded: dict[int, dict[str, Constant]] = {}
        self._partly_known: dict[tuple[int, str], Known] = {}
        self._initializers: dict[tuple[int, str], Constant] = {}
        has_defaults = model.proto.ir_version >= _FIRST_IR_WITH_DEFAULTS
        inputs = model.proto.graph.input if has_defaults else ()
        self._overridable = frozenset(value.name for value in inputs)

    def of(self, tensor: gs.Tensor, scope: Scope) -> Constant | None:
        """The constant that ``tensor``, as seen from ``scope``, holds; None if it varies."""
        if isinstance(tensor, gs.Constant):
            return self._initializer(tensor.name, scope)
        origin = self._origins.of(tensor, scope)
        if origin is None:
            return None
        if origin[0] is not tensor:
            constant = self.of(*origin)
            return None if constant is None else replace(constant, name=tensor.name)
        source = _producer(tensor, scope)
        if source is None:
            return None
        if id(source[0]) not in self._folded:
            self._fold_in_order(*source)
        return self._folded[id(source[0])].get(tensor.name)

    def origin(self, tensor: gs.Tensor, scope: Scope) -> Place:
        """Where ``tensor`` comes from, if it is handed on unchanged; else it is that itself."""
        return self._origins.of(tensor, scope) or (tensor, scope)

    def follows_argument(self, tensor: gs.Tensor, scope: Scope) -> bool:
        """Whether ``tensor`` follows from arguments that the calls of a function pass differently.

        False if it depends on anything else that varies.
        """
        waiting, seen, differs = [(tensor, scope)], {id(tensor)}, False
        while waiting:
            tensor, scope = waiting.pop()
            if self.of(tensor, scope) is not None:
                continue
            source = _producer(tensor, scope)
            if source is not None and _is_function(source[0]):
                found: list[Place | None] = [(part, source[1]) for part in source[0].inputs]
            else:
                found = self._origins.arguments(tensor, scope)
                differs = True
            if not found or None in found:
                return False
            places = [place for place in found if place and id(place[0]) not in seen]
            seen |= {id(place[0]) for place in places}
            waiting += [place for place in places if place[0].name]
        return differs

    def fixed(self, tensor: gs.Tensor, scope: Scope) -> Constant | None:
        """The constant that ``tensor`` holds; None if it varies or a caller may override it.

        With ``frozen``, callers override nothing.
        """
        constant = self.of(tensor, scope)
        return None if self.may_be_overridden(constant) else constant

    def may_be_overridden(self, constant: Constant | None) -> bool:
        """Whether a caller may feed another value than ``constant``; with ``frozen`` none may."""
        return constant is not None and constant.overridable and not self.frozen

    def _fold_in_order(self, node: gs.Node, home: Scope) -> None:
        """Fold ``node`` after what it reads. A stack, as networks are thousands of nodes deep."""
        waiting: dict[int, _Source] = {id(node): (node, home)}
        while waiting:
            node, home = waiting[next(reversed(waiting))]
            known = self._inputs(node, home)
            if isinstance(known, tuple) and id(known[0]) not in waiting:
                waiting[id(known[0])] = known
                continue
            # In a cycle there is no constant.
            results = self._fold(node, home, known) if isinstance(known, dict) else ()
            self._folded[id(node)] = {constant.name: constant for constant in results}
            waiting.popitem()

    def _inputs(self, node: gs.Node, home: Scope) -> _Inputs | _Source | None:
        """What is known of the tensors that ``node`` reads, by their names.

        Or a node that has to be folded first; or None if a tensor varies.
        """
        if not _foldable(node):
            return None
        found: _Inputs = {}
        for tensor in self._values_read(node, home):
            source = None if isinstance(tensor, gs.Constant) else _producer(tensor, home)
            if source is not None and id(source[0]) not in self._folded:
                return source
            part = None if source is None else (id(source[0]), tensor.name)
            known = self.of(tensor, home) or (self._partly_known.get(part) if part else None)
            if known is not None:
                found[tensor.name] = known
            elif node.op != "Shape":
                return None
        return found

    def _initializer(self, name: str, scope: Scope) -> Constant | None:
        for around in scope.ancestors():
            tensor = around.initializers.get(name)
            if tensor is None:
                continue
            key = id(around), name
            if key not in self._initializers:
                overridable = around.parent is None and name in self._overridable
                self._initializers[key] = self._stored(tensor, name, overridable)
            return self._initializers[key]
        return None

    def _stored(
        self, tensor: TensorProto | SparseTensorProto, name: str, overridable: bool
    ) -> Constant:
        values = tensor.values if isinstance(tensor, SparseTensorProto) else tensor
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(values.data_type))
        read = partial(self._read, tensor)
        return Constant(name, tuple(tensor.dims), dtype, read, overridable=overridable)

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

    def _fold(self, node: gs.Node, home: Scope, known: _Inputs) -> tuple[Constant, ...]:
        """The constants that ``node`` makes of what is ``known``; none if it cannot be folded."""
        proto = home.proto_of(node)
        if node.op == "Constant":
            return self._constant_node(node, proto)
        if node.op == "Shape":
            return self._shape(node, known.get(node.inputs[0].name))
        if not node.inputs:
            return ()
        given = {name: value for name, value in known.items() if isinstance(value, Constant)}
        overridable = any(constant.overridable for constant in given.values())
        if len(given) < len(known):
            return self._partly(node, _follow(node, proto, known))
        names = [tensor.name for tensor in node.outputs if tensor.name]
        try:
            feeds = {name: constant.read() for name, constant in given.items()}
            arrays = run_reference(
                [proto], home.opset, {**feeds, **self._likeness(node, home)}, names
            )
        except (NotEvaluated, ModelError):  # what cannot be computed or read is no constant here
            return ()
        return tuple(
            _folded(name, array, overridable) for name, array in zip(names, arrays, strict=True)
        )

    def _shape(self, node: gs.Node, known: Constant | Known | None) -> tuple[Constant, ...]:
        """The value of a Shape node whose input is ``known``, if it is known as well."""
        if isinstance(known, Constant):
            sizes = [Size.of(size) for size in known.shape]
            return self._partly(node, picked_sizes(node, sizes), known.overridable)
        inferred = inferred_sizes(node.inputs[0]) if known is None else list(known.shape)
        return self._partly(node, () if inferred is None else picked_sizes(node, inferred))

    def _partly(
        self, node: gs.Node, known: Sequence[Known], overridable: bool = False
    ) -> tuple[Constant, ...]:
        """The outputs of ``node`` that are ``known`` as a whole; the others are remembered."""
        found = []
        for tensor, output in zip(node.outputs, known, strict=False):
            values = values_of(output, node, tensor)
            if values is not None:
                found.append(_folded(tensor.name, values, overridable))
            self._partly_known[id(node), tensor.name] = output
        return tuple(found)

    def _values_read(self, node: gs.Node, home: Scope) -> list[gs.Tensor]:
        """The inputs of ``node`` whose values decide its outputs."""
        if node.op == "CastLike" and self._element_type(node.inputs[1], home) is not None:
            return list(node.inputs[:1])
        if node.op == "Shape" and _is_inferred(node.inputs[0]):
            return []
        return [tensor for tensor in node.inputs if tensor.name]

    def _likeness(self, node: gs.Node, home: Scope) -> dict[str, Array]:
        """A tensor of the element type that CastLike casts to; nothing for other operators."""
        if node.op != "CastLike":
            return {}
        dtype = self._element_type(node.inputs[1], home)
        return {} if dtype is None else {node.inputs[1].name: np.zeros(1, dtype)}

    def _element_type(self, tensor: gs.Tensor, scope: Scope) -> str | None:
        """The element type of ``tensor``; for an argument, the one that all calls pass."""
        if tensor.dtype is not None:
            return dtype_name(tensor.dtype)
        places = self._origins.arguments(tensor, scope)
        types = {self._element_type(*place) if place else None for place in places}
        return types.pop() if len(types) == 1 else None

    def _constant_node(self, node: gs.Node, proto: NodeProto) -> tuple[Constant, ...]:
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
                return ()
            if attribute.name.startswith("value_"):
                value = onnx.helper.get_attribute_value(attribute)
                dtype = np.dtype(np.float32 if "float" in attribute.name else np.int64)
                return (_folded(name, np.array(value, dtype), False),)
        return ()


class DataFree:
    """Finds the tensors that depend on no data: on constants and on shapes alone."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._known: dict[tuple[int, str], bool] = {}

    def holds(self, tensor: gs.Tensor, scope: Scope) -> bool:
        """True if ``tensor``, as seen from ``scope``, depends on no data."""
        known, home = self._known, id(scope)
        if (home, tensor.name) in known:
            return known[home, tensor.name]
        # A stack, as networks are thousands of nodes deep.
        waiting, entered = [tensor], {tensor.name}
        while waiting:
            key = home, waiting[-1].name
            parts = [] if key in known else self._parts(waiting[-1], scope)
            if key in known:
                waiting.pop()
            elif parts is None or not all(known.get((home, part.name), True) for part in parts):
                known[key] = False
            else:
                unknown = next((part for part in parts if (home, part.name) not in known), None)
                if unknown is None or unknown.name in entered:
                    known[key] = unknown is None  # in a cycle, none is
                else:
                    entered.add(unknown.name)
                    waiting.append(unknown)
        return known[home, tensor.name]

    def _parts(self, tensor: gs.Tensor, scope: Scope) -> list[gs.Tensor] | None:
        """The tensors that ``tensor`` depends on; None if it depends on data in any case."""
        if self._constants.of(tensor, scope) is not None:
            return []
        if not tensor.inputs or not scope.holds(tensor.inputs[0]):
            return None
        node = tensor.inputs[0]
        if node.op == "Shape":
            return []
        if not _is_function(node):
            return None
        return [other for other in node.inputs if other.name] or None


def _producer(tensor: gs.Tensor, scope: Scope) -> _Source | None:
    """The node that makes ``tensor``, and its scope; None for what is fed from outside."""
    if not tensor.inputs:
        return None
    node = tensor.inputs[0]
    home = scope.home_of(node)
    return None if home is None else (node, home)


def _is_function(node: gs.Node) -> bool:
    """Whether the outputs of ``node`` follow from its inputs and attributes alone."""
    return is_onnx(node.domain) and node.op not in _NO_FUNCTIONS


def _foldable(node: gs.Node) -> bool:
    return _is_function(node) and node.op not in _QUANTIZED


def _folded(name: str, array: Array, overridable: bool) -> Constant:
    return Constant(name, array.shape, array.dtype, lambda: array, True, overridable)


def _is_inferred(tensor: gs.Tensor) -> bool:
    """Whether inference knows the shape: that of an initializer may be overridden."""
    return not isinstance(tensor, gs.Constant) and has_static_shape(tensor)


def _follow(node: gs.Node, proto: NodeProto, known: _Inputs) -> Sequence[Known]:
    """What is known of the outputs of ``node``, from inputs that are ``known`` in part."""
    inputs: list[Known | None] = []
    for tensor in node.inputs:
        value = known.get(tensor.name)
        if isinstance(value, Constant):
            if prod(value.shape) > FEW or value.overridable:
                return ()
            value = Known.of(value.read())
        inputs.append(value)
    return followed(node, proto, inputs)
