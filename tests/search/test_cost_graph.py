"""The work of a whole graph."""

from __future__ import annotations

import pytest
from onnx import NodeProto

from deployconv.graph.shapes import Shapes
from deployconv.graph.skeleton import skeleton
from deployconv.search.cost_graph import CostGraph, graph_of
from deployconv.search.cost_terms import Term, Work
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


def test_nothing_is_reordered_between_two_convs() -> None:
    two = work(conv("x", "a"), conv("a", "y"))
    assert two["reordered"] == pytest.approx(2 * IMAGE)
    assert two["blocked"] == pytest.approx(2 * ONE["blocked"])


def test_an_input_of_two_convs_is_reordered_once() -> None:
    nodes = (conv("x", "a"), conv("x", "b"), node("Add", ["a", "b"], ["y"]))
    found = work(*nodes)
    assert found["reordered"] == pytest.approx(2 * IMAGE)
    assert found["pointwise"] == pytest.approx(IMAGE)


def test_an_image_is_reordered_around_a_layer_without_blocks() -> None:
    between = node("Transpose", ["a"], ["b"], perm=[0, 1, 3, 2])
    found = work(conv("x", "a"), between, conv("b", "y"))
    assert found["reordered"] == pytest.approx(4 * IMAGE)


@pytest.mark.parametrize(
    "after",
    [
        [node("Relu", ["a"], ["y"])],
        [node("Mul", ["a", "c"], ["y"])],
        [node("Add", ["a", "c"], ["b"]), node("Sigmoid", ["b"], ["y"])],
    ],
    ids=["activation", "constant factor", "bias and activation"],
)
def test_a_conv_applies_the_layers_after_it(after: list[NodeProto]) -> None:
    assert work(conv("x", "a"), *after) == ONE


def test_a_conv_applies_only_one_activation() -> None:
    after = (node("Relu", ["a"], ["b"]), node("Tanh", ["b"], ["y"]))
    found = work(conv("x", "a"), *after)
    assert found["transcendental"] == pytest.approx(IMAGE)


def test_a_conv_that_is_read_elsewhere_applies_no_activation() -> None:
    found = work(conv("x", "a"), node("Relu", ["a"], ["y"]), outputs=("y", "a"))
    assert found["pointwise"] == pytest.approx(IMAGE)


def test_an_activation_without_a_conv_is_a_layer() -> None:
    assert work(node("Relu", ["x"], ["y"])) == {"launches": 1.0, "pointwise": IMAGE}


def test_an_unread_node_costs_nothing() -> None:
    assert work(conv("x", "y"), node("Relu", ["x"], ["unread"])) == ONE


def test_a_constant_costs_nothing() -> None:
    assert work(node("Neg", ["c"], ["d"]), node("Add", ["x", "d"], ["y"])) == {
        **{"launches": 1.0, "pointwise": IMAGE},
    }


@pytest.mark.parametrize(("size", "launches"), [(8, 0), ("n", 1)], ids=["static", "dynamic"])
def test_sizes_are_constant_if_those_of_the_inputs_are(size: int | str, launches: int) -> None:
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


@pytest.mark.parametrize(
    ("mode", "coordinates", "factor", "term"),
    [
        ("linear", "half_pixel", 2.0, "linear_blocks"),
        ("linear", "align_corners", 3.0, "linear_blocks"),
        ("linear", "pytorch_half_pixel", 2.0, "linear"),
        ("linear", "half_pixel", 1.5, "linear"),
        ("cubic", "half_pixel", 2.0, "cubic"),
    ],
)
def test_a_linear_resize_by_whole_factors_leaves_channels_in_blocks(
    mode: str, coordinates: str, factor: float, term: Term
) -> None:
    scales = node("Constant", [], ["s"], value_floats=[1.0, 1.0, factor, factor])
    kind = {"mode": mode, "coordinate_transformation_mode": coordinates}
    found = work(
        scales, conv("x", "a"), node("Resize", ["a", "", "s"], ["b"], **kind), conv("b", "y")
    )
    assert found[term] == pytest.approx(factor**2 * IMAGE)
    # In the plain layout its image and its result are reordered too.
    size = factor**2 * IMAGE
    plain = 0.0 if term == "linear_blocks" else IMAGE + size
    assert found["reordered"] == pytest.approx(IMAGE + size + plain)


def test_a_tensor_that_a_branch_reads_is_needed() -> None:
    branch = graph([node("Relu", ["a"], ["z"])], [], [value("z", FLOAT, None)])
    condition = node("Constant", [], ["yes"], value_int=1)
    cast = node("Cast", ["yes"], ["flag"], to=9)
    choose = node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    found = work(conv("x", "a"), condition, cast, choose)
    assert found["blocked"] == ONE["blocked"]


# --- graphs with a node replaced


def image(source: str, result: str, op: str = "Conv") -> NodeProto:
    """A layer from an image to one of the same shape."""
    return conv(source, result) if op == "Conv" else node(op, [source], [result])


def integer_conv(source: str, result: str) -> list[NodeProto]:
    real, made = f"{source}_real", f"{result}_made"
    return [
        node("DequantizeLinear", [source, "s"], [real]),
        node("Conv", [real, "v"], [made], pads=[1] * 4),
        node("QuantizeLinear", [made, "s"], [result]),
    ]


INTEGERS = [
    node("DequantizeLinear", ["q", "s"], ["v"]),
    node("QuantizeLinear", ["x", "s"], ["a"]),
    *integer_conv("a", "b"),
    *integer_conv("b", "c8"),
    node("DequantizeLinear", ["c8", "s"], ["y"]),
]
VARIANTS: dict[str, tuple[list[NodeProto], int, list[NodeProto]]] = {
    # the nodes, the index of one, what takes its place
    "an activation that a Conv can apply": (
        [image("x", "a"), image("a", "b", "Exp"), image("b", "y", "Relu")],
        1,
        [image("a", "b")],
    ),
    "blocks that are no longer left": (
        [image("x", "a"), image("a", "b", "Exp"), image("b", "c2"), image("c2", "y", "Relu")],
        1,
        [image("a", "b")],
    ),
    "blocks that are left": (
        [image("x", "a"), image("a", "b"), node("Add", ["b", "a"], ["d"]), image("d", "y")],
        1,
        [image("a", "b", "Exp")],
    ),
    "a reader less": (
        [image("x", "a"), image("a", "b", "Relu"), image("a", "d"), node("Add", "bd", ["y"])],
        2,
        [image("x", "d")],
    ),
    "a reader more": (
        [image("x", "a"), image("a", "b", "Relu"), image("x", "d"), node("Add", "bd", ["y"])],
        2,
        [image("a", "d")],
    ),
    "what led to the node alone": (
        [image("x", "a"), image("a", "b", "Exp"), image("b", "d"), image("d", "y", "Relu")],
        2,
        [image("x", "d", "Sin")],
    ),
    "a node that nothing read": (
        [image("x", "a"), image("x", "unread"), image("a", "y")],
        2,
        [image("unread", "y", "Exp")],
    ),
    "several nodes for one": (
        [image("x", "a"), image("a", "b", "Exp"), image("b", "y")],
        1,
        [image("a", "n1"), image("n1", "n2", "Relu"), node("Add", ["n2", "c"], ["b"])],
    ),
    "a constant": (
        [image("x", "a"), node("Add", ["a", "x"], ["b"]), image("b", "y", "Relu")],
        1,
        [node("Mul", ["a", "new"], ["b"])],
    ),
    "an integer layer that becomes real": (INTEGERS, 7, [image("c8_made", "c8", "Cast")]),
    "integer layers that both become real": (INTEGERS, 4, [image("b_made", "b", "Cast")]),
    "integers that are used as they are": (INTEGERS, 8, [image("c8", "y", "Cast")]),
    "nothing": ([image("x", "a"), image("a", "y")], 1, [image("a", "y")]),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_has_the_same_work_as_a_new_graph(name: str) -> None:
    nodes, index, new = VARIANTS[name]
    names = {result for part in (*nodes, *new) for result in part.output}
    shapes = {"x": (1, 16, 8, 8), "w": (16, 16, 3, 3), "q": (16, 16, 3, 3), "v": (16, 16, 3, 3)}
    shapes |= dict.fromkeys(names - {"v"}, (1, 16, 8, 8))
    constants = ["w", "c", "q", "s"]
    graphs = [
        CostGraph(made, shapes, [*constants, *extra], ["y"], static=True, block=BLOCK)
        for made, extra in (
            (nodes, []),
            ([*nodes[:index], *new, *nodes[index + 1 :]], ["new"]),
        )
    ]
    original, expected = graphs
    before = original.work()
    variant = original.replaced(index, new, shapes, ["new"])
    assert variant.work() == expected.work()
    assert list(variant.work()[0]) == list(expected.work()[0])
    assert original.work() == before
    # Back again: a variant may be changed further.
    if len(new) == 1:
        assert variant.replaced(index, [nodes[index]], shapes, []).work() == before


def test_a_shape_that_becomes_known_counts_for_its_readers() -> None:
    nodes = [image("x", "a", "Exp"), image("a", "y", "Exp")]
    graph = CostGraph(nodes, {"x": (1, 16, 8, 8)}, [], ["y"], static=True, block=0)
    assert graph.work() == ({}, {"a", "y"})
    known = dict.fromkeys("ay", (1, 16, 8, 8))
    variant = graph.replaced(0, [image("x", "a", "Sin")], known, [])
    assert variant.work() == (
        {"launches": 2.0, "copied": IMAGE, "transcendental": IMAGE},
        frozenset(),
    )


def test_the_work_that_a_variant_lacks() -> None:
    nodes = [image("x", "a", "Exp"), image("a", "b", "Exp"), image("b", "y", "Relu")]
    shapes = dict.fromkeys("xaby", (1, 16, 8, 8))
    graph = CostGraph(nodes, shapes, [], ["y"], static=True, block=0)
    exp: Work = {"launches": 1.0, "transcendental": IMAGE}
    relu: Work = {"launches": 1.0, "pointwise": IMAGE}
    assert graph.work_without(graph.replaced(1, [image("x", "b", "Neg")], shapes, [])) == {
        (0, 0): exp,
        (1, 0): exp,
    }
    last = graph.replaced(2, [image("b", "y", "Neg")], shapes, [])
    assert graph.work_without(last) == {(2, 0): relu}
