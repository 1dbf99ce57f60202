"""Random ConvTranspose layers, rewritten, against two oracles that nobody here wrote.

Bit for bit on integers: PyTorch for every case, the ONNX reference evaluator for those that it
can run and that its Python loops can afford. By hand, with more cases::

    CONV_TRANSPOSE_CASES=100000 python -m pytest tests/test_property_conv_transpose.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from deployconv.graph.load import load
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.rewrites.planning import apply, plan_model
from tests.build import Array, conv_transpose, integers, ops, run, run_reference

CASES = int(os.environ.get("CONV_TRANSPOSE_CASES", "2100"))
AFFORDABLE = 4_000
"""Products that the reference evaluator adds in some 25 ms."""

OPSETS = (7, 9, 10, 11, 13, 18, 22)
"""The operators of the lowering change between them; below 7 sizes cannot be computed."""

SHUFFLES: tuple[Shuffle, ...] = (
    "auto",
    "dcr",
    "crd",
    "transpose",
    "two-step",
    "col2im",
    "channels-last",
    *("dcr-steps", "crd-steps", "by-axis", "concat", "masks"),
)

TORCH: dict[int, Callable[..., torch.Tensor]] = {
    1: torch.nn.functional.conv_transpose1d,
    2: torch.nn.functional.conv_transpose2d,
    3: torch.nn.functional.conv_transpose3d,
}


@dataclass(frozen=True)
class AxisCase:
    """One spatial axis of a layer."""

    size: int
    stride: int
    kernel: int
    dilation: int
    output_padding: int
    pads: tuple[int, int]
    dynamic: bool

    @property
    def output_size(self) -> int:
        reach = self.dilation * (self.kernel - 1) + 1
        return self.stride * (self.size - 1) + self.output_padding + reach - sum(self.pads)


@dataclass(frozen=True)
class Layer:
    """A ConvTranspose and how it is to be rewritten."""

    axes: tuple[AxisCase, ...]
    group: int
    channels: tuple[int, int]
    """Input and output channels of one group."""
    batch: int
    dynamic_batch: bool
    bias: bool
    opset: int
    form: Form
    shuffle: Shuffle
    seed: int

    def each(self, attribute: str) -> list[Any]:
        """One attribute of all axes."""
        return [getattr(axis, attribute) for axis in self.axes]

    @property
    def arrays(self) -> tuple[Array, Array, Array | None]:
        """Input, weight and bias."""
        c_in, c_out = self.channels[0] * self.group, self.channels[1]
        x = integers(self.batch, c_in, *self.each("size"), seed=self.seed)
        weight = integers(c_in, c_out, *self.each("kernel"), seed=self.seed + 1)
        bias = integers(c_out * self.group, seed=self.seed + 2) if self.bias else None
        return x, weight, bias

    def model(self, weight: Array, bias: Array | None, group: int) -> ModelProto:
        begins, ends = zip(*self.each("pads"), strict=True)
        return conv_transpose(
            weight,
            [None if axis.dynamic else axis.size for axis in self.axes],
            bias,
            batch=None if self.dynamic_batch else self.batch,
            opset=self.opset,
            group=group,
            strides=self.each("stride"),
            dilations=self.each("dilation"),
            output_padding=self.each("output_padding"),
            pads=[*begins, *ends],
        )


@st.composite
def axis_cases(draw: st.DrawFn, static: bool) -> AxisCase:
    size, stride = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    kernel, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    output_padding = draw(st.integers(0, max(stride, dilation)))
    # Anything that leaves an output, so also pads beyond the kernel's reach.
    left = stride * (size - 1) + output_padding + dilation * (kernel - 1)
    begin = draw(st.integers(0, left))
    end = draw(st.integers(0, left - begin))
    dynamic = not static and draw(st.booleans())
    return AxisCase(size, stride, kernel, dilation, output_padding, (begin, end), dynamic)


@st.composite
def layers(draw: st.DrawFn, rank: int) -> Layer:
    static, depthwise = draw(st.booleans()), draw(st.booleans())
    shuffle = draw(st.sampled_from(SHUFFLES))
    return Layer(
        axes=tuple(draw(axis_cases(static)) for _ in range(rank)),
        group=draw(st.integers(1, 3)),
        channels=(1 if depthwise else draw(st.integers(1, 3)), draw(st.integers(1, 2))),
        batch=draw(st.integers(1, 2)),
        dynamic_batch=draw(st.booleans()),
        bias=draw(st.booleans()),
        opset=draw(st.sampled_from(OPSETS if shuffle != "col2im" else OPSETS[-2:])),
        form=draw(st.sampled_from(("auto", "crop", "pad", "split"))),
        shuffle=shuffle,
        seed=draw(st.integers(0, 2**16)),
    )


def rewritten(layer: Layer) -> Array:
    """The output of the rewritten model, by the path that every rewrite takes."""
    x, weight, bias = layer.arrays
    planning = plan_model(
        load(layer.model(weight, bias, layer.group)),
        RewriteOptions("all", layer.form, layer.shuffle),
    )
    (report,) = planning.reports
    assert report.status == "rewritten"
    after = apply(planning).proto
    assert ops(after)["ConvTranspose"] == 0
    event(f"{report.form}, {report.shuffle}")
    done = run(after, {"x": x})["y"]
    if layer.dynamic_batch:
        assert run(after, {"x": x[:0]})["y"].shape == (0, *done.shape[1:])
    return done


def by_torch(layer: Layer) -> Array:
    """PyTorch's result: asymmetric pads are cropped from its unpadded output."""
    x, weight, bias = (
        array if array is None else torch.from_numpy(array) for array in layer.arrays
    )
    stride, dilation = layer.each("stride"), layer.each("dilation")
    common = {"stride": stride, "dilation": dilation, "groups": layer.group}
    compute = TORCH[len(layer.axes)]
    known = all(
        axis.pads[0] == axis.pads[1] and axis.output_padding < max(axis.stride, axis.dilation)
        for axis in layer.axes
    )
    if known:
        padding = [begin for begin, _ in layer.each("pads")]
        output_padding = layer.each("output_padding")
        done = compute(x, weight, bias, padding=padding, output_padding=output_padding, **common)
        return np.asarray(done)
    full = np.asarray(compute(x, weight, None, **common))
    # Output padding lengthens the output before the pads are taken from it.
    full = np.pad(full, [(0, 0), (0, 0), *((0, more) for more in layer.each("output_padding"))])
    kept = tuple(slice(axis.pads[0], axis.pads[0] + axis.output_size) for axis in layer.axes)
    cropped: Array = full[(slice(None), slice(None), *kept)]
    if bias is None:
        return cropped
    cropped += np.asarray(bias).reshape(-1, *[1] * len(layer.axes))
    return cropped


def reference_runs(layer: Layer) -> bool:
    """It takes output_padding for one more input element from one stride on."""
    products = prod(axis.size * axis.kernel for axis in layer.axes)
    outputs = layer.batch * layer.group * layer.channels[1]
    return products * outputs <= AFFORDABLE and all(
        axis.output_padding < axis.stride for axis in layer.axes
    )


def by_reference(layer: Layer) -> Array:
    """Group by group, since with group > 1 the reference mixes up channels and biases."""
    x, weight, bias = layer.arrays
    biases = [None] * layer.group if bias is None else np.split(bias, layer.group)
    parts = [
        run_reference(layer.model(part, bias_part, 1), {"x": x_part})["y"]
        for x_part, part, bias_part in zip(
            np.split(x, layer.group, axis=1), np.split(weight, layer.group), biases, strict=True
        )
    ]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=-(-CASES // 3))
@given(data=st.data())
def test_every_layer_is_what_the_oracles_compute(rank: int, data: st.DataObject) -> None:
    layer = data.draw(layers(rank))
    actual = rewritten(layer)
    np.testing.assert_array_equal(actual, by_torch(layer), strict=True)
    if reference_runs(layer):
        event("the reference evaluator agrees")
        np.testing.assert_array_equal(actual, by_reference(layer), strict=True)
