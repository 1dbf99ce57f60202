"""A rewritten model runs on an empty batch wherever the original does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import deployconv
from deployconv.errors import CheckFailed
from deployconv.graph.load import load
from deployconv.options import Form, RewriteOptions, Shuffle
from deployconv.proof.certificate import certify
from deployconv.rewrites.layout import Layout
from deployconv.rewrites.planning import apply, plan_model
from deployconv.runtimes import get_backend
from deployconv.search.choice import Choice, FusionScope
from tests.build import Size, conv_transpose, integers, ops, reasons, rewrite, run
from tests.match.graphs import NEAREST, floats, ints, parsed
from tests.rewrites.plans import chosen
from tests.rewrites.products import depthwise, products
from tests.rewrites.test_shuffles import SHUFFLES

SIZES = (3, 4, 5)


def upsampler(
    strides: Sequence[int], sizes: Sequence[Size], group: int = 1, opset: int = 18
) -> ModelProto:
    """4 to 6 channels, a dynamic batch, something to crop at both ends."""
    rank = len(strides)
    return conv_transpose(
        integers(4, 6 // group, *[5] * rank),
        sizes,
        integers(6, seed=1),
        batch=None,
        opset=opset,
        strides=strides,
        group=group,
        pads=[1] * rank + [2] * rank,
    )


def assert_same_on_any_batch(original: ModelProto, after: ModelProto, rounding: float = 0) -> None:
    """Both give the same for no image and for two, at two sizes if these are dynamic."""
    backend, written = get_backend("ort"), after.SerializeToString()
    sessions = [
        backend.prepare(written, threads=1, optimise=optimise) for optimise in (True, False)
    ]
    dims = original.graph.input[0].type.tensor_type.shape.dim[1:]
    for batch, more in ((0, 0), (2, 0), (0, 3)):
        sizes = [dim.dim_value or size + more for dim, size in zip(dims, (2, *SIZES), strict=False)]
        feeds = {"x": integers(batch, *sizes)}
        expected = run(original, feeds)["y"]
        # What onnxruntime makes of a Reshape may fail where the Reshape as written does not.
        for session in sessions:
            actual = session.run(feeds)["y"]
            assert actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("form", ["auto", "split"])
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("strides", [(2,), (2, 2), (3, 2), (2, 2, 1)])
@pytest.mark.parametrize("dynamic", ["batch", "first", "last", "all"])
def test_every_form_and_shuffle(
    strides: tuple[int, ...], shuffle: Shuffle, form: Form, dynamic: str
) -> None:
    sizes: list[Size] = list(SIZES[: len(strides)])
    for axis in {"batch": (), "first": (0,), "last": (-1,), "all": range(len(sizes))}[dynamic]:
        sizes[axis] = None
    original = upsampler(strides, sizes)
    done, after = rewrite(original, shuffle=shuffle, form=form, verify=False)
    assert done.sites[0].status == "rewritten"
    assert_same_on_any_batch(original, after)


@pytest.mark.parametrize("shuffle", ["crd", "transpose", "col2im"])
def test_grouped_layers(shuffle: Shuffle) -> None:
    original = upsampler((2, 2), (None, None), group=2)
    _, after = rewrite(original, shuffle=shuffle, form="split", verify=False)
    assert_same_on_any_batch(original, after)


@pytest.mark.parametrize("form", ["separable", "matrix"])
@pytest.mark.parametrize("rank", [2, 3])
def test_products(form: Form, rank: int) -> None:
    weight = np.tile(products(1, *[4] * rank), (2, *[1] * (rank + 1)))
    sizes: Sequence[Size] = [None, *SIZES[1:rank]] if form == "separable" else SIZES[:rank]
    original = depthwise(weight, sizes, batch=None)
    done, after = rewrite(original, form=form, verify=False)
    assert done.sites[0].form == form
    assert_same_on_any_batch(original, after)


UP = "a = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, wa, ba)"
BLOCKS = "a = ConvTranspose<strides=[2,2]>(x, w2, ba)"
WEIGHTS: dict[str, Any] = {
    **{"wa": integers(2, 4, 4, 4, seed=1), "w2": integers(2, 4, 2, 2), "ba": integers(4, seed=2)},
    **{"w1": integers(3, 4, 1, 1, seed=5), "w3": integers(1, 4, 3, 3, seed=6)},
    **{"one": ints(1), "flat": ints(-1, 2, 96), "whole": ints(-1, 4, 6, 8)},
    **{"ones": np.ones(2, np.float32), "zeros": np.zeros(2, np.float32)},
}
FUSED: dict[str, tuple[str, str, FusionScope]] = {
    "chain": (f"{UP} t = Relu(a) y = Conv(t, w1)", "n,2,h,w", "chain"),
    "region": (f"{UP} m = ReduceMax(a, one) d = Sub(a, m) y = Conv(d, w1)", "n,2,h,w", "region"),
    "sums": (f"{UP} t = ReduceSum(a, one) y = Sub(a, t)", "n,2,h,4", "region"),
    "last_conv": (
        f"{BLOCKS} t = Relu(a) y = Conv<pads=[1,1,1,1]>(t, w3)",
        "n,2,h,w",
        "region + conv",
    ),
    "normalization": (
        f"{BLOCKS} f = Reshape(a, flat) i = InstanceNormalization(f, ones, zeros)"
        " r = Reshape(i, whole) m = ReduceMax(r, one) y = Sub(r, m)",
        "n,2,3,4",
        "region",
    ),
}


@pytest.mark.parametrize("shuffle", ["crd", "transpose", "col2im"])
@pytest.mark.parametrize("case", FUSED.values(), ids=FUSED)
def test_layers_that_run_before_the_shuffle(
    case: tuple[str, str, FusionScope], shuffle: Shuffle
) -> None:
    body, shape, fusion = case
    original = parsed(body, WEIGHTS, shape, opset=18)
    site, *_ = plan_model(load(original), RewriteOptions()).reports
    planning = chosen(original, {site.id: Choice("crop", shuffle, fusion)})
    (planned, *_) = planning.sites
    assert planned.rewrite is not None
    assert set(planned.rewrite.outputs) == {"y"}
    assert certify(planned.rewrite, planned.id).verdict == "exact"
    rounding = 1e-5 if "Normalization" in body else 0
    assert_same_on_any_batch(original, apply(planning).proto, rounding)


@pytest.mark.parametrize("shuffle", ["transpose", "two-step", "channels-last"])
@pytest.mark.parametrize("shape", ["n,2,l", "n,2,3"])
def test_integer_layers(shuffle: Shuffle, shape: str) -> None:
    original = parsed(
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) k = DequantizeLinear(wq, s, z)"
        " a = ConvTranspose<strides=[2]>(d, k) o = QuantizeLinear(a, s, z)"
        " y = DequantizeLinear(o, s, z)",
        {
            **{"wq": np.arange(24, dtype=np.int8).reshape(2, 3, 4), "z": np.array(0, np.int8)},
            "s": np.array(1, np.float32),
        },
        shape,
    )
    done, after = rewrite(original, shuffle=shuffle, verify=False)
    assert done.sites[0].status == "rewritten"
    assert_same_on_any_batch(original, after)


def test_channels_in_the_batch() -> None:
    original = parsed(
        "a = Reshape(x, tall) p = Pad(a, behind) z = Reshape(p, flat)"
        " f = Conv<pads=[2,2,1,1]>(z, fir) y = Reshape(f, apart)",
        {
            "fir": integers(1, 1, 4, 4),
            "behind": ints(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1),
            "tall": ints(-1, 1, 3, 1, 4, 1),
            "flat": ints(-1, 1, 6, 8),
            "apart": ints(-1, 2, 6, 8),
        },
        "n,2,3,4",
        opset=18,
    )
    done, after = rewrite(original, verify=False)
    assert done.sites[0].status == "rewritten"
    assert_same_on_any_batch(original, after)


@pytest.mark.parametrize("opset", [7, 9, 10, 12, 13])
def test_every_opset_that_changed_an_operator(opset: int) -> None:
    for strides, sizes in (((2,), (None,)), ((2, 3), (None, 4))):
        original = upsampler(strides, sizes, opset=opset)
        for form in ("auto", "split"):
            _, after = rewrite(original, form=form, verify=False)
            assert_same_on_any_batch(original, after)


def test_before_opset_7_no_size_can_be_computed_beside_a_dynamic_batch() -> None:
    dynamic = upsampler((2, 3), (None, 4), opset=6)
    assert reasons(dynamic, verify=False) == ["dynamic-sizes-old-opset"]
    for original in (upsampler((2, 3), (3, 4), opset=6), upsampler((2,), (None,), opset=4)):
        _, after = rewrite(original, verify=False)
        assert "ConvTranspose" not in ops(after)
        assert_same_on_any_batch(original, after)


def test_a_static_batch_needs_no_arithmetic() -> None:
    original = parsed(
        "a = ConvTranspose<strides=[2]>(x, w) y = Relu(a)", {"w": integers(2, 3, 4)}, "2,2,l"
    )
    _, after = rewrite(original, verify=False)
    assert "Shape" not in ops(after)


def test_a_resize_that_repeats() -> None:
    original = parsed(
        f"r = Resize<{NEAREST}>(x, , k) y = Conv<pads=[1,1,1,1]>(r, w)",
        {"w": integers(3, 2, 3, 3), "k": floats(1, 1, 2, 3)},
        "n,2,h,w",
        opset=18,
    )
    _, after = rewrite(original, verify=False)
    assert_same_on_any_batch(original, after)


def test_the_certificate_runs_on_an_empty_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    original = upsampler((2,), (None,))
    assert deployconv.rewrite(original, bench=False).sites[0].certificate == "exact"
    monkeypatch.setattr(Layout, "computed", False)
    with pytest.raises(CheckFailed, match=r"an empty batch: .*Reshape"):
        deployconv.rewrite(original, bench=False)
