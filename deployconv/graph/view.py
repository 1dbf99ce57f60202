"""View a model as onnx-graphsurgeon graphs, one per scope, to match patterns on.

Patterns are matched on ``gs.Node`` objects. Graphsurgeon keeps the order of the nodes, so a
node of the view maps to its NodeProto by index. Edits are made in a copy of the proto
(`splice.py`): a round trip through graphsurgeon's exporter would lose metadata, functions,
quantization annotations and more.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TypeVar, cast

import onnx_graphsurgeon as gs
from onnx import FunctionProto, GraphProto, ModelProto, SparseTensorProto, TensorProto
from onnx_graphsurgeon.logger import G_LOGGER

from deployconv.errors import ModelError
from deployconv.graph.constants import Constants, DataFree
from deployconv.graph.fixed_sizes import fixed_sizes, with_fixed_sizes
from deployconv.graph.load import LoadedModel
from deployconv.graph.scope import Scope
from deployconv.graph.shapes import Instance, OpenShapes, Shapes
from deployconv.graph.skeleton import infer_shapes
from deployconv.graph.tensors import graph_attributes, onnx_version, used_names


@dataclass(frozen=True, eq=False)
class View:
    """All scopes of a model, the main graph first, and what is known of their tensors.

    Attributes:
        model: the model that is viewed.
        scopes: its graphs.
        constants: which tensors are constant.
        data_free: which tensors depend on constants and shapes alone.
        shapes: concrete shapes, also of a model with dynamic sizes.
        open_shapes: the shapes at all sizes at once.
        memo: results of functions of the view, by function and arguments (`remembered`).
    """

    model: LoadedModel
    scopes: tuple[Scope, ...]
    constants: Constants
    data_free: DataFree
    shapes: Shapes
    open_shapes: OpenShapes
    memo: dict[tuple[object, ...], object] = field(default_factory=dict, repr=False)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name that a tensor or node of the model has, in any of its graphs."""
        return used_names(self.model.proto)

    def is_data_free(self, tensor: gs.Tensor, scope: Scope) -> bool:
        """Whether ``tensor`` depends on no data: on constants and on shapes alone."""
        return self.data_free.holds(tensor, scope)

    def instances(self, scope: Scope, *tensors: gs.Tensor) -> tuple[Instance, ...]:
        """Shapes of one trial (`Shapes.trials`) in which all of ``tensors`` of ``scope`` have one.

        None in a function, which may be called on tensors of any shape.
        """
        if any(around.is_function for around in scope.ancestors()):
            return ()
        found = self.shapes.instances(*(tensor.name for tensor in tensors))
        if found:
            return found
        for trial in self.shapes.trials():
            completed = [self.open_shapes.completed(one, scope, tensors) for one in trial]
            known = tuple(one for one in completed if one is not None)
            if len(known) == len(trial):
                return known
        return ()


Result = TypeVar("Result")
Question = Callable[[gs.Node, Scope, View], Result]


def remembered(function: Question[Result]) -> Question[Result]:
    """Decorate a ``function`` of a node so that it runs once per node, and its result is kept."""

    @wraps(function)
    def once(node: gs.Node, scope: Scope, view: View) -> Result:
        key = function, id(node), id(scope)
        if key not in view.memo:
            view.memo[key] = function(node, scope, view)
        return cast("Result", view.memo[key])

    return once


def view(model: LoadedModel, freeze_initializers: bool = False) -> View:
    """Build the view. Raises ModelError for a model that contradicts itself."""
    seen = _view(model, model.skeleton, freeze_initializers)
    if not seen.shapes.dynamic:
        return seen
    fixed = fixed_sizes(seen.scopes[0], seen.constants, model.skeleton)
    if not fixed:
        return seen
    return _view(model, with_fixed_sizes(model.skeleton, fixed), freeze_initializers)


def _view(model: LoadedModel, bare: ModelProto, frozen: bool) -> View:
    """The view of ``model``, whose skeleton ``bare`` has the sizes of the inputs."""
    with _no_garbage_collection():
        inferred = infer_shapes(bare, model.name)
        scopes = tuple(_scopes(_imported(inferred, model.name), model))
    constants = Constants(model, scopes, frozen)
    shapes, open_shapes = Shapes(bare), OpenShapes(constants, bare)
    return View(model, scopes, constants, DataFree(constants), shapes, open_shapes)


def _imported(inferred: ModelProto, name: str) -> gs.Graph:
    severity, G_LOGGER.severity = G_LOGGER.severity, G_LOGGER.CRITICAL
    try:
        return gs.import_onnx(inferred)
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"{name}: onnx-graphsurgeon cannot read the graph ({error}): export it again"
        ) from error
    finally:
        G_LOGGER.severity = severity


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Run no garbage collection: the nodes of a graph are cycles, and all of them are kept."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _scopes(graph: gs.Graph, model: LoadedModel) -> Iterator[Scope]:
    opset = model.info.opset
    yield from _graph_scopes("main", graph, model.proto.graph, opset)
    functions = zip(graph.functions, model.proto.functions, strict=True)
    for position, (function, proto) in enumerate(functions):
        version = onnx_version(proto.opset_import)
        version = opset if version is None else version
        path = f"function:{proto.name}"
        yield from _graph_scopes(path, function, proto, version, position=(position,))


def _graph_scopes(
    path: str,
    graph: gs.Graph | gs.Function,
    proto: GraphProto | FunctionProto,
    opset: int,
    parent: Scope | None = None,
    position: tuple[int, ...] = (),
) -> Iterator[Scope]:
    initializers: dict[str, TensorProto | SparseTensorProto] = {}
    if isinstance(proto, GraphProto):
        outputs = frozenset(value.name for value in proto.output)
        initializers |= {sparse.values.name: sparse for sparse in proto.sparse_initializer}
        initializers |= {tensor.name: tensor for tensor in proto.initializer}
    else:
        outputs = frozenset(proto.output)
    nodes = tuple(graph.nodes)
    index = {id(node): at for at, node in enumerate(nodes)}
    scope = Scope(path, nodes, proto, opset, parent, outputs, initializers, position, index)
    yield scope
    for at, (node, node_proto) in enumerate(zip(nodes, proto.node, strict=True)):
        for number, (attribute, body) in enumerate(graph_attributes(node_proto)):
            inner = node.attrs.get(attribute)
            if isinstance(inner, gs.Graph):
                inner_path = f"{path}/{scope.label(node)}.{attribute}"
                yield from _graph_scopes(inner_path, inner, body, opset, scope, (at, number))
