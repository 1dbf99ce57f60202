"""Models whose nodes are in no order in which they can run, as some converters write them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

import deployconv
from deployconv.errors import ModelError
from deployconv.graph.load import load
from deployconv.graph.order import sort_nodes
from deployconv.graph.tensors import graph_attributes
from deployconv.proof.twins import without_rounding
from tests.build import (
    FLOAT,
    assert_equal,
    assert_rewritten,
    graph,
    integers,
    model,
    node,
    run,
    tensor,
    upsampler,
    value,
)

FLOAT16, BOOL = onnx.TensorProto.FLOAT16, onnx.TensorProto.BOOL
STRIDE = {"strides": [2, 2], "pads": [1] * 4}


def float16_islands() -> ModelProto:
    """onnxruntime's converter with inputs kept in float32: the Cast of the input comes last."""
    nodes = [
        node("ConvTranspose", ["xh", "w"], ["c"], **STRIDE),
        node("Relu", ["c"], ["a"]),
        node("Cast", ["x"], ["xh"], to=FLOAT16),
        node("Cast", ["a"], ["y"], to=FLOAT),
    ]
    weight = tensor("w", integers(2, 3, 4, 4, dtype=np.float16))
    x, y = value("x", FLOAT, [1, 2, 5, 6]), value("y", FLOAT, [1, 3, 10, 12])
    return model(graph(nodes, [x], [y], [weight]))


def from_the_last() -> ModelProto:
    """Two layers and the activation between them, the last first."""
    nodes = [
        node("ConvTranspose", ["b", "v"], ["y"], name="second", **STRIDE),
        node("Relu", ["a"], ["b"]),
        node("ConvTranspose", ["x", "w"], ["a"], name="first", **STRIDE),
    ]
    weights = [tensor("w", integers(2, 3, 4, 4)), tensor("v", integers(3, 2, 4, 4, seed=1))]
    x, y = value("x", FLOAT, [1, 2, 5, 6]), value("y", FLOAT, [1, 2, 20, 24])
    return model(graph(nodes, [x], [y], weights))


def body_first(backwards: bool = False) -> ModelProto:
    """An If before the node whose output its bodies read; one may be ``backwards`` itself."""
    inner = [node("ConvTranspose", ["h", "w"], ["c"], **STRIDE), node("Relu", ["c"], ["d"])]
    then = graph(inner[::-1] if backwards else inner, [], [value("d", FLOAT, [1, 3, 10, 12])])
    other = graph(
        [node("ConvTranspose", ["h", "w"], ["e"], **STRIDE)],
        [],
        [value("e", FLOAT, [1, 3, 10, 12])],
    )
    nodes = [
        node("If", ["yes"], ["y"], then_branch=then, else_branch=other),
        node("Relu", ["x"], ["h"]),
    ]
    weights = [tensor("w", integers(2, 3, 4, 4)), tensor("yes", np.array(True))]
    x, y = value("x", FLOAT, [1, 2, 5, 6]), value("y", FLOAT, [1, 3, 10, 12])
    return model(graph(nodes, [x], [y], weights))


@pytest.mark.parametrize("make", [float16_islands, from_the_last, body_first])
def test_nodes_out_of_order_are_rewritten(make: Callable[[], ModelProto]) -> None:
    written = assert_rewritten(make())
    onnx.checker.check_model(written)


def test_the_model_that_was_given_keeps_its_order() -> None:
    made = from_the_last()
    before = made.SerializeToString()
    deployconv.rewrite(made, bench=False)
    assert made.SerializeToString() == before


def test_a_node_moves_no_further_than_it_must() -> None:
    made = float16_islands()
    assert [each.op_type for each in load(made).proto.graph.node] == [
        *("Cast", "ConvTranspose", "Relu", "Cast")
    ]


def test_nodes_in_order_stay_as_they_are() -> None:
    made = upsampler()
    before = made.SerializeToString()
    sort_nodes(made, "net")
    assert made.SerializeToString() == before


def test_a_body_and_a_function_out_of_order() -> None:
    """onnxruntime refuses such a body; what is loaded is sorted all the same."""
    opsets = [helper.make_opsetid("", 17)]
    body = [node("Relu", ["h"], ["b"]), node("Neg", ["a"], ["h"])]
    made = body_first(backwards=True)
    made.functions.append(helper.make_function("local", "Both", ["a"], ["b"], body, opsets))
    loaded = load(made).proto
    then = dict(graph_attributes(loaded.graph.node[1]))["then_branch"]
    assert [each.op_type for each in then.node] == ["ConvTranspose", "Relu"]
    assert [each.op_type for each in loaded.functions[0].node] == ["Neg", "Relu"]


def test_a_circle_is_named_in_one_line() -> None:
    """Nodes that only read what the circle makes are not named."""
    made = upsampler()
    made.graph.node[0].input[0] = "p"
    made.graph.node.extend(
        [
            node("Relu", ["q"], ["p"], name="one"),
            node("Neg", ["p"], ["q"]),
            node("Relu", ["x"], ["free"]),
        ]
    )
    with pytest.raises(
        ModelError, match=r"in a circle, so none can run first: Relu 'one', Neg 'q'"
    ):
        load(made)


def test_activations_are_found_in_a_model_out_of_order() -> None:
    """The comparison without rounding reads the original, not its sorted copy."""
    nodes = [
        node("DequantizeLinear", ["q", "s", "z"], ["h"]),
        node("QuantizeLinear", ["r", "s", "z"], ["q"]),
        node("Relu", ["x"], ["r"]),
        node("Neg", ["h"], ["y"]),
    ]
    held = [tensor("s", np.float32(0.5)), tensor("z", np.uint8(3))]
    x, y = value("x", FLOAT, [4]), value("y", FLOAT, [4])
    made = model(graph(nodes, [x], [y], held))
    twin = without_rounding(made.SerializeToString())
    assert twin is not None
    feeds = {"x": np.array([0.3, 0.7, -1, 2], np.float32)}
    expected = {"y": -np.maximum(feeds["x"], 0)}
    assert_equal(expected, run(onnx.load_model_from_string(twin), feeds))
