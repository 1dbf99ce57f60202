"""Find the shapes of tensors: concrete ones (`Shapes`), and for all sizes at once (`OpenShapes`).

A model with static inputs has one set of concrete shapes. For dynamic inputs, shapes are inferred
twice, with two choices of the open sizes. What holds for both may not hold for others.

Shape inference has names for open sizes, but not for the sizes that a Conv or a Reshape makes of
them. `OpenShapes` runs each node on what is known of its inputs, as polynomials in the open sizes
(`symbolic.run`). If that has no result, each size that inference leaves open is a new unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod

import onnx
import onnx_graphsurgeon as gs
from onnx import FunctionProto, GraphProto, ModelProto, ValueInfoProto

from deployconv.graph import symbolic
from deployconv.graph.constants import Constants
from deployconv.graph.inference import infer
from deployconv.graph.scope import Scope
from deployconv.graph.symbolic import FEW, Known, Size, Unproven
from deployconv.graph.tensors import declared_sizes, nested

Instance = Mapping[str, tuple[int, ...]]
"""Tensor name -> concrete shape, for one choice of the dynamic sizes."""

_TRIALS = (((16, 24, 40), (40, 16, 24)), ((64, 128, 192), (192, 64, 128)))
"""Sizes for the first, second, third dynamic name; the larger ones suit deep encoders, whose
skip connections only fit for multiples of their total stride."""


class Shapes:
    """Concrete shapes of a model's tensors; ``bare`` is its skeleton, not yet inferred."""

    def __init__(self, bare: ModelProto) -> None:
        self._bare = bare
        self._trials: dict[int, tuple[Instance, ...]] = {}

    @cached_property
    def dynamic(self) -> bool:
        """True if an input has a dimension that is not static."""
        return any(size is None for value in _fed(self._bare.graph) for size in _sizes(value))

    def trials(self) -> Iterator[tuple[Instance, ...]]:
        """Shapes of all tensors, for two choices of the dynamic sizes, or once for a static model.

        There may be larger sizes to try if these do not suit.
        """
        for number in range(len(_TRIALS) if self.dynamic else 1):
            yield self._trial(number)

    def instances(self, *names: str) -> tuple[Instance, ...]:
        """The first trial that gives each of ``names`` a shape; empty if none does."""
        for trial in self.trials():
            if all(name in instance for instance in trial for name in names):
                return trial
        return ()

    def at(self, given: Instance, inside: Iterable[ValueInfoProto] = ()) -> Instance:
        """The shapes of all tensors if the inputs have those of ``given``.

        ``inside`` are types of tensors of the main graph that shape inference may not find.
        """
        model = ModelProto()
        model.CopyFrom(self._bare)
        for value in model.graph.input:
            if value.name in given and value.type.HasField("tensor_type"):
                shape = value.type.tensor_type.shape
                del shape.dim[:]
                for size in given[value.name]:
                    shape.dim.add(dim_value=size)
        model.graph.value_info.extend(inside)
        return inferred_shapes(model)

    def _trial(self, number: int) -> tuple[Instance, ...]:
        """The shapes in one trial, inferred when they are asked for."""
        if number not in self._trials:
            bare = (self._with_sizes(*given) for given in enumerate(_TRIALS[number], 2))
            models = bare if self.dynamic else (self._bare,)
            self._trials[number] = tuple(map(inferred_shapes, models))
        return self._trials[number]

    def _with_sizes(self, batch: int, sizes: tuple[int, ...]) -> ModelProto:
        """The skeleton with every dynamic input dimension replaced: equal names, equal sizes."""
        model = ModelProto()
        model.CopyFrom(self._bare)
        given: dict[str, int] = {}
        for value in _fed(model.graph):
            dims = value.type.tensor_type.shape.dim
            for axis, dim in enumerate(dims):
                if dim.HasField("dim_value"):
                    continue
                name = dim.dim_param or f"{value.name}:{axis}"
                if axis == 0:
                    given.setdefault(name, batch)
                spatial = sum(size in sizes for size in given.values())
                dim.dim_value = given.setdefault(name, sizes[spatial % len(sizes)])
        return model


def _fed(graph: GraphProto) -> Iterator[ValueInfoProto]:
    """The inputs of ``graph`` that are tensors and have no default."""
    constant = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constant and value.type.HasField("tensor_type"):
            yield value


def inferred_shapes(model: ModelProto) -> Instance:
    """The shapes that follow from the model's inputs, of all tensors with a name of their own."""
    try:
        inferred = infer(model)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    names = Counter(_defined(inferred.graph))
    return {name: shape for name, shape in _known(inferred.graph) if names[name] == 1}


def _sizes(value: ValueInfoProto) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _defined(graph: GraphProto) -> Iterator[str]:
    """The name of every tensor, once for each graph that has one of that name."""
    for owner in nested(graph):
        own = {value.name for value in owner.input} | {tensor.name for tensor in owner.initializer}
        own |= {sparse.values.name for sparse in owner.sparse_initializer}
        yield from own | {name for node in owner.node for name in node.output}


def _known(graph: GraphProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor whose sizes are all known and positive."""
    for owner in nested(graph):
        for value in (*owner.input, *owner.value_info, *owner.output):
            if value.type.tensor_type.HasField("shape"):
                sizes = _sizes(value)
                known = tuple(size for size in sizes if size is not None)
                if len(known) == len(sizes) and prod(known) > 0:
                    yield value.name, known
        for tensor in owner.initializer:
            yield tensor.name, tuple(tensor.dims)


class OpenShapes:
    """What is known of the tensors of a model at all sizes; graphs are run when first needed.

    ``bare`` is the skeleton of the model, whose inputs have the sizes that are known.
    """

    def __init__(self, constants: Constants, bare: ModelProto) -> None:
        self._constants = constants
        self._fed = {value.name: value for value in bare.graph.input}
        self._known: dict[int, dict[str, Known]] = {}
        self._proven: set[int] = set()
        self._unknowns = 0

    def of(self, tensor: gs.Tensor, scope: Scope) -> Known:
        """What is known of ``tensor``, as seen from ``scope``; Unproven if its rank is not."""
        constant = self._constants.of(tensor, scope)
        if constant is not None and prod(constant.shape) > FEW:
            return Known(tuple(map(Size.of, constant.shape)))
        if constant is not None:
            return Known.of(constant.read())
        for around in scope.ancestors():
            known = self._graph(around).get(tensor.name)
            if known is not None:
                return known
        raise Unproven

    def completed(
        self, instance: Instance, scope: Scope, tensors: Sequence[gs.Tensor]
    ) -> Instance | None:
        """``instance`` with the shapes of ``tensors`` that it lacks; None if one is not known.

        Shape inference ends at a shape that is computed by operators it does not run, such as an
        Identity or a product of floats.
        """
        missing = [tensor for tensor in tensors if tensor.name not in instance]
        added: dict[str, tuple[int, ...]] = {}
        sizes = self._fed_sizes(instance, scope) if missing else {}
        for tensor in missing:
            try:
                shape = self.of(tensor, scope).shape
                found = [size.at(sizes) for size in shape]
            except (Unproven, KeyError):
                return None
            if not all(size > 0 and size.denominator == 1 for size in found):
                return None
            added[tensor.name] = tuple(map(int, found))
        return {**instance, **added}

    def _fed_sizes(self, instance: Instance, scope: Scope) -> dict[str, int]:
        """The size of each symbol in the shapes of the model's inputs, which ``instance`` has."""
        *_, outermost = scope.ancestors()
        known = self._graph(outermost)
        fed = [
            value.name for value in outermost.proto.input if value.name in instance.keys() & known
        ]
        pairs = (zip(known[name].shape, instance[name], strict=True) for name in fed)
        return {
            symbol: number for pair in pairs for size, number in pair for symbol in size.symbols
        }

    def is_proven(self, node: gs.Node, scope: Scope) -> bool:
        """True if ``node`` does the same at all sizes."""
        self._graph(scope)
        return id(node) in self._proven

    def _graph(self, scope: Scope) -> dict[str, Known]:
        known = self._known.get(id(scope))
        if known is None:
            known = self._known[id(scope)] = dict(self._inputs(scope))
            for node in scope.nodes:
                self._run(node, scope, known)
        return known

    def _inputs(self, scope: Scope) -> Iterator[tuple[str, Known]]:
        if isinstance(scope.proto, FunctionProto):
            return  # a function is called on tensors of any shape
        if scope.parent is not None:
            # Of what a body declares, only that counts which holds in every iteration.
            read = {tensor.name: tensor for node in scope.nodes for tensor in node.inputs}
            tensors = (read.get(value.name) for value in scope.proto.input)
            for tensor in (known for known in tensors if known is not None and known.shape):
                own_sizes = [size if isinstance(size, int) else None for size in tensor.shape]
                yield tensor.name, Known(self._opened(own_sizes))
            return
        named: set[int | str | None] = set()
        for value in scope.proto.input:
            value = self._fed.get(value.name, value)
            kind = value.type.tensor_type
            if not kind.HasField("shape"):
                continue
            sizes: list[int | str | None] = []
            for size in declared_sizes(value):
                # Two inputs may have sizes of one name, but no runtime demands that they are equal.
                own = size not in named
                sizes.append(size if own or isinstance(size, int) else None)
                named.add(size)
            yield value.name, Known(self._opened(sizes))

    def _run(self, node: gs.Node, scope: Scope, known: dict[str, Known]) -> None:
        if self._constants.of(node.outputs[0], scope) is not None:
            return
        try:
            inputs = [self.of(tensor, scope) if tensor.name else None for tensor in node.inputs]
            results = symbolic.run(scope.proto_of(node), inputs)
        except Unproven:
            for tensor in node.outputs:
                if tensor.shape is not None:
                    sizes = [size if isinstance(size, int) else None for size in tensor.shape]
                    known[tensor.name] = Known(self._opened(sizes))
        else:
            self._proven.add(id(node))
            known |= {tensor.name: one for tensor, one in zip(node.outputs, results, strict=False)}

    def _opened(self, sizes: Sequence[int | str | None]) -> tuple[Size, ...]:
        """Sizes with a symbol for each that is no number, a new symbol if it has no name."""
        shape = []
        for size in sizes:
            if isinstance(size, int):
                shape.append(Size.of(size))
            else:
                self._unknowns += 1
                shape.append(Size.symbol(size or f"?{self._unknowns}"))
        return tuple(shape)
