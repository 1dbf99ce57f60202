"""One axis after the other: the same layer where its kernels are products, else not taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from deployconv.errors import ModelError
from deployconv.options import Shuffle
from deployconv.results import Macs, SiteReport
from tests.build import (
    Array,
    Size,
    assert_equal,
    feeds_for,
    ops,
    rewrite,
    run,
)
from tests.match.graphs import NEAREST, assert_never_wrong, floats, ints, parsed
from tests.quantized import Layer, quantized
from tests.rewrites.products import BEHIND, bilinear, depthwise, layers_of, products

SHUFFLES: tuple[Shuffle, ...] = ("transpose", "two-step", "col2im")

FIR = np.array([1, 3, 3, 1])


def separated(model: ModelProto, **options: Any) -> tuple[SiteReport, ModelProto]:
    """The site of ``model`` in this form, certified, with the same bits as before."""
    done, after = rewrite(model, form="separable", **options)
    (site,) = done.sites
    assert (site.form, site.certificate) == ("separable", "exact")
    assert done.warnings == ()
    feeds = feeds_for(model)
    assert_equal(run(model, feeds), run(after, feeds))
    return site, after


def test_bilinear_upsampling_is_a_conv_along_each_axis() -> None:
    site, after = separated(bilinear(3, 8, (5, 4)), shuffle="col2im")
    assert (site.conv_kernel, site.shuffle) == ((2, 2), "col2im")
    assert site.macs == Macs(3 * 256, 3 * (2 * 8 + 8 * 2 * 8))
    assert ops(after) == {"Conv": 2, "Reshape": 2, "Col2Im": 2}
    kernels = [tuple(t.dims) for t in after.graph.initializer if len(t.dims) == 4]
    assert kernels == [(24, 1, 1, 2), (24, 1, 2, 1)]


def zeros_between(spread: str, weight: Array, **constants: Array) -> ModelProto:
    """``x [1, 2, 5, 3]``, ``spread`` to twice the size, FIR filter."""
    body = f"{spread} y = Conv<pads=[2,2,1,1], group=2>(z, fir)"
    return parsed(body, {"fir": weight, **constants}, "1,2,5,3", opset=18)


TALL = {"tall": ints(1, 2, 5, 1, 3, 1), "flat": ints(1, 2, 10, 6)}
SPREAD = "a = Reshape(x, tall) p = Pad(a, behind) z = Reshape(p, flat)"
DOUBLED = {"k": floats(1, 1, 2, 2)}
TWO = products(2, 4, 4)

SITES: dict[str, Callable[[], ModelProto]] = {
    **layers_of(products),
    "bilinear": lambda: bilinear(3, 2, (5, 4)),
    "channel_multiplier": lambda: depthwise(products(6, 4, 4).reshape(2, 3, 4, 4)),
    "one_channel_to_many": lambda: depthwise(products(3, 4, 3).reshape(1, 3, 4, 3)),
    "a_channel_of_zeros": lambda: depthwise(
        products(2, 4, 4) * np.reshape(np.float32([0, 1]), (2, 1, 1, 1))
    ),
    "zero_insertion": lambda: zeros_between(SPREAD, TWO, behind=BEHIND, **TALL),
    "nearest_resize": lambda: parsed(
        f"z = Resize<{NEAREST}>(x, , k) y = Conv<pads=[2,1,1,2], group=2>(z, fir)",
        {"fir": TWO, **DOUBLED},
        "1,2,5,3",
        opset=18,
    ),
    "scaled_behind": lambda: parsed(
        "z = ConvTranspose<strides=[2,2], group=2>(x, fir) s = Mul(z, c) y = Sub(t, s)",
        {"fir": TWO, "c": floats(3, -5).reshape(2, 1, 1), "t": floats(2)},
        "1,2,5,3",
        opset=18,
    ),
}


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("build", SITES.values(), ids=SITES)
def test_every_kind_of_site(build: Callable[[], ModelProto], shuffle: Shuffle) -> None:
    site, _ = separated(build(), shuffle=shuffle)
    assert site.shuffle == shuffle


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_element_types(dtype: Any) -> None:
    done, after = rewrite(depthwise(products(2, 4, 4).astype(dtype)), form="separable")
    assert (done.sites[0].form, done.sites[0].certificate) == ("separable", "exact")
    assert {t.data_type for t in after.graph.initializer if len(t.dims) == 4} == {
        {np.float16: 10, np.float64: 11}[dtype]
    }


@pytest.mark.parametrize("sizes", [(None, None), (None, 4), (4, None)], ids=str)
@pytest.mark.parametrize("shuffle", ["transpose", "col2im"])
def test_dynamic_sizes(sizes: Sequence[Size], shuffle: str) -> None:
    model = depthwise(products(2, 4, 6), sizes, strides=[2, 3], pads=[1, 2, 1, 1])
    shapes = [(1, 2, a if sizes[0] is None else 4, b or 4) for a in (1, 2, 7) for b in (4, 5)]
    fitting = [shape for shape in shapes if sizes[1] is None or shape[3] == 4]
    (site,) = assert_never_wrong(model, fitting, form="separable", shuffle=shuffle)
    assert (site.form, site.shuffle) == ("separable", shuffle)
    separated(model, shuffle=shuffle)


def test_a_folded_scale_is_rounded_once_into_one_factor() -> None:
    """The folded kernels, rounded tap by tap, are no products any more."""
    scale = np.array([1.1, -0.3], np.float32)
    model = parsed(
        "z = ConvTranspose<strides=[2,2], group=2>(x, fir)"
        " s = BatchNormalization<epsilon=0.0>(z, g, o, o, v) y = Mul(s, c)",
        {"fir": TWO, "g": scale, "o": floats(0, 0), "v": floats(1, 1), "c": floats(0.7)},
        "1,2,5,3",
        opset=18,
    )
    done, after = rewrite(model, form="separable", shuffle="col2im")
    assert (done.sites[0].form, done.sites[0].certificate) == ("separable", "exact")
    assert ops(after) == {"Conv": 2, "Reshape": 2, "Col2Im": 2}
    _, apart = rewrite(
        parsed("y = ConvTranspose<strides=[2,2], group=2>(x, fir)", {"fir": TWO}, "1,2,5,3"),
        form="separable",
    )
    first, last = (t for t in after.graph.initializer if len(t.dims) == 4)
    plain, before = (t for t in apart.graph.initializer if len(t.dims) == 4)
    np.testing.assert_array_equal(_values(first), _values(plain))
    factor = scale.astype(np.float64) * np.float64(np.float32(0.7))
    wanted = _values(before).astype(np.float64) * factor.repeat(2).reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(_values(last), wanted.astype(np.float32))


def _values(tensor: Any) -> Array:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


TRAINED = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)
ROUNDED = products(2, 4, 4) / 16
ROUNDED[1, 0, 2, 1] = np.nextafter(ROUNDED[1, 0, 2, 1], np.float32(9))
THIRDS = 1 - np.abs((np.arange(6) + 0.5) / 3 - 1)

GIVE_WAY: dict[str, Callable[[], ModelProto]] = {
    "trained": lambda: depthwise(TRAINED),
    "one_rounding_away": lambda: depthwise(ROUNDED),
    "thirds": lambda: depthwise(np.outer(THIRDS, THIRDS)[None, None].astype(np.float32)),
    "a_line": lambda: depthwise(products(2, 4), (5,)),
    "one_axis_is_not_upsampled": lambda: depthwise(products(2, 4, 3), strides=[2, 1]),
    "channels_are_summed": lambda: depthwise(products(2, 4, 4), group=1, bias=False),
    "bfloat16": lambda: depthwise(products(2, 4, 4).astype(ml_dtypes.bfloat16), opset=22),
    "integers": lambda: quantized(Layer(group=4, channels=(4, 4)), opset=18),
}


@pytest.mark.parametrize("build", GIVE_WAY.values(), ids=GIVE_WAY)
def test_where_it_does_not_fit_the_smallest_kernel_is_taken_and_said_so(
    build: Callable[[], ModelProto],
) -> None:
    model = build()
    done, after = rewrite(model, form="separable", verify=False)
    (site,) = done.sites
    assert site.form in ("crop", "pad")
    assert done.warnings == (f"{site.id}: form 'separable' does not fit, '{site.form}' taken",)
    _, plain = rewrite(model, verify=False)
    assert after.SerializeToString(deterministic=True) == plain.SerializeToString(
        deterministic=True
    )


def test_a_shuffle_of_both_axes_gives_way_to_one_for_each() -> None:
    done, _ = rewrite(depthwise(products(2, 4, 4)), form="separable", shuffle="crd")
    (site,) = done.sites
    assert (site.form, site.shuffle) == ("separable", "transpose")
    assert done.warnings == (f"{site.id}: shuffle 'crd' does not fit, 'transpose' taken",)


def test_weights_that_cannot_be_used_are_refused_as_ever() -> None:
    weight = products(2, 4, 4)
    weight[0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="NaN or infinite"):
        rewrite(depthwise(weight), form="separable", verify=False)


# --- any layer of this kind


@st.composite
def layers(draw: st.DrawFn) -> tuple[ModelProto, Array, dict[str, Any]]:
    """A ConvTranspose, its weight, and what PyTorch calls its attributes."""
    channels, multiplier = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    sizes = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    strides = draw(st.tuples(st.integers(2, 4), st.integers(2, 4)))
    taps = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    seed = draw(st.integers(0, 2**16))
    weight = products(channels * multiplier, *taps, seed=seed)
    weight = weight.reshape(channels, multiplier, *taps) * np.float32(
        2.0 ** draw(st.integers(-8, 0))
    )
    reach = zip(sizes, strides, taps, strict=True)
    pads = [draw(st.integers(0, (s * (n - 1) + k - 1) // 2)) for n, s, k in reach]
    model = depthwise(weight, sizes, bias=False, strides=list(strides), pads=[*pads, *pads])
    return model, weight, {"stride": strides, "padding": pads, "groups": channels}


@settings(max_examples=200)
@given(layer=layers(), shuffle=st.sampled_from(SHUFFLES))
def test_every_product_is_what_pytorch_computes(
    layer: tuple[ModelProto, Array, dict[str, Any]], shuffle: Shuffle
) -> None:
    model, weight, attributes = layer
    site, after = separated(model, shuffle=shuffle)
    assert site.shuffle == shuffle
    feeds = feeds_for(model)
    x, w = (torch.from_numpy(array).double() for array in (feeds["x"], weight))
    expected = torch.nn.functional.conv_transpose2d(x, w, **attributes).numpy()
    np.testing.assert_array_equal(run(after, feeds)["y"], expected)
