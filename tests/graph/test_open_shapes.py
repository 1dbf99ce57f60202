"""Shapes for all sizes, compared with those that onnxruntime computes at some sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from deployconv.graph.load import load
from deployconv.graph.symbolic import Unproven
from deployconv.graph.view import view
from tests.build import Array, integers, run
from tests.match.graphs import floats, ints, parsed

SIZES = [(1, 1), (2, 3), (4, 7), (5, 2), (9, 12), (16, 16)]

SHAPED = {
    "Conv": "y = Conv<pads=[1,0,1,2]>(x, w, b)",
    "Conv, dilated": "y = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w, b)",
    "SAME padding": 'y = Conv<auto_pad="SAME_LOWER">(x, w, b)',
    "pooling": "y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)",
    "average": "y = AveragePool<kernel_shape=[2,2], pads=[1,1,0,0]>(x)",
    "ConvTranspose": "y = ConvTranspose<strides=[2,3], pads=[1,0,0,1], output_padding=[1,0]>(x, v)",
    "ConvTranspose, group": "y = ConvTranspose<strides=[2,2], dilations=[2,1], group=2>(x, g)",
    "Resize": "y = Resize(x, , scales)",
    "Resize by sizes": "s = Shape(x) t = Mul(s, factors) y = Resize(x, , , t)",
    "Pad": "y = Pad(x, pads)",
    "DepthToSpace": "c = Concat<axis=1>(x, x) y = DepthToSpace<blocksize=2>(c)",
    "Einsum": 'y = Einsum<equation="nchw->nwhc">(x)',
    "Flatten": "y = Flatten<axis=2>(x)",
    "layers that keep it": "p = Relu(x) q = Softmax(p) r = Sigmoid(q) y = Dropout(r)",
    "Reshape": "y = Reshape(x, joined)",
    "Slice": "y = Slice(x, first, last, rows)",
    "Split": "s = Shape(x) nc, hw = Split<axis=0, num_outputs=2>(s) t = Mul(hw, hw)"
    " u = Concat<axis=0>(nc, t) y = Expand(one, u)",
    "Split of sizes": "s = Shape(x) n, chw = Split<axis=-1>(s, parts) y = Expand(one, chw)",
    "Gather": "y = Gather<axis=1>(x, swapped)",
    "Transpose": "y = Transpose(x)",
    "back where it was": "d = Conv(x, w1) p = Pad(d, pads) y = Slice(p, first, last, rows)",
}
"""Nodes whose shape is known at all sizes."""

UNKNOWN = {
    "rounded": "y = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,0,0]>(x)",
    "rounded up": "y = MaxPool<kernel_shape=[1,1], strides=[2,2], ceil_mode=1>(x)",
    "Conv with a stride": "y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b)",
    "SAME padding and a stride": 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w, b)',
    "corners": 'y = Resize<coordinate_transformation_mode="align_corners">(x, , scales)',
    "a scale that rounds": "y = Resize(x, , uneven)",
    "one ratio for all axes": "s = Shape(x) t = Mul(s, unlike)"
    ' y = Resize<keep_aspect_ratio_policy="not_larger">(x, , , t)',
    "whatever is 1": "y = Squeeze(x)",
    "from the third row": "y = Slice(x, first, last, rows, threes)",
    "a remainder": "y = Reshape(x, pairs)",
    "where it is positive": "y = NonZero(x)",
}
"""Nodes of which only the rank is known, from shape inference."""


def layered(body: str) -> ModelProto:
    constants = {
        "v": integers(2, 3, 4, 4),
        "g": integers(2, 1, 3, 3),
        "w1": integers(2, 2, 1, 1),
        "scales": floats(1, 1, 2, 3),
        "uneven": floats(1, 1, 1.5, 2),
        "factors": ints(1, 1, 2, 3),
        "unlike": ints(1, 1, 2, 3),
        "pads": ints(0, 0, 1, 0, 0, 1, 2, 0),
        "joined": ints(0, -1),
        "pairs": ints(-1, 3),
        "first": ints(1) if "threes" not in body else ints(2),
        "last": ints(2**63 - 1),
        "rows": ints(2),
        "threes": ints(3),
        "swapped": ints(1, 0, 1),
        "one": floats(1),
        "parts": ints(1, 3),
    }
    if body.startswith("c = Concat"):
        body = body.replace("(x, x)", "(x, x, x, x)")
    return parsed(body, constants, "n,2,h,v", opset=18)


def claims(model: ModelProto) -> tuple[Any, bool]:
    """What is known of ``y``, and whether its node does the same at all sizes."""
    seen = view(load(model))
    main = seen.scopes[0]
    last = main.nodes[-1]
    try:
        known = seen.open_shapes.of(last.outputs[0], main)
    except Unproven:
        return None, False
    return known, seen.open_shapes.is_proven(last, main)


@pytest.mark.parametrize("body", SHAPED.values(), ids=SHAPED)
def test_a_shape_at_all_sizes(body: str) -> None:
    model = layered(body)
    known, proven = claims(model)
    assert proven
    ran = 0
    for height, width in SIZES:
        given = {"x": integers(3, 2, height, width)}
        claimed = tuple(size.at({"n": 3, "h": height, "v": width}) for size in known.shape)
        if any(size < 1 for size in claimed):
            continue
        assert run(model, given)["y"].shape == claimed
        ran += 1
    assert ran >= 4


@pytest.mark.parametrize("body", UNKNOWN.values(), ids=UNKNOWN)
def test_no_shape_where_it_depends_on_the_size(body: str) -> None:
    known, proven = claims(layered(body))
    assert not proven
    # Each open size is a new symbol.
    named = {name for size in known.shape for name in size.symbols} if known else set()
    assert named <= {"n"} or all(name.startswith("?") for name in named - {"n"})


def test_sizes_of_one_name_are_not_equal_for_a_runtime() -> None:
    known, _ = claims(parsed("y = Relu(x)", dims="s,2,s,s"))
    assert len({known.shape[axis] for axis in (0, 2, 3)}) == 3


def test_operators_of_other_domains_are_not_known() -> None:
    model = parsed("y = Relu(x)", dims="n,2,h,v")
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert claims(model) == (None, False)


def test_a_weight_that_is_large_is_not_read() -> None:
    large: Array = np.zeros((64, 2, 9, 9), np.float32)
    model = parsed("y = Conv(x, large)", {"large": large}, "n,2,h,v")
    known, proven = claims(model)
    assert proven
    assert known.shape[1].constant == 64
