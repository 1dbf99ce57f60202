"""Overlapping Col2Im behind a 1x1 Conv: together they are a ConvTranspose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto

from tests.build import (
    FLOAT,
    assert_equal,
    graph,
    integers,
    model,
    node,
    ops,
    reasons,
    rewrite,
    run,
    tensor,
    value,
)

FLAT = [node("Reshape", ["c", "flat"], ["columns"])]
IMAGE = [
    node("Shape", ["x"], ["all"]),
    node("Slice", ["all", "first", "last"], ["small"]),
    node("Mul", ["small", "stride"], ["spread"]),
    node("Add", ["spread", "more"], ["image"]),
]


def columns(
    block: Sequence[int] = (4, 3),
    strides: Sequence[int] = (2, 2),
    pads: Sequence[int] = (1, 0, 1, 0),
    dilations: Sequence[int] = (1, 1),
    more: Sequence[int] = (0, 1),
    group: int = 1,
    dynamic: bool = True,
    bias: bool = False,
    **rest: Any,
) -> ModelProto:
    """``x [n, 4, h, v]`` -> Conv 1x1 -> Reshape -> Col2Im -> ``y [n, 6, ..]``.

    The image has the sizes ``strides * [h, v] + more``.
    """
    taps = int(np.prod(block))
    held: dict[str, Any] = {
        "w": integers(6 * taps, 4 // group, *[1] * len(block)),
        "flat": np.array([0, 0, -1]),
        "block": np.array(block),
        "first": np.array([2]),
        "last": np.array([2 + len(block)]),
        "stride": np.array(strides),
        "more": np.array(more),
    }
    if bias:
        held["b"] = integers(6 * taps, seed=1)
    sizes: list[Any] = ["h", "v", "d"][: len(block)]
    nodes: list[NodeProto] = []
    if dynamic:
        nodes = list(IMAGE)
    else:
        sizes = [5, 6, 3][: len(block)]
        held["image"] = np.array(strides) * sizes + more
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    attributes = {"strides": strides, "pads": pads, "dilations": dilations}
    nodes += [
        node("Conv", inputs, ["c"], name="conv", group=group),
        *FLAT,
        node("Col2Im", ["columns", "image", "block"], ["y"], name="fold", **attributes),
    ]
    read = {name for proto in nodes for name in proto.input}
    body = graph(
        nodes,
        [value("x", FLOAT, ["n", 4, *sizes] if dynamic else [1, 4, *sizes])],
        [value("y", FLOAT, [None] * (2 + len(block)))],
        [tensor(name, np.asarray(array)) for name, array in held.items() if name in read],
    )
    return model(body, opset=18)


LAYERS = {
    "overlapping": columns(),
    "without overlap along one axis": columns(
        block=(2, 3), pads=(0, 0, 0, 0), more=(0, 1), strides=(2, 2)
    ),
    "padded unevenly": columns(block=(4, 4), pads=(2, 1, 0, 1), more=(0, 0)),
    "larger than the blocks": columns(block=(3, 3), pads=(0, 0, 0, 0), strides=(3, 2), more=(2, 1)),
    "dilated": columns(block=(3, 2), dilations=(2, 3), pads=(0, 0, 0, 0), more=(3, 2)),
    "groups": columns(group=2),
    "1-D": columns(block=(5,), strides=(2,), pads=(1, 1), dilations=(1,), more=(1,)),
    "3-D": columns(
        block=(3, 2, 2), strides=(2, 1, 2), pads=(0,) * 6, dilations=(1,) * 3, more=(1, 1, 0)
    ),
    "stride 1": columns(block=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1), more=(0, 0)),
    "static": columns(dynamic=False),
}


@pytest.mark.parametrize("form", ["crop", "pad"])
@pytest.mark.parametrize("original", LAYERS.values(), ids=list(LAYERS))
def test_it_is_rewritten_as_a_conv_transpose(original: ModelProto, form: str) -> None:
    done, after = rewrite(original, form=form)
    assert [(site.status, site.certificate) for site in done.sites] == [("rewritten", "exact")]
    assert done.sites[0].pattern == "conv_transpose"
    assert ops(after)["Col2Im"] == 0
    shape = original.graph.input[0].type.tensor_type.shape.dim
    for sizes in ((1, 4, 5, 6, 3), (2, 4, 3, 9, 2)):
        given = [dim.dim_value or size for dim, size in zip(shape, sizes, strict=False)]
        feeds = {"x": integers(*given)}
        assert_equal(run(original, feeds), run(after, feeds))


def test_the_weight_is_that_of_pytorch() -> None:
    """``torch.nn.functional.fold`` of the columns of a Conv, and its ConvTranspose."""
    original = columns(block=(4, 4), pads=(1, 1, 1, 1), more=(0, 0))
    x, w = integers(1, 4, 5, 6), integers(96, 4, 1, 1)
    weight = torch.from_numpy(w).reshape(6, 16, 4).permute(2, 0, 1).reshape(4, 6, 4, 4)
    expected = torch.nn.functional.conv_transpose2d(torch.from_numpy(x), weight, None, 2, 1)
    _, after = rewrite(original, verify=False)
    np.testing.assert_array_equal(run(after, {"x": x})["y"], expected.numpy())


def test_a_bias_is_added_once_for_each_tap() -> None:
    assert reasons(columns(bias=True), verify=False) == ["overlapping-bias"]


def test_a_bias_of_zeros_is_none() -> None:
    original = columns(bias=True)
    for held in original.graph.initializer:
        if held.name == "b":
            held.CopyFrom(tensor("b", np.zeros(72, np.float32)))
    assert reasons(original, verify=False) == []


def test_an_image_that_the_blocks_do_not_make_is_no_layer() -> None:
    """The size of the image is fixed, that of the input is not."""
    original = columns()
    del original.graph.node[:4]
    original.graph.initializer.append(tensor("image", np.array([10, 13])))
    done, _ = rewrite(original, verify=False)
    assert done.sites == ()


def test_blocks_side_by_side_are_a_pixel_shuffle() -> None:
    original = columns(block=(2, 2), pads=(0,) * 4, more=(0, 0))
    done, _ = rewrite(original, verify=False)
    assert not [site for site in done.sites if site.pattern == "conv_transpose"]
