"""Which nodes of a quantized graph run on integers, and the work of that graph."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto

from deployconv.graph.shapes import Shapes
from deployconv.graph.skeleton import skeleton
from deployconv.search.cost_graph import graph_of
from deployconv.search.cost_terms import Work
from tests.build import FLOAT, graph, integers, model, node, tensor, value

IMAGE = 1e-6 * 16 * 8 * 8
"""Millions of elements of [1, 16, 8, 8]."""
MACS = 16 * 9 * IMAGE


def quantize(source: str, result: str) -> NodeProto:
    return node("QuantizeLinear", [source, "scale", "zero"], [result])


def dequantize(source: str, result: str) -> NodeProto:
    return node("DequantizeLinear", [source, "scale", "zero"], [result])


def conv(source: str, result: str) -> list[NodeProto]:
    """A Conv 3x3 from integers to integers, with a DequantizeLinear of its own for the weight."""
    real, weight, made = (f"{result}_{part}" for part in ("real", "weight", "made"))
    return [
        dequantize(source, real),
        node("DequantizeLinear", ["w", "step"], [weight]),
        node("Conv", [real, weight], [made], pads=[1] * 4),
        quantize(made, result),
    ]


def work(*nodes: NodeProto) -> Work:
    """``x [1, 16, 8, 8]`` -> nodes -> ``y``."""
    body = graph(
        nodes,
        [value("x", FLOAT, [1, 16, 8, 8])],
        [value("y", FLOAT, None)],
        [
            tensor("w", integers(16, 16, 3, 3, dtype=np.int8)),
            *(tensor(name, np.float32(0.1)) for name in ("scale", "step")),
            tensor("zero", np.uint8(3)),
            tensor("sizes", np.array([1, 16, 8, 8])),
        ],
    )
    made = model(body)
    (shapes,) = Shapes(skeleton(made)).instances()
    found, unknown = graph_of(made.graph, shapes, static=True, block=16).work()
    assert not unknown
    return found


def test_a_conv_between_integers() -> None:
    found = work(quantize("x", "a"), *conv("a", "b"), dequantize("b", "y"))
    assert found["integer"] == pytest.approx(MACS)
    assert found["integer_columns"] == pytest.approx(9 * IMAGE)
    assert found["quantized"] == pytest.approx(2 * IMAGE)
    assert found["integer_layout"] == pytest.approx(2 * IMAGE)
    assert "blocked" not in found


def test_integers_between_two_convs_keep_their_layout() -> None:
    found = work(quantize("x", "a"), *conv("a", "b"), *conv("b", "c"), dequantize("c", "y"))
    assert found["integer"] == pytest.approx(2 * MACS)
    assert found["quantized"] == pytest.approx(2 * IMAGE)
    assert found["integer_layout"] == pytest.approx(2 * IMAGE)


def test_a_result_that_is_not_quantized_is_real() -> None:
    *first, conv_node, _ = conv("a", "b")
    found = work(quantize("x", "a"), *first, conv_node, node("Neg", ["b_made"], ["y"]))
    assert found["blocked"] > 0
    assert found["quantized"] == pytest.approx(2 * IMAGE)
    assert "integer" not in found


def moved(*moves: NodeProto) -> Work:
    """Two Convs with ``moves`` from ``m`` to ``n`` on integers between them."""
    between = [dequantize("b", "m"), *moves, quantize("n", "c")]
    return work(
        quantize("x", "a"), *conv("a", "b"), *between, *conv("c", "d"), dequantize("d", "y")
    )


def test_layers_that_move_integers_read_channels_first() -> None:
    found = moved(node("Reshape", ["m", "sizes"], ["n"]))
    assert found["integer_layout"] == pytest.approx(4 * IMAGE)
    assert found["quantized"] == pytest.approx(2 * IMAGE)


def test_transposes_to_the_layout_of_the_integers_cost_nothing() -> None:
    found = moved(
        node("Transpose", ["m"], ["channels_last"], perm=[0, 2, 3, 1]),
        node("Transpose", ["channels_last"], ["moved"], perm=[0, 2, 1, 3]),
        node("Transpose", ["moved"], ["n"], perm=[0, 3, 1, 2]),
    )
    assert found["integer_layout"] == pytest.approx(2 * IMAGE)
    assert found["transposed_rows"] == pytest.approx(IMAGE)


def test_a_slice_reads_channels_first_and_last() -> None:
    bounds = [
        node("Constant", [], [name], value_ints=values)
        for name, values in {"from": [0], "to": [8], "axis": [2]}.items()
    ]
    found = moved(*bounds, node("Slice", ["m", "from", "to", "axis"], ["n"]))
    assert found["integer_layout"] == pytest.approx(2 * IMAGE)
    assert found["copied"] == pytest.approx(IMAGE)


def test_a_real_layer_between_integer_layers() -> None:
    found = moved(node("Sigmoid", ["m"], ["n"]))
    assert found["quantized"] == pytest.approx(4 * IMAGE)
    assert found["integer_layout"] == pytest.approx(4 * IMAGE)
    assert found["transcendental"] == pytest.approx(IMAGE)
