"""What all nodes of a graph have to do together."""

from __future__ import annotations

import pytest
from onnx import NodeProto

from deployconv.graph.shapes import Shapes
from deployconv.graph.skeleton import skeleton
from deployconv.search.cost_graph import graph_of
from deployconv.search.cost_terms import Work
from tests.build import FLOAT, graph, integers, model, node, tensor, value

BLOCK = 16
IMAGE = 1e-6 * 16 * 8 * 8
"""Millions of elements of [1, 16, 8, 8]."""


def work(*nodes: NodeProto, outputs: tuple[str, ...] = ("y",), size: int | str = 8) -> Work:
    """``x [1, 16, 8, 8]`` -> nodes; ``w`` is a 3x3 kernel, ``c`` a value per channel."""
    body = graph(
        nodes,
        [value("x", FLOAT, [1, 16, size, size])],
        [value(name, FLOAT, None) for name in outputs],
        [tensor("w", integers(16, 16, 3, 3)), tensor("c", integers(16, 1, 1))],
    )
    made = model(body)
    shapes = Shapes(skeleton(made))
    known = shapes.at({"x": (1, 16, 8, 8)})
    static = not shapes.dynamic
    found, unknown = graph_of(made.graph, known, static=static, block=BLOCK).work()
    assert not unknown
    return found


def conv(source: str, result: str) -> NodeProto:
    return node("Conv", [source, "w"], [result], pads=[1] * 4)


ONE = work(conv("x", "y"))


def test_a_conv_has_its_image_reordered_on_both_sides() -> None:
    assert ONE["reordered"] == pytest.approx(2 * IMAGE)
    assert ONE["launches"] == 3


def test_between_two_nothing_is_reordered() -> None:
    two = work(conv("x", "a"), conv("a", "y"))
    assert two["reordered"] == pytest.approx(2 * IMAGE)
    assert two["blocked"] == pytest.approx(2 * ONE["blocked"])


def test_what_two_read_is_reordered_once() -> None:
    nodes = (conv("x", "a"), conv("x", "b"), node("Add", ["a", "b"], ["y"]))
    found = work(*nodes)
    assert found["reordered"] == pytest.approx(2 * IMAGE)
    assert found["pointwise"] == pytest.approx(IMAGE)


def test_a_layer_that_needs_rows_between_them() -> None:
    between = node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2])
    found = work(conv("x", "a"), between, conv("b", "y"))
    assert found["reordered"] == pytest.approx(4 * IMAGE)


@pytest.mark.parametrize(
    "behind",
    [
        [node("Relu", ["a"], ["y"])],
        [node("Mul", ["a", "c"], ["y"])],
        [node("Add", ["a", "c"], ["b"]), node("Sigmoid", ["b"], ["y"])],
    ],
    ids=["activation", "constant factor", "bias and activation"],
)
def test_a_conv_takes_in_what_stands_behind_it(behind: list[NodeProto]) -> None:
    assert work(conv("x", "a"), *behind) == ONE


def test_but_not_two_activations() -> None:
    behind = (node("Relu", ["a"], ["b"]), node("Tanh", ["b"], ["y"]))
    found = work(conv("x", "a"), *behind)
    assert found["transcendental"] == pytest.approx(IMAGE)


def test_nor_what_stands_behind_one_that_is_read_elsewhere() -> None:
    found = work(conv("x", "a"), node("Relu", ["a"], ["y"]), outputs=("y", "a"))
    assert found["pointwise"] == pytest.approx(IMAGE)


def test_an_activation_alone_is_a_layer() -> None:
    assert work(node("Relu", ["x"], ["y"])) == {"launches": 1.0, "pointwise": IMAGE}


def test_what_no_one_reads_costs_nothing() -> None:
    assert work(conv("x", "y"), node("Relu", ["x"], ["unread"])) == ONE


def test_what_is_constant_costs_nothing() -> None:
    assert work(node("Neg", ["c"], ["d"]), node("Add", ["x", "d"], ["y"])) == {
        **{"launches": 1.0, "pointwise": IMAGE},
    }


@pytest.mark.parametrize(("size", "launches"), [(8, 0), ("n", 1)], ids=["static", "dynamic"])
def test_sizes_are_constant_where_those_of_the_inputs_are(size: int | str, launches: int) -> None:
    nodes = (
        node("Shape", ["x"], ["s"]),
        node("Abs", ["s"], ["t"]),
        node("Reshape", ["x", "t"], ["y"]),
    )
    assert work(*nodes, size=size).get("launches", 0) == launches


def test_a_resize_between_blocked_convs_repeats_blocks() -> None:
    scales = node("Constant", [], ["s"], value_floats=[1.0, 1.0, 2.0, 2.0])
    resize = node("Resize", ["a", "", "s"], ["b"], mode="nearest")
    found = work(scales, conv("x", "a"), resize, conv("b", "y"))
    assert found["repeated_blocks"] == pytest.approx(4 * IMAGE)
    assert "repeated" not in found


def test_what_a_branch_reads_is_needed() -> None:
    branch = graph([node("Relu", ["a"], ["z"])], [], [value("z", FLOAT, None)])
    condition = node("Constant", [], ["yes"], value_int=1)
    cast = node("Cast", ["yes"], ["flag"], to=9)
    choose = node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    found = work(conv("x", "a"), condition, cast, choose)
    assert found["blocked"] == ONE["blocked"]
