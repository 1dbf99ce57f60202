"""Find where a tensor comes from that loops and calls of functions hand on unchanged.

w -> Loop (body: w -> w) -> w          the state of a Loop or Scan that never changes
w -> call of a function -> parameter   if every call passes the same tensor
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs
from onnx import FunctionProto, GraphProto

from deployconv.graph.scope import Scope
from deployconv.graph.tensors import graph_attributes, is_onnx

Place = tuple[gs.Tensor, Scope]
"""A tensor, as seen from a scope."""

_FIRST_BODY_STATE = {"Loop": 2, "Scan": 0}
"""Which input of the node, and of its body, is the first state."""
_FIRST_STATE_OUTPUT = {"Loop": 1, "Scan": 0}
"""Which output of the body is the first state."""
_FIRST_SCAN_WITHOUT_BATCH = 9


class Origins:
    """The origins of tensors in the graphs ``scopes`` of a model."""

    def __init__(self, scopes: Sequence[Scope]) -> None:
        self._calls: dict[tuple[str, str, str], list[tuple[gs.Node, Scope]]] = {}
        for scope in scopes:
            for node, proto in zip(scope.nodes, scope.proto.node, strict=True):
                if not is_onnx(proto.domain):
                    key = proto.domain, proto.op_type, proto.overload
                    self._calls.setdefault(key, []).append((node, scope))

    def of(self, tensor: gs.Tensor, scope: Scope) -> Place | None:
        """Where ``tensor`` comes from, which is itself if nothing hands it on.

        None if it is the parameter of a function whose calls do not all pass the same tensor.
        """
        seen: set[int] = set()
        while id(tensor) not in seen:
            seen.add(id(tensor))
            found = self._step(tensor, scope)
            if found is None:
                return None
            tensor, scope = found
        return tensor, scope

    def arguments(self, tensor: gs.Tensor, scope: Scope) -> list[Place | None]:
        """What each call of a function passes as its parameter ``tensor``, None for nothing.

        Empty if ``tensor`` is no parameter of a function that is called.
        """
        given = _input_of(tensor, scope)
        if given is None or not isinstance(given[0].proto, FunctionProto):
            return []
        function, index = given[0].proto, given[1]
        calls = self._calls.get((function.domain, function.name, function.overload), [])
        return [
            (call.inputs[index], place) if index < len(call.inputs) else None
            for call, place in calls
        ]

    def _step(self, tensor: gs.Tensor, scope: Scope) -> Place | None:
        if isinstance(tensor, gs.Constant):
            return tensor, scope
        if tensor.inputs:
            return self._out_of_loop(tensor, tensor.inputs[0], scope)
        given = _input_of(tensor, scope)
        if given is None:
            return tensor, scope
        if given[0].is_function:
            return self._passed(tensor, scope)
        return self._into_body(*given) or (tensor, scope)

    def _out_of_loop(self, tensor: gs.Tensor, node: gs.Node, scope: Scope) -> Place:
        """The initial value of a state that leaves a Loop or Scan as it entered."""
        if node.op not in _FIRST_BODY_STATE or not is_onnx(node.domain):
            return tensor, scope
        home = scope.home_of(node)
        if home is None:
            return tensor, scope
        bodies = [body for _, body in graph_attributes(home.proto_of(node))]
        index = [out.name for out in node.outputs].index(tensor.name)
        index += _FIRST_BODY_STATE[node.op]
        if len(bodies) != 1 or not _keeps(node, home, bodies[0], index):
            return tensor, scope
        return node.inputs[index], home

    def _into_body(self, scope: Scope, index: int) -> Place | None:
        """The initial value of the state that is input ``index`` of the body ``scope``."""
        if scope.parent is None or not isinstance(scope.proto, GraphProto):
            return None
        node = scope.parent.nodes[scope.position[0]]
        if node.op not in _FIRST_BODY_STATE or not is_onnx(node.domain):
            return None
        if not _keeps(node, scope.parent, scope.proto, index):
            return None
        return node.inputs[index], scope.parent

    def _passed(self, tensor: gs.Tensor, scope: Scope) -> Place | None:
        """What every call of a function passes as its parameter ``tensor``; None if they differ."""
        origins = [
            self.of(*given) if given else None for given in self.arguments(tensor, scope)
        ] or [None]
        first = origins[0]
        same = all(first and one and one[0] is first[0] for one in origins)
        return first if same else None


def _input_of(tensor: gs.Tensor, scope: Scope) -> tuple[Scope, int] | None:
    """Which body or function has ``tensor`` as an input, and which one it is there."""
    for around in scope.ancestors():
        if tensor.name in around.initializers:
            return None
        names = [getattr(value, "name", value) for value in around.proto.input]
        if tensor.name in names:
            inside = around.is_function or around.parent is not None
            return (around, names.index(tensor.name)) if inside else None
    return None


def _keeps(node: gs.Node, scope: Scope, body: GraphProto, index: int) -> bool:
    """Whether input ``index`` of the ``body`` of a Loop or Scan is a state that never changes."""
    state = index - _FIRST_BODY_STATE[node.op]
    states = len(body.input) - _FIRST_BODY_STATE[node.op]
    if node.op == "Scan":
        if scope.opset < _FIRST_SCAN_WITHOUT_BATCH:
            return False
        states -= node.attrs.get("num_scan_inputs", states)
    if not 0 <= state < states or index >= len(node.inputs) or not node.inputs[index].name:
        return False
    output = state + _FIRST_STATE_OUTPUT[node.op]
    if output >= len(body.output):
        return False
    name = body.output[output].name
    identities = {
        made.output[0]: made.input[0]
        for made in body.node
        if made.op_type == "Identity" and is_onnx(made.domain)
    }
    while name in identities:
        name = identities[name]
    return bool(name == body.input[index].name)
