from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import ModelProto

from deployconv.model.constants import Constant
from deployconv.model.load import load
from deployconv.model.view import view
from tests.backends.tiny import FLOAT, constant, graph, value
from tests.build import model, node

DEEP = 3000
"""Above Python's recursion limit."""


def chain(source: str) -> ModelProto:
    """``y = x + (-(-(.. source ..)))``, with ``c`` an initializer of ones."""
    nodes = [node("Neg", [source], ["h0"])]
    nodes += [node("Neg", [f"h{i}"], [f"h{i + 1}"]) for i in range(DEEP - 1)]
    nodes.append(node("Add", ["x", f"h{DEEP - 1}"], ["y"]))
    body = graph(nodes, [value("x", FLOAT, [2])], [value("y", FLOAT, [2])], [constant("c", [1, 1])])
    return model(body)


def last_operand(proto: ModelProto) -> tuple[gs.Tensor, Constant | None]:
    seen = view(load(proto))
    scope = seen.scopes[0]
    return scope.nodes[-1].inputs[1], seen.constants.of(scope.nodes[-1].inputs[1], scope)


def test_a_deep_chain_of_constants_is_folded() -> None:
    tensor, found = last_operand(chain("c"))
    assert found is not None
    assert found.name == tensor.name
    assert found.computed
    np.testing.assert_array_equal(found.read(), [1, 1])


def test_a_deep_chain_from_an_input_is_not_constant() -> None:
    _, found = last_operand(chain("x"))
    assert found is None
