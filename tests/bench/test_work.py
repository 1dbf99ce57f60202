"""Multiplications and bytes of small models, against what one counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bench.work import Work, work_of
from onnx import ModelProto, NodeProto

from tests.build import FLOAT, graph, integers, model, node, tensor, value

Shape = tuple[int, ...]


def net(*nodes: NodeProto, x: tuple[Any, ...], **weights: Shape) -> ModelProto:
    """``x`` -> nodes -> ``y``."""
    constants = [tensor(name, integers(*shape)) for name, shape in weights.items()]
    return model(graph(nodes, [value("x", FLOAT, x)], [value("y", FLOAT, None)], constants))


LAYERS: dict[str, tuple[ModelProto, Shape, int, int]] = {
    # model, shape of x, multiplications, elements of x, weights and y
    "Conv": (
        net(node("Conv", ["x", "w"], ["y"], group=2), x=(1, 4, 5, 6), w=(6, 2, 3, 3)),
        *((1, 4, 5, 6), 6 * 2 * 9 * 3 * 4, 120 + 108 + 72),
    ),
    "ConvTranspose": (
        net(
            node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]), x=(1, 4, 5, 6), w=(4, 3, 2, 2)
        ),
        *((1, 4, 5, 6), 120 * 3 * 4, 120 + 48 + 3 * 10 * 12),
    ),
    "MatMul": (
        net(node("MatMul", ["x", "w"], ["y"]), x=(2, 3, 4), w=(4, 5)),
        *((2, 3, 4), 2 * 3 * 4 * 5, 24 + 20 + 30),
    ),
    "Gemm": (
        net(node("Gemm", ["x", "w"], ["y"], transA=1), x=(4, 3), w=(4, 5)),
        *((4, 3), 3 * 4 * 5, 12 + 20 + 15),
    ),
    "open sizes": (
        net(node("Conv", ["x", "w"], ["y"]), x=("n", 4, "h", 6), w=(6, 4, 1, 1)),
        *((2, 4, 5, 6), 2 * 30 * 24, 240 + 24 + 360),
    ),
}


@pytest.mark.parametrize(("made", "shape", "macs", "elements"), LAYERS.values(), ids=list(LAYERS))
def test_one_layer(made: ModelProto, shape: Shape, macs: int, elements: int) -> None:
    assert work_of(made, {"x": shape}) == Work(macs, 4 * elements, 4 * elements)


def test_what_stands_between_is_moved_twice_and_a_reshape_never() -> None:
    nodes = (
        node("Relu", ["x"], ["a"]),
        node("Reshape", ["a", "s"], ["b"]),
        node("Neg", ["b"], ["y"]),
    )
    body = graph(
        nodes,
        [value("x", FLOAT, [2, 6])],
        [value("y", FLOAT, None)],
        [tensor("s", np.array([3, 4]))],
    )
    found = work_of(model(body), {"x": (2, 6)})
    assert found == Work(macs=0, needed=2 * 4 * 12 + 2 * 8, moved=4 * 4 * 12)


def test_the_branch_with_more_work_counts() -> None:
    branches = {
        f"{name}_branch": graph(
            [node("Conv", ["x", kernel], [name])], [], [value(name, FLOAT, None)]
        )
        for name, kernel in (("then", "small"), ("else", "large"))
    }
    body = graph(
        [node("If", ["flag"], ["y"], **branches)],
        [value("x", FLOAT, [1, 2, 8, 8]), value("flag", 9, [])],
        [value("y", FLOAT, None)],
        [tensor("small", integers(2, 2, 1, 1)), tensor("large", integers(2, 2, 3, 3))],
    )
    assert work_of(model(body), {"x": (1, 2, 8, 8), "flag": ()}).macs == 2 * 2 * 9 * 36


def test_shapes_that_are_not_known() -> None:
    made = net(
        node("Reshape", ["x", "s"], ["a"]), node("Conv", ["a", "w"], ["y"]), x=(8,), w=(1, 2, 1, 1)
    )
    made.graph.input.append(value("s", 7, [4]))
    found = work_of(made, {"x": (8,), "s": (4,)})
    assert (found.macs, found.moved) == (None, None)
    assert found.needed == 4 * 8 + 8 * 4 + 4 * 2
