"""Weights and biases after DequantizeLinear: moved as integers, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from deployconv.graph.load import load
from deployconv.graph.quantization import quantize
from deployconv.graph.view import view
from deployconv.match import UpsampleSite, find_sites
from deployconv.polyphase import phase_weights, smallest_kernel
from tests.build import (
    Array,
    assert_rewritten,
    graph,
    model,
    node,
    ops,
    reasons,
    rewrite,
    run,
    run_reference,
    tensor,
    value,
)
from tests.quantized import Layer, Weight, quantized

_1D: dict[str, Any] = {"strides": [3], "pads": [1, 2], "output_padding": [1]}
_2D: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
_3D: dict[str, Any] = {"strides": [2, 1, 2]}

LAYERS = {
    "int8_axis_1": Layer(),
    "int8_per_tensor": Layer(Weight(axis=None)),
    "int8_zero_point_0": Layer(Weight(zero="zero")),
    "int8_no_zero_point": Layer(Weight(zero="none")),
    "uint8_axis_1": Layer(Weight(np.uint8)),
    "uint8_per_tensor": Layer(Weight(np.uint8, None)),
    "uint8_no_zero_point": Layer(Weight(np.uint8, zero="none")),
    "negative_axis": Layer(Weight(axis=-3)),
    "folded_int8": Layer(Weight(constant_folded=True)),
    "folded_uint8_per_tensor": Layer(Weight(np.uint8, None, constant_folded=True)),
    "folded_no_zero_point": Layer(Weight(np.uint8, zero="none", constant_folded=True)),
    "groups_share_axis_1": Layer(group=2),
    "groups_per_tensor": Layer(Weight(axis=None), group=2),
    "depthwise_axis_0": Layer(Weight(axis=0), group=4, channels=(4, 8)),
    "bias_per_tensor": Layer(bias="int32_per_tensor"),
    "bias_float": Layer(bias="float"),
    "no_bias": Layer(bias="none"),
    "cropped": Layer(attributes=_2D),
    "unequal_strides": Layer(kernel=(4, 3), attributes={"strides": [2, 3]}),
    "fewer_taps_than_phases": Layer(kernel=(2, 2), attributes={"strides": [3, 3]}),
    "dilated": Layer(kernel=(3, 2), attributes={**_2D, "dilations": [2, 3]}),
    "output_padding": Layer(kernel=(3, 3), attributes={**_2D, "output_padding": [1, 1]}),
    "stride_1": Layer(kernel=(3, 3), attributes={"pads": [1, 1, 1, 1]}),
    "1d": Layer(kernel=(5,), attributes=_1D),
    "3d": Layer(kernel=(4, 3, 2), attributes=_3D),
    "3d_groups": Layer(kernel=(4, 3, 2), group=2, attributes=_3D),
}


def rank_of(layer: Layer) -> int:
    return len(layer.kernel)


@pytest.mark.parametrize("form", ["crop", "pad"])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_integers_move_and_nothing_else(layer: Layer, form: str) -> None:
    before = quantized(layer, (5, 6, 3)[: rank_of(layer)])
    after = assert_rewritten(before, form=form)
    assert ops(after)["DequantizeLinear"] == ops(before)["DequantizeLinear"]
    assert ops(after)["QuantizeLinear"] == 0
    weights = [t for t in after.graph.initializer if len(t.dims) == rank_of(layer) + 2]
    assert [onnx.helper.tensor_dtype_to_np_dtype(t.data_type) for t in weights] == [
        np.dtype(layer.weight.kind)
    ]


@pytest.mark.parametrize(
    "shuffle", ["dcr", "crd", "transpose", "two-step", "col2im", "channels-last"]
)
@pytest.mark.parametrize("layer", [LAYERS["int8_axis_1"], LAYERS["groups_share_axis_1"]])
def test_scales_follow_the_channels_in_every_order(layer: Layer, shuffle: str) -> None:
    assert_rewritten(quantized(layer, opset=18), shuffle=shuffle)


@pytest.mark.parametrize("opset", [10, 11, 12, 13, 18, 19, 21, 23])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_every_opset_that_has_the_operator(opset: int, kind: Any) -> None:
    weight = Weight(kind, None if opset < 13 else 1)
    bias = "int32_per_tensor" if opset < 13 else "int32"
    assert_rewritten(quantized(Layer(weight, bias), opset=opset))


def dequantized(made: ModelProto, op: str) -> Array:
    """The weight that the ``op`` reads, by the reference evaluator."""
    name = next(n for n in made.graph.node if n.op_type == op).input[1]
    kept = [n for n in made.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    body = graph(kept, [], [value(name, TensorProto.FLOAT, None)], made.graph.initializer)
    return run_reference(model(body, opset=19), {})[name]


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("folded", [False, True])
def test_dequantized_weights_are_those_of_the_original(group: int, kind: Any, folded: bool) -> None:
    """Compared with the ONNX reference evaluator, element by element, for all kinds of scales."""
    layer = Layer(Weight(kind, constant_folded=folded), group=group, attributes=_2D)
    before = quantized(layer, opset=19)  # the first that the evaluator knows
    rng = np.random.default_rng(3)
    for held in before.graph.initializer:
        if held.name == "w_scale":
            odd = rng.uniform(0.001, 0.02, tuple(held.dims)).astype(np.float32)
            held.CopyFrom(tensor("w_scale", odd))
    original = dequantized(before, "ConvTranspose")
    (site,) = find_sites(view(load(before)))
    assert isinstance(site, UpsampleSite)
    np.testing.assert_array_equal(site.weight.read(), original)
    _, after = rewrite(before, form="crop")
    phased = phase_weights(site.kernel(original), [smallest_kernel(axis) for axis in site.axes])
    if group == 1:  # DepthToSpace in DCR order has the phases first
        phased = np.moveaxis(phased, 0, 2)
    arranged = phased.reshape(-1, 4 // group, 2, 2)
    np.testing.assert_array_equal(dequantized(after, "Conv"), arranged)


# --- DequantizeLinear, then nodes that only move the values


def moved(layer: Layer, before: Array | None, *nodes: NodeProto) -> ModelProto:
    """``layer``, whose weight ``w`` the ``nodes`` make of ``d``: DequantizeLinear of ``before``.

    The integers ``before``, if they are given, have the layout that the nodes need.
    """
    original = quantized(layer, opset=19)
    for held in original.graph.initializer:
        if held.name == "w_int" and before is not None:
            held.CopyFrom(tensor("w_int", before))
    made = next(n for n in original.graph.node if n.name == "dequantize")
    made.output[0] = "d"
    others = list(original.graph.node)
    del original.graph.node[:]
    at = others.index(made) + 1
    original.graph.node.extend([*others[:at], *nodes, *others[at:]])
    numbers = {"flat": [4, 6, 16], "kernel": [4, 6, 4, 4], "one": [0], "last": [3], "end": [-9]}
    extra = {name: np.array(values) for name, values in numbers.items()} | {
        "axis": np.array([2]),
        "back": np.array([-1]),
        "down": np.arange(3, -1, -1),
    }
    original.graph.initializer.extend(tensor(name, array) for name, array in extra.items())
    return original


def integers_of(layer: Layer) -> Array:
    """The integers of the weight of ``layer``, in its own layout."""
    held = next(t for t in quantized(layer).graph.initializer if t.name == "w_int")
    return numpy_helper.to_array(held)


def from_channels_last(weight: Weight) -> ModelProto:
    """As TensorFlow keeps it: height, width, output and input channels."""
    layer = Layer(weight)
    before = np.ascontiguousarray(integers_of(layer).transpose(2, 3, 1, 0))
    axis = None if weight.axis is None else 2
    original = moved(layer, before, node("Transpose", ["d"], ["w"], perm=[3, 2, 0, 1]))
    return original if axis is None else with_attribute(original, axis=axis)


MOVED = {
    "Transpose, per channel": lambda: from_channels_last(Weight()),
    "Transpose, uint8": lambda: from_channels_last(Weight(np.uint8)),
    "Transpose, per tensor": lambda: from_channels_last(Weight(axis=None)),
    "Identity": lambda: moved(Layer(), integers_of(Layer()), node("Identity", ["d"], ["w"])),
    "Reshape": lambda: moved(
        Layer(),
        integers_of(Layer()).reshape(4, 6, 16),
        node("Reshape", ["d", "kernel"], ["w"]),
    ),
    "reversed by Slice and Gather": lambda: moved(
        Layer(),
        integers_of(Layer()),
        node("Slice", ["d", "last", "end", "axis", "back"], ["d2"]),
        node("Gather", ["d2", "down"], ["w"], axis=3),
    ),
    "channels reversed": lambda: moved(
        Layer(channels=(4, 4)),
        integers_of(Layer(channels=(4, 4))),
        node("Gather", ["d", "down"], ["w"], axis=1),
    ),
    "quantized floats": lambda: moved(
        Layer(Weight(constant_folded=True)),
        None,
        node("Identity", ["d"], ["w"]),
    ),
}


@pytest.mark.parametrize("build", MOVED.values(), ids=list(MOVED))
def test_integers_that_are_moved_after_dequantizing(build: Callable[[], ModelProto]) -> None:
    before = build()
    after = assert_rewritten(before)
    assert ops(after)["DequantizeLinear"] == ops(before)["DequantizeLinear"]
    assert ops(after)["Transpose"] == 0


def test_scales_that_no_axis_has_after_the_move() -> None:
    """A Reshape that mixes channels and taps leaves scales that no DequantizeLinear can state."""
    before = integers_of(Layer()).reshape(16, 6, 4)
    original = moved(Layer(), before, node("Reshape", ["d", "kernel"], ["w"]))
    assert reasons(original, verify=False) == ["quantized-weight"]


def test_a_sum_after_dequantizing_is_no_move() -> None:
    original = moved(Layer(), integers_of(Layer()), node("Add", ["d", "d"], ["w"]))
    assert reasons(original, verify=False) == ["runtime-weight"]


# --- what has no exact form


def with_attribute(before: ModelProto, **attributes: Any) -> ModelProto:
    made = next(n for n in before.graph.node if n.name == "dequantize")
    kept = [a for a in made.attribute if a.name not in attributes]
    del made.attribute[:]
    made.attribute.extend(kept)
    made.attribute.extend(onnx.helper.make_attribute(k, v) for k, v in attributes.items())
    return before


def other_integers(data_type: int, opset: int = 21) -> ModelProto:
    """The weight in another integer or narrow float type, one scale."""
    before = quantized(Layer(Weight(axis=None, zero="none")), opset=opset)
    before.ir_version = 10
    for held in before.graph.initializer:
        if held.name == "w_int":
            values = (numpy_helper.to_array(held) % 7).astype(np.float32).ravel()
            held.CopyFrom(onnx.helper.make_tensor("w_int", data_type, held.dims, values.tolist()))
    return before


def blocked() -> ModelProto:
    layer = Layer(Weight(axis=None, zero="none"))
    before = with_attribute(quantized(layer, opset=21), axis=1, block_size=2)
    before.ir_version = 10
    for held in before.graph.initializer:
        if held.name == "w_scale":
            held.CopyFrom(tensor("w_scale", np.full((4, 3, 4, 4), 0.5, np.float32)))
    return before


def runtime_scale() -> ModelProto:
    before = quantized(Layer(Weight(axis=None, zero="none")))
    (held,) = [t for t in before.graph.initializer if t.name == "w_scale"]
    before.graph.initializer.remove(held)
    before.graph.input.append(value("w_scale", TensorProto.FLOAT, []))
    return before


def ambiguous_float16() -> ModelProto:
    """A quotient that float16 rounds to a half, and float32 to what is below it."""
    before = quantized(Layer(Weight(axis=None, constant_folded=True, scale=np.float16)), opset=19)
    values = {"w_float": np.full((4, 6, 4, 4), AMBIGUOUS[0]), "w_scale": np.array(AMBIGUOUS[1])}
    for held in before.graph.initializer:
        if held.name in values:
            held.CopyFrom(tensor(held.name, values[held.name].astype(np.float16)))
    return before


AMBIGUOUS = (65.4375, 0.9995)


REASONS = {
    "axis_0": (lambda: quantized(Layer(Weight(axis=0))), "per-input-channel-scale"),
    "axis_0_in_groups": (
        lambda: quantized(Layer(Weight(axis=0), group=2)),
        "per-input-channel-scale",
    ),
    "along_a_kernel_axis": (lambda: quantized(Layer(Weight(axis=2))), "per-input-channel-scale"),
    "int4": (lambda: other_integers(TensorProto.INT4), "quantized-weight"),
    "uint4": (lambda: other_integers(TensorProto.UINT4), "quantized-weight"),
    "int16": (lambda: other_integers(TensorProto.INT16), "quantized-weight"),
    "int32": (lambda: other_integers(TensorProto.INT32), "quantized-weight"),
    "float8": (lambda: other_integers(TensorProto.FLOAT8E4M3FN), "quantized-weight"),
    "blocked": (blocked, "quantized-weight"),
    "ambiguous_float16": (ambiguous_float16, "quantized-weight"),
    "runtime_scale": (runtime_scale, "runtime-weight"),
}


@pytest.mark.parametrize(("build", "code"), REASONS.values(), ids=REASONS)
def test_what_stays_says_why(build: Any, code: str) -> None:
    before = build()
    assert reasons(before, verify=False) == [code]


def test_one_scale_on_the_wrong_axis_is_one_scale() -> None:
    """Equal scales for all input channels are one scale."""
    before = quantized(Layer(Weight(axis=0, zero="zero")))
    for held in before.graph.initializer:
        if held.name == "w_scale":
            held.CopyFrom(tensor("w_scale", np.full(4, 0.25, np.float32)))
    assert_rewritten(before)


def test_an_overridable_scale_is_a_default_of_the_caller() -> None:
    before = quantized(Layer(Weight(axis=None)))
    before.graph.input.append(value("w_scale", TensorProto.FLOAT, []))
    assert reasons(before, verify=False) == ["overridable-initializer"]
    assert_rewritten(before, freeze_initializers=True)


# --- QuantizeLinear, as the operators compute it


HALVES = [-129.0, -128.5, -2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 126.5, 127.5, 300.0]


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("zero_point", [0, 5])
def test_quantize_rounds_and_saturates_as_onnxruntime_does(kind: Any, zero_point: int) -> None:
    zero, scale = np.array(zero_point, kind), np.array(1.0, np.float32)
    rng = np.random.default_rng(0)
    for values, step in (
        (np.array(HALVES, np.float32), scale),
        (rng.uniform(-3, 3, 4096).astype(np.float32), np.array(0.0123, np.float32)),
    ):
        body = graph(
            [node("QuantizeLinear", ["x", "scale", "zero"], ["y"])],
            [value("x", TensorProto.FLOAT, [values.size])],
            [value("y", onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)],
            [tensor("scale", step), tensor("zero", zero)],
        )
        made = model(body)
        computed = quantize(values, step, zero)
        assert computed is not None
        np.testing.assert_array_equal(computed, run(made, {"x": values})["y"], strict=True)
        np.testing.assert_array_equal(computed, run_reference(made, {"x": values})["y"])


def test_a_quotient_that_float16_rounds_over_a_half_has_no_one_result() -> None:
    zero, one = np.zeros((), np.int8), np.array(1.0, np.float16)
    values, scale = (np.array(value, np.float16) for value in AMBIGUOUS)
    assert quantize(values, scale, zero) is None
    assert quantize(values, one, zero) is not None


@pytest.mark.parametrize("scale", [np.float16, ml_dtypes.bfloat16])
def test_scales_of_other_float_types_stay(scale: Any) -> None:
    """The float32 twin is certified; the rewritten model keeps its element types."""
    layer = Layer(Weight(scale=scale), bias="float")
    before = quantized(layer, opset=22)
    done, after = rewrite(before, verify=scale is np.float16)
    assert [site.status for site in done.sites] == ["rewritten"]
    made = {t.name: t.data_type for t in after.graph.initializer}
    kinds = {kind for name, kind in made.items() if name.endswith("_scale")}
    assert kinds == {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(scale))}
