"""Random quantized ConvTranspose layers, rewritten, against PyTorch on dequantized weights.

By hand, with more cases::

    QUANTIZED_CASES=10000 python -m pytest tests/test_property_quantized.py
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from deployconv.graph.load import load
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.rewrites.planning import apply, plan_model
from tests.build import Array, integers, ops, run
from tests.quantized import Bias, Layer, Weight, Zero, quantized

CASES = int(os.environ.get("QUANTIZED_CASES", "450"))

SHUFFLES: tuple[Shuffle, ...] = (
    *("auto", "crd", "transpose", "two-step", "channels-last"),
    *("dcr-steps", "crd-steps", "by-axis", "concat", "masks"),
)

TORCH = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


@dataclass(frozen=True)
class Case:
    """A layer, the sizes of its input, and how it is to be rewritten."""

    layer: Layer
    sizes: tuple[int, ...]
    opset: int
    form: Form
    shuffle: Shuffle


@st.composite
def cases(draw: st.DrawFn, rank: int) -> Case:
    def each(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(rank)]

    strides, kernel, dilations = each(1, 4), each(1, 5), each(1, 3)
    sizes = each(2, 6)
    # Pads that the kernel reaches, so that something of every phase may be left.
    pads = [draw(st.integers(0, d * (k - 1) // 2)) for k, d in zip(kernel, dilations, strict=True)]
    opset = draw(st.sampled_from([10, 11, 13, 18, 19, 21, 23]))
    group = draw(st.integers(1, 3))
    c_in, c_out = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    bias: Bias = draw(st.sampled_from(["int32_per_tensor", "float", "none"]))
    axis = None
    if opset >= 13:
        bias = draw(st.sampled_from(["int32", "int32_per_tensor", "float", "none"]))
        # Scales of the input channels are scales of the output where each group has one.
        axis = draw(st.sampled_from([None, 1, 0] if c_in == 1 else [None, 1]))
    zero: Zero = draw(st.sampled_from(["none", "zero", "some"]))
    kind: Any = draw(st.sampled_from([np.int8, np.uint8]))
    layer = Layer(
        Weight(kind, axis, zero, draw(st.booleans())),
        bias,
        kernel,
        group,
        channels=(c_in * group, c_out * group),
        attributes={"strides": strides, "dilations": dilations, "pads": pads * 2},
    )
    form = draw(st.sampled_from(("auto", "crop", "pad")))
    return Case(layer, tuple(sizes), opset, form, draw(st.sampled_from(SHUFFLES)))


def held(case: Case) -> dict[str, Array]:
    proto = quantized(case.layer, case.sizes, case.opset)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def shaped(values: Array, axis: int, rank: int) -> Array:
    """One value, or one per index of ``axis``, for an array of ``rank`` dimensions."""
    return values if values.ndim == 0 else values.reshape(-1, *[1] * (rank - axis - 1))


def weight_of(case: Case) -> Array:
    """What DequantizeLinear is defined to compute, written out once more."""
    arrays, weight = held(case), case.layer.weight
    rank, axis = len(case.sizes) + 2, weight.axis or 0
    scale = shaped(arrays["w_scale"], axis, rank)
    default = 0 if weight.zero == "none" else None
    zero = shaped(arrays["w_zero"], axis, rank).astype(float) if default is None else default
    if weight.constant_folded:
        # Without a zero point QuantizeLinear makes unsigned integers.
        limits = np.iinfo(np.uint8 if weight.zero == "none" else weight.kind)
        rounded = np.rint(arrays["w_float"] / scale) + zero
        integer = np.clip(rounded, limits.min, limits.max)
    else:
        integer = arrays["w_int"].astype(float)
    return np.asarray((integer - zero) * scale, np.float32)


def bias_of(case: Case) -> Array | None:
    arrays = held(case)
    if "b_int" in arrays:
        return np.asarray(arrays["b_int"] * arrays["b_scale"], np.float32)
    return arrays["b"].copy() if "b" in arrays else None


def by_torch(case: Case, x: Array) -> Array:
    attributes = case.layer.attributes
    rank = len(case.sizes)
    bias = bias_of(case)
    done = TORCH[rank](
        torch.from_numpy(x),
        torch.from_numpy(weight_of(case)),
        None if bias is None else torch.from_numpy(bias),
        stride=attributes["strides"],
        padding=attributes["pads"][:rank],
        dilation=attributes["dilations"],
        groups=case.layer.group,
    )
    return np.asarray(done)


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=-(-CASES // 3))
@given(data=st.data())
def test_integer_layers_against_pytorch(rank: int, data: st.DataObject) -> None:
    case = data.draw(cases(rank))
    x = integers(1, case.layer.channels[0], *case.sizes)
    proto = quantized(case.layer, case.sizes, case.opset)
    planning = plan_model(load(proto), RewriteOptions("all", case.form, case.shuffle))
    (report,) = planning.reports
    assert report.status == "rewritten"
    after = apply(planning).proto
    assert ops(after)["ConvTranspose"] == 0
    event(f"{report.dtype}, {report.form}, {report.shuffle}")
    np.testing.assert_array_equal(run(after, {"x": x})["y"], by_torch(case, x))


def test_the_oracle_sees_a_wrong_scale() -> None:
    """What it computes depends on every part of the quantization."""
    layer = Layer(attributes={"strides": [2, 2], "dilations": [1, 1], "pads": [1] * 4})
    case = Case(layer, (3, 4), 17, "auto", "auto")
    x = integers(1, 4, 3, 4)
    results = [
        by_torch(replace(case, layer=replace(layer, weight=replace(layer.weight, **change))), x)
        for change in ({}, {"axis": None}, {"zero": "zero"}, {"constant_folded": True})
    ]
    assert len({result.tobytes() for result in results}) == len(results)
