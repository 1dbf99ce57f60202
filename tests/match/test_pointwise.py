"""Which layers treat every position alike, and which of them keep zeros."""

from __future__ import annotations

import numpy as np
import pytest

from deployconv.graph.load import load
from deployconv.graph.scope import Scope
from deployconv.graph.view import View, view
from deployconv.match.pointwise import is_pointwise, keeps_zero, values_along
from tests.build import Array
from tests.match.graphs import floats, parsed

CONSTANTS: dict[str, Array] = {
    "one": np.array(1, np.float32),
    "zero": np.array(0, np.float32),
    "two": floats(2),
    "channels": floats(2, -3).reshape(2, 1, 1),
    "alone": floats(2).reshape(1, 1, 1, 1),
    "batch": floats(2, 3).reshape(2, 1, 1, 1),
    "rows": np.arange(1, 5, dtype=np.float32).reshape(4, 1),
    "last": floats(1, 2, 3),
    "mask": floats(1, 0, 1),
    "plane": np.arange(12, dtype=np.float32).reshape(4, 3),
    "gains": floats(2, 3),
    "shifts": floats(0, 0),
    "ones": floats(1, 1),
}

KEEPING = {
    "Relu(x)": False,
    "Abs(x)": False,
    "Tanh(x)": False,
    "Sqrt(x)": False,
    "Gelu(x)": False,
    "LeakyRelu<alpha=0.5>(x)": False,
    "PRelu(x, channels)": True,
    "PRelu(x, one)": False,
    "Mul(x, channels)": True,
    "Mul(channels, x)": True,
    "Mul(x, alone)": False,
    "Div(x, two)": False,
    "Add(x, zero)": False,
    "Clip(x, zero, one)": False,
    "Clip(x, , one)": False,
    "Max(x, zero)": False,
    "Pow(x, two)": False,
    "BatchNormalization(x, gains, shifts, shifts, ones)": True,
}
"""Layers for which a zero stays a zero; True if they have values per channel."""

MOVING = {
    "Sigmoid(x)": False,
    "Exp(x)": False,
    "Softplus(x)": False,
    "Reciprocal(x)": False,
    "Log(x)": False,
    "Add(x, channels)": True,
    "Sub(one, x)": False,
    "Div(one, x)": False,
    "Div(x, zero)": False,
    "Pow(x, zero)": False,
    "Clip(x, one)": False,
    "Max(x, one)": False,
    "BatchNormalization(x, gains, ones, shifts, ones)": True,
    "BatchNormalization(x, gains, shifts, ones, ones)": True,
}
"""Layers for which a zero does not stay a zero."""

OTHERS = [
    "Softmax(x)",
    "Mul(x, plane)",
    "QuantizeLinear<axis=3>(x, last)",
    "CumSum(x, zero64)",
    "InstanceNormalization(x, gains, shifts)",
    "ReduceMean(x)",
    "Dropout(x)",
    "GlobalAveragePool(x)",
]
"""Layers whose result depends on the position, or on other positions."""


def layer(call: str) -> tuple[View, Scope]:
    given = {**CONSTANTS, "zero64": np.array(2, np.int64)}
    seen = view(load(parsed(f"y = {call}", given, "1,2,4,3", opset=20)))
    return seen, seen.scopes[0]


@pytest.mark.filterwarnings("error")  # users read standard error
@pytest.mark.parametrize("call", [*KEEPING, *MOVING])
def test_pointwise(call: str) -> None:
    seen, scope = layer(call)
    (node,) = scope.nodes
    assert is_pointwise(node, scope, seen)
    axis, _ = values_along(node, scope, seen)
    assert (axis in (1, -3)) == {**KEEPING, **MOVING}[call]
    x = next(tensor for tensor in node.inputs if tensor.name == "x")
    kept = keeps_zero(scope.nodes, x, node.outputs[0], scope, seen)
    assert kept == (call in KEEPING)


@pytest.mark.parametrize("call", OTHERS)
def test_not_pointwise(call: str) -> None:
    seen, scope = layer(call)
    assert not is_pointwise(scope.nodes[0], scope, seen)


def test_batch_normalization_that_is_still_training() -> None:
    call = "BatchNormalization<training_mode=1>(x, gains, shifts, shifts, ones)"
    seen, scope = layer(call)
    assert not is_pointwise(scope.nodes[0], scope, seen)


@pytest.mark.parametrize(
    ("call", "rank"), [("Mul(x, two)", 1), ("Mul(x, channels)", 3), ("Mul(x, alone)", 4)]
)
def test_the_least_rank_that_a_constant_fits(call: str, rank: int) -> None:
    seen, scope = layer(call)
    assert values_along(scope.nodes[0], scope, seen)[1] == rank


@pytest.mark.parametrize(
    ("call", "axis"),
    [
        ("Mul(x, last)", -1),
        ("Add(x, mask)", -1),
        ("PRelu(x, rows)", -2),
        ("Mul(x, batch)", -4),
        ("BatchNormalization(x, gains, shifts, shifts, ones)", 1),
    ],
)
def test_the_axis_of_the_values(call: str, axis: int) -> None:
    """Which axis has the channels depends on where the layer stands."""
    seen, scope = layer(call)
    assert is_pointwise(scope.nodes[0], scope, seen)
    assert values_along(scope.nodes[0], scope, seen)[0] == axis


@pytest.mark.parametrize(("opset", "alike"), [(6, False), (7, True)])
def test_broadcasting_before_opset_7(opset: int, alike: bool) -> None:
    """A slope of one dimension belonged to the channels, wherever they were."""
    original = parsed("y = PRelu(x, last)", CONSTANTS, "1,2,4,3", opset=opset, ir_version=3)
    seen = view(load(original))
    scope = seen.scopes[0]
    assert is_pointwise(scope.nodes[0], scope, seen) == alike


def test_several_layers_keep_zero_together() -> None:
    """``exp(0)`` is not 0, but ``exp(0) - 1`` is."""
    seen = view(load(parsed("e = Exp(x) y = Sub(e, one)", CONSTANTS, "1,2,4,3")))
    scope = seen.scopes[0]
    x, y = scope.nodes[0].inputs[0], scope.nodes[1].outputs[0]
    assert keeps_zero(scope.nodes, x, y, scope, seen)
    assert not keeps_zero(scope.nodes[:1], x, scope.nodes[0].outputs[0], scope, seen)
