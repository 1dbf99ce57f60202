"""One product of matrices an axis: the same layer where all channels have one kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from deployconv.polyphase import Axis, matrix, phase_weights, smallest_kernel
from deployconv.results import Macs, SiteReport
from tests.build import Array, assert_equal, feeds_for, ops, rewrite, run
from tests.quantized import Layer, quantized
from tests.rewrites.products import bilinear, depthwise, layers_of, products


def alike(channels: int, *taps: int, seed: int = 0) -> Array:
    """``[channels, 1, *taps]``: the same product in each channel."""
    return np.tile(products(1, *taps, seed=seed), (channels, 1, *[1] * len(taps)))


def multiplied(model: ModelProto, **options: Any) -> tuple[SiteReport, ModelProto]:
    """The site of ``model`` in this form, certified, with the same bits as before."""
    done, after = rewrite(model, form="matrix", **options)
    (site,) = done.sites
    assert (site.form, site.shuffle, site.certificate) == ("matrix", None, "exact")
    assert done.warnings == ()
    feeds = feeds_for(model)
    assert_equal(run(model, feeds), run(after, feeds))
    return site, after


def test_short_axes_are_one_matrix_each() -> None:
    site, after = multiplied(bilinear(3, 8, (5, 4)))
    assert site.conv_kernel == (2, 2)
    assert ops(after) == {"MatMul": 2}
    assert [tuple(t.dims) for t in after.graph.initializer] == [(4, 32), (40, 5)]
    # 5 rows times (4, 32), then (40, 5) times 32 columns, for each of 20 pixels.
    assert site.macs == Macs(3 * 256, 3 * (5 * 4 * 32 + 40 * 5 * 32) // 20)


def test_a_long_axis_is_cut_into_blocks_that_share_a_matrix() -> None:
    site, after = multiplied(bilinear(2, 4, (40, 6)))
    found = ops(after)
    assert (found["MatMul"], found["Slice"], found["Concat"]) == (6, 5, 1)
    matrices = sorted(tuple(t.dims) for t in after.graph.initializer if t.data_type == 1)
    # The first and the last block have one neighbour, those between two, and all alike.
    assert matrices == [(6, 24), (32, 9), (32, 9), (32, 10)]
    assert site.macs is not None
    assert site.macs.after == -(-2 * (40 * 6 * 24 + 24 * 32 * (9 + 3 * 10 + 9)) // 240)


SITES: dict[str, Callable[[], ModelProto]] = {
    **layers_of(alike),
    "any_batch": lambda: depthwise(alike(3, 4, 3), batch=None),
    "tall_volume": lambda: depthwise(alike(2, 4, 3, 2), (18, 17, 4), strides=[2, 3, 2]),
    "more_cropped_than_a_block_makes": lambda: depthwise(alike(2, 3, 3), (17, 3), pads=[9, 1] * 2),
    "early_opset": lambda: depthwise(alike(2, 4, 4), (19, 4), opset=9),
}


@pytest.mark.parametrize("build", SITES.values(), ids=SITES)
def test_every_kind_of_site(build: Callable[[], ModelProto]) -> None:
    multiplied(build())


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_element_types(dtype: Any) -> None:
    done, after = rewrite(depthwise(alike(2, 4, 4).astype(dtype)), form="matrix")
    assert (done.sites[0].form, done.sites[0].certificate) == ("matrix", "exact")
    kinds = {t.data_type for t in after.graph.initializer}
    assert kinds == {{np.float16: 10, np.float64: 11}[dtype]}


GIVE_WAY: dict[str, Callable[[], ModelProto]] = {
    "channels_of_their_own": lambda: depthwise(products(2, 4, 4)),
    "channel_multiplier": lambda: depthwise(alike(6, 4, 4).reshape(2, 3, 4, 4)),
    "dynamic_sizes": lambda: depthwise(alike(2, 4, 4), (None, 4)),
    "no_product": lambda: depthwise(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) ** 2),
    "channels_are_summed": lambda: depthwise(alike(2, 4, 4), group=1, bias=False),
    "bfloat16": lambda: depthwise(alike(2, 4, 4).astype(ml_dtypes.bfloat16), opset=22),
    "integers": lambda: quantized(Layer(group=4, channels=(4, 4)), opset=18),
}


@pytest.mark.parametrize("build", GIVE_WAY.values(), ids=GIVE_WAY)
def test_where_it_does_not_fit_the_smallest_kernel_is_taken_and_said_so(
    build: Callable[[], ModelProto],
) -> None:
    done, _ = rewrite(build(), form="matrix", verify=False)
    (site,) = done.sites
    assert site.form in ("crop", "pad")
    assert done.warnings == (f"{site.id}: form 'matrix' does not fit, '{site.form}' taken",)


@st.composite
def axes(draw: st.DrawFn) -> tuple[Axis, int]:
    taps, stride = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    dilation, size = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    begin = draw(st.integers(0, 4))
    end = draw(st.integers(0, max(0, stride * (size - 1) + dilation * (taps - 1) - begin)))
    return Axis.transposed(stride, taps, dilation, (begin, end), 0), size


@given(axis=axes())
def test_the_rows_of_the_matrix_are_the_phases(axis: tuple[Axis, int]) -> None:
    own, size = axis
    taps = np.arange(1, own.taps + 1, dtype=np.float32)
    made = matrix(own, taps, size)
    assert made.shape == (max(0, own.output_size(size)), size)
    form = smallest_kernel(own)
    phases = phase_weights(taps.reshape(1, 1, -1), [form])[0, :, 0]
    for output, row in enumerate(made):
        place, phase = divmod(output + form.shift, own.stride)
        expected = np.zeros(size, np.float32)
        for tap, value in enumerate(phases[phase]):
            if 0 <= place + form.low + tap < size:
                expected[place + form.low + tap] = value
        np.testing.assert_array_equal(row, expected)


@st.composite
def layers(draw: st.DrawFn) -> tuple[ModelProto, Array, dict[str, Any]]:
    """A ConvTranspose, its weight, and what PyTorch calls its attributes."""
    channels = draw(st.integers(1, 3))
    sizes = draw(st.tuples(st.integers(1, 36), st.integers(1, 5)))
    strides = draw(st.tuples(st.integers(2, 4), st.integers(2, 4)))
    taps = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    weight = alike(channels, *taps, seed=draw(st.integers(0, 2**16)))
    reach = zip(sizes, strides, taps, strict=True)
    pads = [draw(st.integers(0, (s * (n - 1) + k - 1) // 2)) for n, s, k in reach]
    model = depthwise(weight, sizes, bias=False, strides=list(strides), pads=[*pads, *pads])
    return model, weight, {"stride": strides, "padding": pads, "groups": channels}


@settings(max_examples=200)
@given(layer=layers())
def test_every_product_is_what_pytorch_computes(
    layer: tuple[ModelProto, Array, dict[str, Any]],
) -> None:
    model, weight, attributes = layer
    _, after = multiplied(model)
    feeds = feeds_for(model)
    x, w = (torch.from_numpy(array).double() for array in (feeds["x"], weight))
    expected = torch.nn.functional.conv_transpose2d(x, w, **attributes).numpy()
    np.testing.assert_array_equal(run(after, feeds)["y"], expected)
