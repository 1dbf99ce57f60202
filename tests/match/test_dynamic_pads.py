"""ConvTransposeWithDynamicPads of onnxruntime, which takes its pads as an input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

from tests.build import (
    FLOAT,
    assert_rewritten,
    graph,
    integers,
    model,
    node,
    ops,
    reasons,
    tensor,
    value,
)

HELD = {
    "pads": np.array([1, 0, 2, 1]),
    "two": np.array([2, 2]),
    "one": np.array([1, 1]),
    "kernel": np.array([4, 4]),
    "from": np.array([2]),
    "to": np.array([4]),
    "w": integers(2, 3, 4, 4),
    "b": integers(3, seed=1),
}
COMPUTED = [
    node("Shape", ["x"], ["shape"]),
    node("Slice", ["shape", "from", "to"], ["image"]),
    node("Mul", ["image", "two"], ["wanted"]),
    node("Sub", ["image", "one"], ["gaps"]),
    node("Mul", ["gaps", "two"], ["spread"]),
    node("Add", ["spread", "kernel"], ["full"]),
    node("Sub", ["full", "wanted"], ["total"]),
    node("Div", ["total", "two"], ["begin"]),
    node("Sub", ["total", "begin"], ["end"]),
    node("Concat", ["begin", "end"], ["p"], axis=0),
]
"""The pads of SAME, which are 1 at all sizes."""


def padded(
    pads: str, nodes: Sequence[NodeProto] = (), bias: bool = True, **attributes: Any
) -> ModelProto:
    """``x`` of dynamic batch, height and width -> (nodes) -> the layer with ``pads`` -> ``y``."""
    inputs = ["x", "w", pads, "b"] if bias else ["x", "w", pads]
    domain = "com.microsoft"
    layer = node(
        "ConvTransposeWithDynamicPads", inputs, ["y"], name="up", domain=domain, **attributes
    )
    given = [value("x", FLOAT, ["n", 2, "h", "v"])]
    if pads == "fed":
        given.append(value("fed", 7, [4]))
    made = [layer] if not nodes else [*nodes, layer]
    read = {name for proto in made for name in proto.input}
    held = [tensor(name, array) for name, array in HELD.items() if name in read]
    body = graph(made, given, [value("y", FLOAT, [None] * 4)], held)
    return model(body, domains=[domain])


STRIDES = {"strides": [2, 2]}
LAYERS = {
    "constant": padded("pads", **STRIDES),
    "without a bias": padded("pads", bias=False, **STRIDES),
    "output_padding": padded("pads", output_padding=[1, 0], **STRIDES),
    "dilated": padded("pads", dilations=[2, 1], **STRIDES),
    "computed, the same at all sizes": padded("p", COMPUTED, **STRIDES),
}


@pytest.mark.parametrize("size", [(2, 2, 5, 6), (1, 2, 3, 9)])
@pytest.mark.parametrize("original", LAYERS.values(), ids=list(LAYERS))
def test_pads_that_are_the_same_at_all_sizes(original: ModelProto, size: tuple[int, ...]) -> None:
    after = assert_rewritten(original, {"x": integers(*size)})
    assert set(ops(after)) <= {"Conv", "DepthToSpace", "Slice"}


@pytest.mark.parametrize(
    ("pads", "nodes"),
    [
        ("fed", ()),
        ("p", [*COMPUTED[:2], node("Concat", ["image", "image"], ["p"], axis=0)]),
    ],
    ids=["fed", "depend on the size"],
)
def test_pads_that_vary(pads: str, nodes: Sequence[NodeProto]) -> None:
    assert reasons(padded(pads, nodes, **STRIDES), verify=False) == ["runtime-pads"]
