"""A dense ConvTranspose that never mixes channels, as FCN upsamples: it is a depthwise layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper

from tests.build import (
    FLOAT,
    Array,
    assert_rewritten,
    conv_transpose,
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
from tests.quantized import scales

CHANNELS = 5
BILINEAR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32)


def diagonal(kernels: Array) -> Array:
    """The dense weight ``[C, C, k, k]`` that applies ``kernels`` ``[C, k, k]`` one by one."""
    weight = np.zeros((len(kernels), *kernels.shape), kernels.dtype)
    weight[range(len(kernels)), range(len(kernels))] = kernels
    return weight


def layer(kernels: Array, bias: bool = True, **rest: Any) -> ModelProto:
    given = integers(len(kernels), seed=1) if bias else None
    geometry = {"strides": [2] * (kernels.ndim - 1), "pads": [1] * 2 * (kernels.ndim - 1)}
    sizes = ("h", "v", "d")[: kernels.ndim - 1]
    return conv_transpose(diagonal(kernels), sizes, given, batch="n", **geometry)


SAME = np.broadcast_to(BILINEAR, (CHANNELS, 4, 4)).copy()
KERNELS = {
    "bilinear": SAME,
    "one kernel per channel": integers(CHANNELS, 4, 4),
    "a channel of zeros": SAME * np.array([1, 0, 2, 3, 1], np.float32).reshape(-1, 1, 1),
    "1-D": integers(CHANNELS, 4),
    "3-D": integers(3, 4, 4, 4),
}


@pytest.mark.parametrize("form", ["crop", "pad", "split", "separable"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_new_conv_has_a_group_for_each_channel(name: str, form: str) -> None:
    kernels = KERNELS[name]
    original = layer(kernels)
    for size in ((5, 6, 4), (3, 1, 2)):
        x = integers(2, len(kernels), *size[: kernels.ndim - 1])
        after = assert_rewritten(original, {"x": x}, form=form)
        convs = [proto for proto in after.graph.node if proto.op_type == "Conv"]
        groups = [helper.get_node_attr_value(proto, "group") for proto in convs]
        assert set(groups) == {len(kernels)}


def test_the_result_is_that_of_pytorch() -> None:
    kernels, x = integers(CHANNELS, 4, 4), integers(2, CHANNELS, 5, 6)
    dense = torch.from_numpy(diagonal(kernels))
    expected = torch.nn.functional.conv_transpose2d(torch.from_numpy(x), dense, None, 2, 1)
    _, after = rewrite(layer(kernels, bias=False), verify=False)
    np.testing.assert_array_equal(run(after, {"x": x})["y"], expected.numpy())


def test_the_multiplications_saved_are_counted() -> None:
    done, _ = rewrite(layer(SAME), form="crop")
    (site,) = done.sites
    assert site.group == 1
    assert site.macs is not None
    assert (site.macs.before, site.macs.after) == (CHANNELS * CHANNELS * 16, CHANNELS * 16)


def test_static_sizes_allow_the_matrix_form() -> None:
    original = conv_transpose(diagonal(SAME), (5, 6), strides=[2, 2])
    done, _ = rewrite(original, form="matrix")
    assert [(site.form, site.certificate) for site in done.sites] == [("matrix", "exact")]


def test_a_batch_normalization_behind_it_is_folded() -> None:
    original = layer(SAME)
    original.graph.node[0].output[0] = "c"
    held = {"scale": np.full(CHANNELS, 2), "zero": np.zeros(CHANNELS), "one": np.ones(CHANNELS)}
    for name, array in held.items():
        original.graph.initializer.append(
            helper.make_tensor(name, 1, array.shape, array.astype(np.float32))
        )
    inputs = ["c", "scale", "zero", "zero", "one"]
    original.graph.node.append(helper.make_node("BatchNormalization", inputs, ["y"], epsilon=0.0))
    assert_rewritten(original, {"x": integers(1, CHANNELS, 5, 6)})
    for policy in ("cost", "fastest"):
        done, _ = rewrite(original, policy=policy, budget=1.0, shape={"x": (1, CHANNELS, 8, 8)})
        assert [site.certificate for site in done.sites] != ["failed"]


def test_a_weight_that_mixes_two_channels_stays_dense() -> None:
    original = layer(SAME)
    weight = diagonal(SAME)
    weight[1, 3, 2, 2] = 1
    original.graph.initializer[0].CopyFrom(helper.make_tensor("w", 1, weight.shape, weight.ravel()))
    after = assert_rewritten(original, {"x": integers(1, CHANNELS, 5, 6)})
    (conv,) = [proto for proto in after.graph.node if proto.op_type == "Conv"]
    assert "group" not in {attribute.name for attribute in conv.attribute} or (
        helper.get_node_attr_value(conv, "group") == 1
    )


def integer_weights(axis: int | None, kind: Any, zero: int) -> ModelProto:
    """A layer whose integers are ``zero`` wherever two channels would mix."""
    kernels = np.random.default_rng(0).integers(20, 90, (CHANNELS, 4, 4)).astype(kind)
    weight = np.full((CHANNELS, CHANNELS, 4, 4), zero, kind)
    weight[range(CHANNELS), range(CHANNELS)] = kernels
    per = () if axis is None else (CHANNELS,)
    held = {
        "q": weight,
        "s": scales(per, np.random.default_rng(1)),
        "z": np.full(per, zero, kind),
        "b": integers(CHANNELS, seed=1),
    }
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        node("DequantizeLinear", ["q", "s", "z"], ["w"], **attributes),
        node("ConvTranspose", ["x", "w", "b"], ["y"], name="up", strides=[2, 2]),
    ]
    body = graph(
        nodes,
        [value("x", FLOAT, ["n", CHANNELS, "h", "v"])],
        [value("y", FLOAT, [None] * 4)],
        [tensor(name, array) for name, array in held.items()],
    )
    return model(body)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize(("kind", "zero"), [(np.int8, 0), (np.int8, 7), (np.uint8, 128)])
def test_integers_stay_integers(axis: int | None, kind: Any, zero: int) -> None:
    """A scale of an input channel is that of the one output channel which reads it."""
    original = integer_weights(axis, kind, zero)
    after = assert_rewritten(original, {"x": integers(2, CHANNELS, 3, 4)})
    (conv,) = (proto for proto in after.graph.node if proto.op_type == "Conv")
    assert helper.get_node_attr_value(conv, "group") == CHANNELS
    assert ops(after)["DequantizeLinear"] == 1


def test_scales_along_a_kernel_axis_keep_the_layer_dense() -> None:
    original = integer_weights(0, np.int8, 0)
    original.graph.node[0].attribute[0].i = 2
    for held in original.graph.initializer:
        if held.name == "s":
            held.CopyFrom(tensor("s", np.array([1, 2, 1, 1], np.float32)))
        elif held.name == "z":
            held.CopyFrom(tensor("z", np.zeros(4, np.int8)))
    assert reasons(original, verify=False) == ["per-input-channel-scale"]


def test_infinite_elements_are_refused_wherever_they_stand() -> None:
    weight = diagonal(SAME)
    weight[0, 1, 0, 0] = np.nan
    original = conv_transpose(weight, (5, 6), strides=[2, 2])
    with pytest.raises(Exception, match="NaN"):
        rewrite(original)
