"""Shuffles after a QLinearConv or ConvInteger are rewritten, upsampling before is listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

from tests.build import (
    FLOAT,
    Array,
    assert_equal,
    feeds_for,
    graph,
    integers,
    model,
    node,
    ops,
    rewrite,
    run,
    tensor,
    value,
)

HELD: dict[str, Array | np.generic] = {
    "scale": np.float32(0.25),
    "zero": np.uint8(3),
    "w": integers(12, 4, 3, 3).astype(np.int8),
    "w_scale": np.float32(0.5),
    "w_zero": np.int8(0),
    "factors": np.array([1, 1, 2, 2], np.float32),
    "split": np.array([1, 4, 5, 1, 6, 1]),
    "pads": np.array([0] * 9 + [1, 0, 1]),
    "merged": np.array([1, 4, 10, 12]),
    "phased": np.array([1, 3, 2, 2, 5, 6]),
    "spread": np.array([1, 3, 10, 12]),
}


def resize(x: str) -> list[NodeProto]:
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return [node("Resize", [x, "", "factors"], ["u"], mode="nearest", **modes)]


def insertion(x: str, *fill: str) -> list[NodeProto]:
    return [
        node("Reshape", [x, "split"], ["u0"]),
        node("Pad", ["u0", "pads", *fill], ["u1"]),
        node("Reshape", ["u1", "merged"], ["u"]),
    ]


def shuffle(x: str) -> list[NodeProto]:
    return [
        node("Reshape", [x, "phased"], ["s0"]),
        node("Transpose", ["s0"], ["s1"], perm=[0, 1, 4, 2, 5, 3]),
        node("Reshape", ["s1", "spread"], ["s"]),
    ]


def made_of(nodes: Sequence[NodeProto]) -> ModelProto:
    read = {name for proto in nodes for name in proto.input}
    body = graph(
        list(nodes),
        [value("x", FLOAT, [1, 4, 5, 6])],
        [value("y", FLOAT, [None] * 4)],
        [tensor(name, array) for name, array in HELD.items() if name in read],
    )
    return model(body)


GRID = ["scale", "zero"]


def qlinear(before_it: Sequence[NodeProto] = (), after_it: Sequence[NodeProto] = ()) -> ModelProto:
    """x -> QuantizeLinear -> before_it -> QLinearConv -> after_it -> DequantizeLinear -> y."""
    x = before_it[-1].output[0] if before_it else "q"
    given = [x, *GRID, "w", "w_scale", "w_zero", *GRID]
    last = after_it[-1].output[0] if after_it else "c"
    return made_of(
        [
            node("QuantizeLinear", ["x", *GRID], ["q"]),
            *before_it,
            node("QLinearConv", given, ["c"], name="conv", pads=[1] * 4),
            *after_it,
            node("DequantizeLinear", [last, *GRID], ["y"]),
        ]
    )


def dynamic(before_it: Sequence[NodeProto] = (), after_it: Sequence[NodeProto] = ()) -> ModelProto:
    """x -> before_it -> DynamicQuantizeLinear -> ConvInteger -> Cast -> Mul -> after_it -> y."""
    x = before_it[-1].output[0] if before_it else "x"
    last = after_it[-1].output[0] if after_it else "m"
    return made_of(
        [
            *before_it,
            node("DynamicQuantizeLinear", [x], ["d", "d_scale", "d_zero"]),
            node("ConvInteger", ["d", "w", "d_zero", "w_zero"], ["c"], name="conv", pads=[1] * 4),
            node("Cast", ["c"], ["f"], to=FLOAT),
            node("Mul", ["f", "d_scale"], ["m"]),
            *after_it,
            node("Identity", [last], ["y"]),
        ]
    )


LISTED = {
    "resize, QLinearConv": (qlinear(resize("q")), "nearest_resize"),
    "zeros, QLinearConv": (qlinear(insertion("q", "zero")), "zero_insertion"),
    "resize, ConvInteger": (dynamic(resize("x")), "nearest_resize"),
    "zeros, ConvInteger": (dynamic(insertion("x")), "zero_insertion"),
}


@pytest.mark.parametrize(("before", "pattern"), LISTED.values(), ids=LISTED)
def test_upsampling_before_an_integer_operator_is_listed(before: ModelProto, pattern: str) -> None:
    done, after = rewrite(before)
    (site,) = done.sites
    assert site.pattern == pattern
    assert site.nodes[-1] == "conv"
    assert site.reason is not None
    assert site.reason.code == "quantized-operator"
    assert after == before


@pytest.mark.parametrize("build", [qlinear, dynamic])
def test_what_does_not_upsample_is_not_listed(build: Callable[[], ModelProto]) -> None:
    done, _ = rewrite(build())
    assert done.sites == ()


def test_integers_that_are_padded_with_another_value_are_no_zeros() -> None:
    """Padded with 0 while the zero point is 3: no zeros are inserted."""
    done, _ = rewrite(qlinear(insertion("q")))
    assert done.sites == ()


@pytest.mark.parametrize(
    "before", [qlinear((), shuffle("c")), dynamic((), shuffle("m"))], ids=["QLinear", "dynamic"]
)
def test_a_shuffle_after_an_integer_operator_is_rewritten(before: ModelProto) -> None:
    done, after = rewrite(before)
    assert [(site.pattern, site.certificate) for site in done.sites] == [("pixel_shuffle", "exact")]
    assert ops(after)["DepthToSpace"] == 1
    assert ops(after)["Transpose"] == 0
    feeds = feeds_for(before)
    assert_equal(run(before, feeds), run(after, feeds))
